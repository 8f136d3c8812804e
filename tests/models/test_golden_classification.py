"""Every classifier against values of another implementation: parameters, logits, inner tensors, gradients."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemamba.models import ClassificationModel, build
from edgemamba.models.resnet import ResNet9, ResNet50
from edgemamba.models.vim import MEAN, STD, Vim, Vim2d
from edgemamba.registry import MODELS
from edgemamba.ssm import Form, set_form
from edgemamba.ssm.reference import selective_scan

REGISTERED = {
    "vim": "vim",
    "vim2d_uni": "vim-2d-uni",
    "vim2d_bi": "vim-2d",
    "vim2d_base": "vim-2d-base",
    "resnet9": "resnet9",
    "resnet50": "resnet50",
}
SMALL = ("vim_test", "vim2d_uni_test", "vim2d_bi_test", "resnet9_test", "resnet50_test")
IMAGE, GRADIENT, SCAN = 1000, 2000, 3000
_MASK = np.uint64(0xFFFFFFFF)


@functools.cache
def golden() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(__file__).with_name("golden_classification.json").read_text())
    return document


def u(k: int, *shape: int) -> Tensor:
    """The document's ``fill_rule.hash``, in [-1, 1), float64."""
    i = np.arange(int(np.prod(shape)), dtype=np.uint64)
    h = ((i + np.uint64(1)) * np.uint64(2654435761) + np.uint64((k + 1) * 2246822519)) & _MASK
    h = ((h ^ (h >> np.uint64(15))) * np.uint64(2246822519)) & _MASK
    h = ((h ^ (h >> np.uint64(13))) * np.uint64(3266489917)) & _MASK
    h ^= h >> np.uint64(16)
    return torch.from_numpy(h.astype(np.float64) / 2147483648 - 1).reshape(shape)


def filled(key: str) -> ClassificationModel:
    model = (_small(key) if key in SMALL else build(REGISTERED[key])).double().eval()
    state = model.state_dict()
    with torch.no_grad():
        for k, name, shape, role in golden()["models"][key]["tensors"]:
            tensor = state.pop(_ours(key, name))
            assert list(tensor.shape) == shape
            tensor.copy_(_value(role, u(k, *shape)))
    assert all(name.endswith("num_batches_tracked") for name in state)
    return model


def _small(key: str) -> ClassificationModel:
    if key == "resnet9_test":
        return ResNet9([8, 12, 16, 20], classes=10)
    if key == "resnet50_test":
        return ResNet50([1, 1, 1, 1], classes=10)
    if key == "vim_test":
        return Vim(24, 2, 8, classes=10, d_state=8)
    return Vim2d(24, 2, 8, classes=10, d_state=8, bidirectional="bi" in key)


def _ours(key: str, name: str) -> str:
    """Our name of a tensor of the document."""
    if key.startswith("resnet50"):
        name = re.sub(r"^layer(\d)", lambda found: f"layers.{int(found[1]) - 1}", name)
        return name.replace(".down.", ".downsample.")
    if found := re.search(r"mixer\.(A_log|A_b_log|D|x_proj|dt_proj)(_b)?(\.|$)", name):
        backward = found[2] or found[1] == "A_b_log"
        leaf = found[1].replace("_b", "")
        return name.replace(found[0], f"mixer.{'ssm_b' if backward else 'ssm'}.{leaf}{found[3]}")
    return name


def _value(role: str, v: Tensor) -> Tensor:
    if role == "weight":
        return v * (3 / v[0].numel()) ** 0.5
    if role == "A_log":
        return torch.log(torch.arange(1, v.shape[1] + 1, dtype=torch.float64)) + 0.1 * v
    offset, scale = {"embed": (0, 0.5), "ones": (1, 0.1), "small": (0, 0.1), "var": (1, 0.1), "dt_bias": (-3, 0.5)}[
        role
    ]
    return offset + scale * v


def probes(key: str, model: nn.Module) -> dict[str, Tensor]:
    """Inner tensors by the document's names, filled by the next call of ``model``."""
    found: dict[str, Tensor] = {}

    def keep(name: str, at: str, *, before: bool = False) -> None:
        part = model.get_submodule(at)
        if before:
            part.register_forward_pre_hook(lambda _m, inputs: found.__setitem__(name, inputs[0]))
        else:
            part.register_forward_hook(lambda _m, _i, output: found.__setitem__(name, output))

    if key.startswith("vim"):
        keep("tokens", "layers.0", before=True)
        keep("after_block0", "layers.0")
        keep("feature", "head", before=True)
    else:
        keep("feature", "fc", before=True)
        if key.startswith("resnet9"):
            keep("after_res1", "conv3", before=True)
        else:
            keep("after_layer1", "layers.0")
    return found


