"""Published checkpoints: every layout comes back as the network's own tensors, anything else is one clear error."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from edgemamba.errors import InputError, UsageError
from edgemamba.models import build
from edgemamba.models.pickled import read_checkpoint
from edgemamba.models.published import recognise, rgb_from_bgr
from edgemamba.registry import MODELS

State = dict[str, Tensor]


def read(path: Path, model: str | None = None) -> Any:
    return recognise(read_checkpoint(path), path.name, model)


def state(name: str) -> State:
    torch.manual_seed(0)
    return build(name).state_dict()


def aliased(own: State) -> State:
    """As the U-Mamba port saves it: each convolution twice, then the whole encoder inside the decoder."""
    twice = {}
    for name, tensor in own.items():
        twice[name] = tensor
        if ".conv." in name:
            twice[name.replace(".conv.", ".all_modules.0.")] = tensor
    return twice | {f"decoder.{name}": tensor for name, tensor in twice.items() if name.startswith("encoder.")}


def assert_equal(found: State, own: State) -> None:
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("ul-vm-unet")])
def test_every_variant_is_recognised_by_its_shapes(name: str, tmp_path: Path) -> None:
    own = state(name)
    torch.save(own, tmp_path / "best.pth")
    found = read(tmp_path / "best.pth")
    assert (found.model, found.also, found.aliases, found.counters) == (name, (), 0, 0)
    assert_equal(found.tensors, own)


@pytest.mark.parametrize(
    ("name", "entries", "values"), [("u-mamba-bot", 171, 27_025_476), ("u-mamba-bot-pp", 179, 27_288_132)]
)
def test_u_mamba_with_its_aliases(name: str, entries: int, values: int, tmp_path: Path) -> None:
    """The numbers are those of the published files (models.md, section 6)."""
    own = state(name)
    saved = aliased(own)
    assert (len(saved), sum(tensor.numel() for tensor in saved.values())) == (entries, values)
    torch.save({f"module.{key}": tensor for key, tensor in saved.items()}, tmp_path / "umamba.pth")
    found = read(tmp_path / "umamba.pth")
    assert (found.model, found.prefix, found.aliases) == (name, "module.", entries - len(own))
    assert_equal(found.tensors, own)
    assert sum(tensor.numel() for tensor in found.tensors.values()) == MODELS[name].parameters


def test_an_alias_of_other_values_is_refused() -> None:
    saved = aliased(state("u-mamba-bot"))
    name = "decoder.encoder.stem.convs.0.all_modules.0.weight"
    saved[name] = saved[name] + 1
    with pytest.raises(InputError, match=rf"{name} should repeat encoder\.stem\.convs\.0\.conv\.weight"):
        recognise(saved, "x.pth")


def test_only_the_alias_is_there() -> None:
    own = state("u-mamba-bot")
    saved = {name.replace(".conv.", ".all_modules.0."): tensor for name, tensor in own.items()}
    assert_equal(recognise(saved, "x.pth").tensors, own)


@pytest.mark.parametrize("wrapper", ["model_state_dict", "state_dict", "network_weights", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_wrappers_prefixes_and_counters(wrapper: str, prefix: str, tmp_path: Path) -> None:
    own = state("ul-vm-unet")
    counted = {**own, "total_ops": torch.zeros(1).double(), "encoder1.0.total_params": torch.zeros(1).double()}
    inner = OrderedDict((prefix + name, tensor) for name, tensor in counted.items())
    torch.save({"epoch": 7, "loss": 0.1, wrapper: inner, "optimizer_state_dict": {"state": {}}}, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth")
    assert (found.wrapper, found.prefix, found.counters) == (wrapper, prefix, 2)
    assert_equal(found.tensors, own)


def test_losses_that_are_numpy_numbers(tmp_path: Path) -> None:
    """As UltraLight VM-UNet's training script saves them beside the weights."""
    own = state("ul-vm-unet")
    numbers = {"min_loss": np.float64(0.25), "loss": np.float32(0.5), "epoch": np.int64(3)}
    torch.save({**numbers, "model_state_dict": own}, tmp_path / "latest.pth")
    assert_equal(read(tmp_path / "latest.pth").tensors, own)
    old = tmp_path / "numpy1.pth"
    torch.save(numbers, old, _use_new_zipfile_serialization=False)
    old.write_bytes(old.read_bytes().replace(b"numpy._core", b"numpy.core"))
    assert read_checkpoint(old) == numbers


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    own = state("ul-vm-unet")
    torch.save({name: tensor.to(dtype) for name, tensor in own.items()}, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth")
    assert found.converted == (str(dtype).removeprefix("torch."),)
    torch.testing.assert_close(found.tensors, {name: tensor.to(dtype).float() for name, tensor in own.items()})


def test_the_old_format_and_safetensors(tmp_path: Path) -> None:
    own = state("ul-vm-unet")
    torch.save(own, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(own, tmp_path / "x.safetensors")
    for name in ("old.pth", "x.safetensors"):
        assert_equal(read(tmp_path / name).tensors, own)


def test_bgr_is_turned_exactly() -> None:
    own = state("ul-vm-unet")
    network, turned = build("ul-vm-unet"), build("ul-vm-unet")
    network.load_state_dict(own)
    other = {name: tensor.clone() for name, tensor in own.items()}
    assert rgb_from_bgr(other) == "encoder1.0.weight"
    turned.load_state_dict(other)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(turned(x), network(x.flip(1)), rtol=1e-4, atol=1e-5)


def test_equal_shapes_take_the_published_form_unless_told(tmp_path: Path) -> None:
    torch.save(state("ultralbm-unet"), tmp_path / "x.pth")
    assert (read(tmp_path / "x.pth").model, read(tmp_path / "x.pth").also) == (
        "ultralbm-unet",
        ("ultralbm-unet-token",),
    )
    assert read(tmp_path / "x.pth", "ultralbm-unet-token").model == "ultralbm-unet-token"


def test_another_network_than_asked_for() -> None:
    with pytest.raises(InputError, match="holds the weights of ul-vm-unet, not of unet") as caught:
        recognise(state("ul-vm-unet"), "x.pth", "unet")
    assert caught.value.hint == "--model ul-vm-unet"
    with pytest.raises(UsageError, match="no model is named"):
        recognise(state("ul-vm-unet"), "x.pth", "vm-unet")


def test_no_known_variant_names_the_nearest_and_what_differs() -> None:
    own = state("ul-vm-unet-v5")
    own["final.weight"] = torch.zeros(4, 16, 1, 1)
    own["final.bias"] = torch.zeros(4)
    del own["ebn1.bias"]
    with pytest.raises(InputError) as caught:
        recognise(own, "x.pth")
    assert "fits no network here, nearest ul-vm-unet-v5: 3 tensors differ from its 129" in caught.value.message
    assert "ebn1.bias missing in the file, (16,) expected" in caught.value.message
    assert "final.weight (4, 16, 1, 1) in the file, (1, 16, 1, 1) expected" in caught.value.message


def test_values_that_are_not_finite() -> None:
    own = state("ul-vm-unet")
    own["final.bias"] = torch.tensor([float("nan")])
    with pytest.raises(InputError, match=r"final\.bias holds values that are not finite"):
        recognise(own, "x.pth")


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({}, "an empty dict"),
        ({"epoch": 3, "lr": 0.1}, r"a dict of 2 entries \(epoch, lr"),
        ([torch.zeros(1)], "no state dict but a list"),
        (torch.zeros(3), "no state dict but a Tensor"),
        ({"state_dict": {"a": 1}}, "a dict of 1 entries"),
    ],
)
def test_files_without_a_state_dict(document: Any, match: str, tmp_path: Path) -> None:
    torch.save(document, tmp_path / "x.pth")
    with pytest.raises(InputError, match=match):
        read(tmp_path / "x.pth")


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("code-was-run",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_never_run(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": _Payload()}, "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"bad\.pth holds objects that need their own code to load.*mkdir") as caught:
        read(Path("bad.pth"))
    assert "state_dict()" in caught.value.hint
    assert not Path("code-was-run").exists()


def test_a_whole_module_is_refused_with_its_class(tmp_path: Path) -> None:
    torch.save(build("ul-vm-unet"), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"need their own code to load: edgemamba\.models\.ul_vm_unet\.ULVMUNet"):
        read(tmp_path / "x.pth")


def test_files_that_are_something_else(tmp_path: Path) -> None:
    for name, data, match in (
        ("a.pth", b"", "is empty"),
        ("b.pth", b"<html>not found</html>", "neither a whole torch.save nor a whole safetensors"),
        ("c.pth", b"PK\x03\x04", "is cut off"),
        ("d.pth", b"\x80\x02.", "is not a checkpoint"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=match):
            read(tmp_path / name)
    for place in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(InputError, match="does not exist or is not a file"):
            read(place)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), zipped=st.booleans())
def test_a_truncated_file(share: float, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.rand(300), "b": torch.rand(20)}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError):
        read(path)
