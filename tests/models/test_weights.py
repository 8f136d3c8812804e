"""Weights on disk: what comes back, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgemamba.errors import InputError
from edgemamba.models import build
from edgemamba.models.weights import load_weights, save_weights


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(path, build("ul-vm-unet"), {"model": "ul-vm-unet", "note": "ä"})
    return path


@pytest.mark.parametrize("name", ["ul-vm-unet", "unet"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    model, path = build(name), tmp_path / "deep" / "weights.safetensors"
    for buffer in model.buffers():
        buffer.copy_(torch.rand(buffer.shape) * 9)
    save_weights(path, model, {"epoch": "7"})
    other = build(name)
    assert load_weights(path, other)["epoch"] == "7"
    before, after = model.state_dict(), other.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_metadata_without_weights(saved: Path) -> None:
    assert load_weights(saved, build("ul-vm-unet")) == {"format": "pt", "model": "ul-vm-unet", "note": "ä"}


def test_weights_of_another_network_are_named(saved: Path) -> None:
    with pytest.raises(InputError, match="holds the weights of ul-vm-unet") as error:
        load_weights(saved, build("ul-vm-unet-v5"))
    assert error.value.hint == "choose --model ul-vm-unet"


def test_weights_of_a_network_of_equal_shapes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, build("ultralbm-unet-token"), {"model": "ultralbm-unet-token"})
    with pytest.raises(InputError, match="holds the weights of ultralbm-unet-token"):
        load_weights(path, build("ultralbm-unet"))


def test_weights_of_no_network_here(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    state = build("ul-vm-unet").state_dict()
    state["final.weight"] = torch.zeros(2, 8, 1, 1)
    save_file(state, path)
    with pytest.raises(InputError, match=r"1 tensors differ, first final.weight: \(2, 8, 1, 1\) in the file"):
        load_weights(path, build("ul-vm-unet"))


def test_a_failed_load_changes_nothing(saved: Path) -> None:
    model = build("ul-vm-unet-v2")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(InputError):
        load_weights(saved, model)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model, path = build("ul-vm-unet"), tmp_path / "weights.safetensors"
    model.get_parameter("final.bias").data.fill_(float("nan"))
    save_weights(path, model, {})
    with pytest.raises(InputError, match=r"final\.bias holds values that are not finite"):
        load_weights(path, build("ul-vm-unet"))


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pickle-was-run",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_never_run(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.safetensors"
    torch.save({"x": _Payload()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="is a PyTorch pickle"):
        load_weights(path, build("ul-vm-unet"))
    assert not Path("pickle-was-run").exists()


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_a_truncated_file(saved: Path, keep: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * keep) if 0 < keep < 1 else int(keep)])
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        load_weights(saved, build("ul-vm-unet"))


def test_missing_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(InputError, match="does not exist or is not a file"):
            load_weights(path, build("ul-vm-unet"))