def images(key: str) -> Tensor:
    """The document's input is what the first layer sees; the Vims centre an image in [0, 1] first."""
    x = u(IMAGE, 2, 3, 32, 32)
    return x * STD + MEAN if key.startswith("vim") else x


def test_the_fill_itself() -> None:
    for name, expected in golden()["hash_check"].items():
        k = int(name.partition(",")[2].rstrip(")"))
        assert u(k, 5).tolist() == expected


@pytest.mark.parametrize("key", sorted(golden()["models"]))
def test_parameters(key: str) -> None:
    entry = golden()["models"][key]
    assert sum(p.numel() for p in filled(key).parameters()) == entry["parameters"]
    if key in REGISTERED:
        assert MODELS[REGISTERED[key]].parameters == entry["parameters"]


@pytest.mark.parametrize("form", ["train", "reference", "onnx", "litert"])
@pytest.mark.parametrize("key", SMALL)
def test_logits_and_inner_tensors_in_float64(key: str, form: Form) -> None:
    _check_logits(key, form)


@pytest.mark.parametrize("key", sorted(REGISTERED))
def test_full_size_in_float64(key: str) -> None:
    _check_logits(key, "train")


def _check_logits(key: str, form: Form) -> None:
    entry, model = golden()["models"][key], filled(key)
    set_form(model, form)
    found = probes(key, model)
    with torch.no_grad():
        logits = model(images(key))
    torch.testing.assert_close(logits, torch.tensor(entry["logits"], dtype=torch.float64), rtol=0, atol=1e-9)
    assert logits.argmax(1).tolist() == entry["argmax"]
    assert found.keys() == entry["probes"].keys()
    for name, expected in entry["probes"].items():
        flat = found[name].flatten()
        assert list(found[name].shape) == expected["shape"]
        assert flat[:6].tolist() == pytest.approx(expected["first"], abs=1e-9)
        assert flat[-6:].tolist() == pytest.approx(expected["last"], abs=1e-9)
        limit = 1e-9 * len(flat) ** 0.5
        assert float(flat.sum()) == pytest.approx(expected["sum"], abs=limit)
        assert float(flat.abs().sum()) == pytest.approx(expected["abs_sum"], abs=limit)


@pytest.mark.parametrize("form", ["train", "onnx", "litert"])
@pytest.mark.parametrize("key", sorted({*SMALL, *REGISTERED} - {"vim2d_base"}))
def test_logits_in_float32(key: str, form: Form) -> None:
    model = filled(key).float()
    set_form(model, form)
    with torch.no_grad():
        logits = model(images(key).float())
    expected = torch.tensor(golden()["models"][key]["logits"], dtype=torch.float64)
    torch.testing.assert_close(logits.double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("form", ["train", "reference"])
@pytest.mark.parametrize("key", SMALL)
def test_gradients(key: str, form: Form) -> None:
    entry = golden()["models"][key]
    gradients = _gradients(key, form)
    for name, expected in entry["grad"].items():
        gradient = gradients[_ours(key, name)]
        assert float(gradient.norm()) == pytest.approx(expected["l2"], abs=1e-9)
        assert gradient.flatten()[:3].tolist() == pytest.approx(expected["first"], abs=1e-9)
    assert len(gradients) == len(entry["grad"])


@pytest.mark.parametrize("key", ["vim", "vim2d_uni", "resnet9", "resnet50"])
def test_gradients_of_the_full_size(key: str) -> None:
    total = torch.stack([g.norm() for g in _gradients(key, "train").values()]).norm()
    assert float(total) == pytest.approx(golden()["models"][key]["grad_norm_total"], abs=1e-8)


def _gradients(key: str, form: Form) -> dict[str, Tensor]:
    model = filled(key)
    set_form(model, form)
    logits = model(images(key))
    (logits * u(GRADIENT, *logits.shape)).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("key", ["resnet9_test", "resnet50_test"])
def test_logits_in_training_mode(key: str) -> None:
    expected = torch.tensor(golden()["models"][key]["logits_train_mode"], dtype=torch.float64)
    torch.testing.assert_close(filled(key).train()(images(key)).detach(), expected, rtol=0, atol=1e-9)


def test_the_scan_alone() -> None:
    entry = golden()["selective_scan"]
    tensors = {n: u(SCAN + j, *s).requires_grad_() for j, (n, s) in enumerate(entry["shapes"].items())}
    t = dict(tensors)
    t["A"] = -torch.exp(t.pop("A_log"))
    y = selective_scan(**t, delta_softplus=True)
    assert y.flatten().tolist() == pytest.approx(entry["y"], abs=1e-9)
    (y * u(GRADIENT, *y.shape)).sum().backward()
    for name, expected in entry["grad"].items():
        gradient = tensors[name].grad
        assert gradient is not None
        assert gradient.flatten().tolist() == pytest.approx(expected, abs=1e-9)
