"""ImageNet weights for the ResNet encoders, from the packages that people have them of.

Names: torchvision and timm ``conv1``, ``bn1``, ``layer1.0.conv1`` ...; segmentation-models the same after
``encoder.``; Transformers ``resnet.embedder.embedder`` and ``resnet.encoder.stages.0.layers.0.layer.0`` ... What stands
on top is left out. The images stay as they are here, RGB in [0, 1] without ImageNet's mean and deviation, as in the
paper (which read B, G, R).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from edgemamba.errors import InputError
from edgemamba.models.weights import read_weights, shapes_of

# Place in our encoder -> torchvision's name of it.
_STAGES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_TOPS = re.compile(r"^(fc|classifier|head|last_linear|global_pool)\.")
_PREFIX = re.compile(r"^(module\.|model\.|backbone\.|encoder\.)+")
_STEM = re.compile(r"^(?:resnet\.)?embedder\.embedder\.(convolution|normalization)\.")
_BLOCK = re.compile(
    r"^(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|(shortcut))\.(convolution|normalization)\."
)
_COUNTER = "num_batches_tracked"
_SHOWN = 3


def load_encoder(path: Path, model: nn.Module) -> None:
    """Load an ImageNet ResNet into ``model.encoder``; the decoder keeps its fresh weights.

    Raises:
        InputError: not safetensors, or the tensors of another network; the first that differ are named.
    """
    tensors, _ = read_weights(path)
    found = _torchvision_names(tensors)
    encoder = model.get_submodule("encoder")
    expected = {_torchvision_name(name): (name, shape) for name, shape in shapes_of(encoder).items()}
    needed = {name: shape for name, (_, shape) in expected.items() if not name.endswith(_COUNTER)}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items() if not name.endswith(_COUNTER)}
    if shapes != needed:
        raise _mismatch(path, shapes, needed, str(getattr(getattr(model, "info", None), "name", "the network")))
    for name, tensor in found.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} holds values that are not finite", hint="get the file again")
    # Files of early torchvision have no counters: those of the fresh network stay.
    state = {own: found[name].reshape(shape) for name, (own, shape) in expected.items() if name in found}
    encoder.load_state_dict(state, strict=False)


def _torchvision_name(name: str) -> str:
    stage, rest = name.split(".", 1)
    return f"{_STAGES[stage]}.{rest}"


def _torchvision_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the encoder by torchvision's names, without whatever stands on top of it."""
    bare = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if any(_STEM.match(name) for name in bare):
        named = {_from_transformers(name): tensor for name, tensor in bare.items()}
    else:
        # Of a whole segmentation net only its encoder.
        own = {name: t for name, t in bare.items() if name.startswith("encoder.")} or bare
        named = {_PREFIX.sub("", name): tensor for name, tensor in own.items()}
    return {name: tensor for name, tensor in named.items() if not _TOPS.match(name)}


def _from_transformers(name: str) -> str:
    stem = _STEM.match(name)
    if stem:
        return f"{'conv1' if stem[1] == 'convolution' else 'bn1'}.{name[stem.end() :]}"
    block = _BLOCK.match(name)
    if not block:
        return name
    stage, number, layer, shortcut, kind = block.groups()
    convolution = kind == "convolution"
    if shortcut:
        part = f"downsample.{0 if convolution else 1}"
    else:
        part = f"{'conv' if convolution else 'bn'}{int(layer) + 1}"
    return f"layer{int(stage) + 1}.{number}.{part}.{name[block.end() :]}"


def _mismatch(
    path: Path, found: dict[str, tuple[int, ...]], needed: dict[str, tuple[int, ...]], model: str
) -> InputError:
    wrong = sorted(name for name in found.keys() | needed.keys() if found.get(name) != needed.get(name))
    shown = "; ".join(
        f"{name} is {found.get(name, 'missing')}, {needed.get(name, 'no such tensor')} expected"
        for name in wrong[:_SHOWN]
    )
    return InputError(
        f"{path} is not the encoder of {model}: {len(wrong)} tensors differ: {shown}",
        hint="it takes a plain ResNet of the same depth, not a ResNet-D, wide or grouped one",
    )
