"""The table of models. Readable without torch: listings, help and did-you-mean never import a network.

A new model is one file in ``edgemamba/models`` and its rows here. Parameter counts are exact and tested; the paper is
Crews and Whalen, "Mamba vs. else" (compact Mamba segmentation on LGG), its Table I.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from edgemamba.errors import Unsupported, UsageError, did_you_mean

# What the output means: a mask's probability, classes' probabilities, or (another project's network) just numbers.
Task = Literal["segmentation", "classification", "tensor"]
# What the output of an artifact is called.
OUTPUTS: dict[Task, str] = {"segmentation": "probability", "classification": "probabilities", "tensor": "output"}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """One registered network.

    Attributes:
        name: registry name.
        factory: ``module:callable`` that takes ``kwargs`` plus ``in_channels`` and ``init``.
        kwargs: what makes this variant.
        parameters: exact count; of a classifier with ``classes`` classes.
        stride: height and width must be divisible by it.
        task: what the output means.
        summary: one line for listings.
        paper_dice: Dice in the paper's Table I (image split), or None.
        size: input height and width where the user says nothing, pixels.
        classes: outputs a pixel or image of the published network; data with other classes gets another head.
        fixed_size: whether it takes images of ``size`` only.
    """

    name: str
    factory: str
    kwargs: dict[str, Any]
    parameters: int
    stride: int
    task: Task
    summary: str
    paper_dice: float | None = None
    size: tuple[int, int] = (256, 256)
    classes: int = 1
    fixed_size: bool = False

    def check_size(self, height: int, width: int) -> None:
        """Raise Unsupported unless the network takes inputs of this size (pixels)."""
        if self.fixed_size and (height, width) != self.size:
            raise Unsupported(
                f"{self.name} cannot take {height}x{width}: it has one position embedding for each patch of a "
                f"{self.size[0]}x{self.size[1]} image",
                hint=f"leave --size out, or say --size {self.size[0]}",
            )
        if height % self.stride or width % self.stride or height < 1 or width < 1:
            near = max(self.stride, round(height / self.stride) * self.stride)
            raise Unsupported(
                f"{self.name} cannot take {height}x{width}: both sides must be multiples of {self.stride}",
                hint=f"try --size {near}",
            )


_UL = "edgemamba.models.ul_vm_unet:ULVMUNet"
RESNET_SEG = "edgemamba.models.resnet_seg:ResNetSeg"
_NARROW = [8, 16, 24, 32, 48, 64]
_SHALLOW = [16, 32, 64, 128, 256]
_WIDE = [16, 32, 64, 128, 256, 512]
_DOUBLING = [32, 64, 128, 256, 512]


def _ul(
    name: str,
    channels: list[int],
    branches: int,
    ppm: str,
    parameters: int,
    stride: int,
    dice: float,
    text: str,
) -> ModelInfo:
    kwargs = {"channels": channels, "branches": branches, "ppm": ppm}
    return ModelInfo(name, _UL, kwargs, parameters, stride, "segmentation", text, dice)


def _vim(name: str, kwargs: dict[str, Any], parameters: int, text: str) -> ModelInfo:
    """A Vision Mamba for 32x32 images and 100 classes."""
    factory = f"edgemamba.models.vim:{'Vim' if name == 'vim' else 'Vim2d'}"
    return ModelInfo(
        name, factory, kwargs, parameters, 4, "classification", text, size=(32, 32), classes=100, fixed_size=True
    )


def _resnet(name: str, kwargs: dict[str, Any], parameters: int, text: str) -> ModelInfo:
    """A ResNet for images around 32x32 and 100 classes."""
    factory = f"edgemamba.models.resnet:{name.replace('resnet', 'ResNet')}"
    return ModelInfo(name, factory, kwargs, parameters, 8, "classification", text, size=(32, 32), classes=100)


MODELS: dict[str, ModelInfo] = {
    info.name: info
    for info in (
        _ul("ul-vm-unet", _NARROW, 4, "none", 49_457, 32, 0.79955, "UltraLight VM-UNet, four branches"),
        _ul("ul-vm-unet-v1", _SHALLOW, 4, "none", 217_165, 16, 0.8409, "wide and shallow, four branches"),
        _ul("ul-vm-unet-v2", _NARROW, 8, "none", 42_737, 32, 0.8243, "base widths, eight branches"),
        _ul("ul-vm-unet-v3", _SHALLOW, 8, "none", 176_453, 16, 0.8109, "wide and shallow, eight branches"),
        _ul(
            "ul-vm-unet-v4",
            _WIDE,
            8,
            "all",
            1_135_309,
            32,
            0.8548,
            "wide, pyramid pooling in every PVM layer",
        ),
        _ul("ul-vm-unet-v5", _WIDE, 8, "none", 703_885, 32, 0.8633, "wide, eight branches"),
        _ul(
            "ul-vm-unet-v6",
            _WIDE,
            8,
            "bottleneck",
            769_677,
            32,
            0.8628,
            "wide, pyramid pooling at the bottleneck",
        ),
        ModelInfo(
            "unet",
            "edgemamba.models.unet:UNet",
            {"width": 32},
            7_765_985,
            16,
            "segmentation",
            "U-Net, the baseline",
            0.8929,
        ),
        ModelInfo(
            "u-mamba-bot",
            "edgemamba.models.u_mamba:UMambaBot",
            {"channels": _DOUBLING},
            9_813_700,
            16,
            "segmentation",
            "U-Mamba, Mamba at the bottleneck",
            0.8799,
        ),
        ModelInfo(
            "u-mamba-bot-pp",
            "edgemamba.models.u_mamba:UMambaBot",
            {"channels": _DOUBLING, "pyramid": True},
            10_076_356,
            16,
            "segmentation",
            "U-Mamba, pyramid pooling before Mamba",
            0.8867,
        ),
        ModelInfo(
            "resnet18-seg",
            RESNET_SEG,
            {"blocks": [2, 2, 2, 2], "bottleneck": False},
            13_930_497,
            32,
            "segmentation",
            "ResNet-18 with a transposed-convolution decoder",
            0.8648,
        ),
        ModelInfo(
            "resnet50-seg",
            RESNET_SEG,
            {"blocks": [3, 4, 6, 3], "bottleneck": True},
            42_909_633,
            32,
            "segmentation",
            "ResNet-50 with a transposed-convolution decoder",
            0.8672,
        ),
        ModelInfo(
            "segformer",
            "edgemamba.models.segformer:SegFormer",
            {"widths": [64, 128, 256, 512], "depths": [3, 4, 6, 3], "heads": [1, 2, 4, 8], "decoder_width": 256},
            17_782_913,
            32,
            "segmentation",
            "SegFormer, the re-implementation the paper ran",
            0.8454,
        ),
        ModelInfo(
            "ultralbm-unet",
            "edgemamba.models.ultralbm:UltraLBMUNet",
            {"channels": _NARROW},
            34_166,
            32,
            "segmentation",
            "UltraLBM-UNet, channels flipped as published",
        ),
        ModelInfo(
            "ultralbm-unet-token",
            "edgemamba.models.ultralbm:UltraLBMUNet",
            {"channels": _NARROW, "flip": "token"},
            34_166,
            32,
            "segmentation",
            "UltraLBM-UNet, tokens flipped: a true second direction",
        ),
        ModelInfo(
            "ultralbm-unet-t",
            "edgemamba.models.ultralbm:UltraLBMUNet",
            {"channels": [4, 8, 12, 16, 24, 32]},
            10_956,
            32,
            "segmentation",
            "UltraLBM-UNet, half as wide",
        ),
        ModelInfo(
            "edge-unet",
            "edgemamba.models.edge_unet:EdgeUNet",
            {
                "channels": [16, 24, 32, 64],
                "local": [2, 2, 1, 0],
                "local_up": [2, 1, 1],
                "scans": [0, 0, 0, 2],
                "kernels": [5, 5, 7, 5],
            },
            49_083,
            16,
            "segmentation",
            "edgemamba's own: local blocks, scans in four directions",
        ),
        _vim("vim", {"d_model": 168, "depth": 8}, 1_806_436, "Vision Mamba, bidirectional, with a class token"),
        _vim("vim-2d", {"d_model": 168, "depth": 8}, 1_806_100, "Vision Mamba with 2-D convolutions, bidirectional"),
        _vim(
            "vim-2d-uni",
            {"d_model": 168, "depth": 8, "bidirectional": False},
            1_612_564,
            "Vision Mamba with 2-D convolutions, one direction",
        ),
        _vim("vim-2d-nano", {"d_model": 64, "depth": 4}, 176_868, "vim-2d at a tenth of the size, for CPUs"),
        _vim("vim-2d-tiny", {"d_model": 96, "depth": 6}, 507_364, "vim-2d at a quarter of the size"),
        _vim(
            "vim-2d-base",
            {"d_model": 320, "depth": 9, "drop_path": 0.1},
            6_695_460,
            "vim-2d as large as resnet9, with stochastic depth",
        ),
        _resnet("resnet9", {"widths": [64, 128, 256, 512]}, 6_621_540, "ResNet-9, the small baseline"),
        _resnet("resnet50", {"blocks": [3, 4, 6, 3]}, 23_705_252, "ResNet-50 with a stem for small images"),
    )
}


def model_info(name: str) -> ModelInfo:
    """Look a model up by name.

    Raises:
        UsageError: unknown name (with the nearest known ones).
    """
    try:
        return MODELS[name]
    except KeyError:
        raise UsageError(f"no model is named {name!r}", hint=did_you_mean(name, MODELS)) from None
