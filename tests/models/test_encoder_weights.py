"""ImageNet weights under the names of four packages; the mapping is checked by computing with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgemamba.errors import InputError
from edgemamba.models import build
from edgemamba.models.encoder_weights import load_encoder

State = dict[str, Tensor]
BLOCKS = {"resnet18-seg": (2, 2, 2, 2), "resnet50-seg": (3, 4, 6, 3)}


def torchvision(name: str) -> State:
    """Random weights as torchvision lays a ResNet out, written down from its published state dict, fc included."""
    deep = name == "resnet50-seg"
    torch.manual_seed(1)
    state: State = {}

    def conv(key: str, cout: int, cin: int, kernel: int) -> None:
        state[f"{key}.weight"] = torch.randn(cout, cin, kernel, kernel) * (2 / (cin * kernel**2)) ** 0.5

    def norm(key: str, width: int) -> None:
        state[f"{key}.weight"], state[f"{key}.bias"] = torch.rand(width) + 0.5, torch.randn(width) * 0.1
        state[f"{key}.running_mean"], state[f"{key}.running_var"] = torch.randn(width) * 0.1, torch.rand(width) + 0.5
        state[f"{key}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    cin = 64
    for stage, count in enumerate(BLOCKS[name]):
        width = 64 * 2**stage
        cout = width * (4 if deep else 1)
        for block in range(count):
            key = f"layer{stage + 1}.{block}"
            shapes = [(width, cin, 1), (width, width, 3), (cout, width, 1)] if deep else [(width, cin, 3)]
            shapes += [] if deep else [(width, width, 3)]
            for i, (to, of, kernel) in enumerate(shapes, 1):
                conv(f"{key}.conv{i}", to, of, kernel)
                norm(f"{key}.bn{i}", to)
            if cin != cout or (stage and not block):
                conv(f"{key}.downsample.0", cout, cin, 1)
                norm(f"{key}.downsample.1", cout)
            cin = cout
    state["fc.weight"], state["fc.bias"] = torch.randn(1000, cin), torch.randn(1000)
    return state


def transformers(state: State) -> State:
    """The same under Hugging Face's names."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"^fc\.", "classifier.1.", name)
        name = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", name)
        name = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", name)
        block = re.match(r"layer(\d)\.(\d)\.(.*)", name)
        if block:
            rest = block[3]
            rest = re.sub(r"^conv(\d)", lambda m: f"layer.{int(m[1]) - 1}.convolution", rest)
            rest = re.sub(r"^bn(\d)", lambda m: f"layer.{int(m[1]) - 1}.normalization", rest)
            rest = rest.replace("downsample.0", "shortcut.convolution").replace(
                "downsample.1", "shortcut.normalization"
            )
            name = f"resnet.encoder.stages.{int(block[1]) - 1}.layers.{block[2]}.{rest}"
        renamed[name] = tensor
    return renamed


def smp(state: State) -> State:
    """A whole net of segmentation-models: its encoder has no fc."""
    kept = {f"encoder.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
    return kept | {
        "decoder.blocks.0.conv1.0.weight": torch.zeros(2, 2, 3, 3),
        "segmentation_head.0.bias": torch.ones(1),
    }


def features(state: State, x: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """The published forward pass in evaluation mode, by hand."""

    def norm(x: Tensor, key: str) -> Tensor:
        mean, var, weight, bias = (state[f"{key}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return nn.functional.batch_norm(x, mean, var, weight, bias)

    x = norm(nn.functional.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1").relu()
    x = nn.functional.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks):
        for block in range(count):
            key, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            last = 3 if f"{key}.conv3.weight" in state else 2
            y = x
            for i in range(1, last + 1):
                weight = state[f"{key}.conv{i}.weight"]
                # The stride stands in the first 3x3 convolution (ResNet "v1.5").
                here = stride if i == (2 if last == 3 else 1) else 1
                y = norm(nn.functional.conv2d(y, weight, stride=here, padding=weight.shape[-1] // 2), f"{key}.bn{i}")
                y = y.relu() if i < last else y
            if f"{key}.downsample.0.weight" in state:
                x = norm(
                    nn.functional.conv2d(x, state[f"{key}.downsample.0.weight"], stride=stride), f"{key}.downsample.1"
                )
            x = (x + y).relu()
    return x


LAYOUTS = {
    "torchvision": lambda state: state,
    "data parallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "without counters": lambda state: {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")},
    "segmentation-models": smp,
    "transformers": transformers,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", BLOCKS)
def test_the_encoder_computes_what_the_weights_mean(name: str, layout: str, tmp_path: Path) -> None:
    state = torchvision(name)
    save_file({n: t.clone() for n, t in LAYOUTS[layout](state).items()}, tmp_path / "r.safetensors")
    model = build(name).eval()
    fresh = {n: t.clone() for n, t in model.state_dict().items() if n.startswith("decoder.")}
    load_encoder(tmp_path / "r.safetensors", model)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found = model.get_submodule("encoder")(x)
        expected = features(state, x, BLOCKS[name])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in fresh.items())


def test_another_depth_names_what_differs(tmp_path: Path) -> None:
    save_file(torchvision("resnet18-seg"), tmp_path / "r.safetensors")
    with pytest.raises(InputError, match=r"is not the encoder of resnet50-seg: \d+ tensors differ: layer1\.0\.bn3"):
        load_encoder(tmp_path / "r.safetensors", build("resnet50-seg"))


def test_a_deep_stem_is_refused(tmp_path: Path) -> None:
    state = torchvision("resnet18-seg")
    state["conv1.0.weight"] = state.pop("conv1.weight")[:32]
    save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / "r.safetensors")
    with pytest.raises(InputError, match=r"conv1\.weight is missing, \(64, 3, 7, 7\) expected"):
        load_encoder(tmp_path / "r.safetensors", build("resnet18-seg"))


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    state = torchvision("resnet18-seg")
    state["bn1.bias"][3] = float("inf")
    save_file(state, tmp_path / "r.safetensors")
    with pytest.raises(InputError, match=r"bn1\.bias holds values that are not finite"):
        load_encoder(tmp_path / "r.safetensors", build("resnet18-seg"))


def test_a_pickle_is_sent_to_the_converter(tmp_path: Path) -> None:
    torch.save(torchvision("resnet18-seg"), tmp_path / "resnet18.pth")
    with pytest.raises(InputError, match="is a PyTorch pickle") as caught:
        load_encoder(tmp_path / "resnet18.pth", build("resnet18-seg"))
    assert "edgemamba convert-weights" in caught.value.hint
