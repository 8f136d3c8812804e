"""Checkpoints of other projects' training as safetensors; nothing of theirs is run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgemamba.errors import EdgemambaError, InputError, UsageError
from edgemamba.foreign.convert import convert


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict())


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state().items()}


@pytest.mark.parametrize(
    ("document", "taken", "prefix"),
    [
        (state(), "", ""),
        ({"model": state(), "epoch": 3, "best": 0.5}, "model", ""),
        ({"state_dict": prefixed("module."), "optimizer": {"state": {}}, "arch": "x"}, "state_dict", "module."),
        ({"model": {"state_dict": prefixed("module._orig_mod.")}}, "model.state_dict", "module._orig_mod."),
        ({"net": state(), "args": ["a"]}, "net", ""),
        ({**state(), "version": 3, "note": "x"}, "", ""),
        ({"model": {"name": "x"}, "model_ema": state()}, "model_ema", ""),
    ],
    ids=["plain", "model", "state_dict", "nested", "net", "with extras", "averaged"],
)
def test_what_training_scripts_save(document: Any, taken: str, prefix: str, tmp_path: Path) -> None:
    torch.save(document, tmp_path / "a.pth")
    found = convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert (found.taken_from, found.prefix) == (taken, prefix)
    written = load_file(tmp_path / "a.safetensors")
    assert written.keys() == state().keys() and all(
        torch.equal(written[name], tensor) for name, tensor in state().items()
    )


def test_shared_half_and_profiled_tensors(tmp_path: Path) -> None:
    weight = torch.randn(4, 3)
    document = {
        "a.weight": weight,
        "b.weight": weight,
        "c.weight": weight.t(),
        "d.weight": weight.half(),
        "e.count": torch.tensor(3),
        "e.total_ops": torch.zeros(1, dtype=torch.float64),
        "total_params": torch.zeros(1),
        "step": 7,
    }
    torch.save(document, tmp_path / "a.pth")
    found = convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    written = load_file(tmp_path / "a.safetensors")
    assert sorted(written) == ["a.weight", "b.weight", "c.weight", "d.weight", "e.count"]
    assert torch.equal(written["c.weight"], weight.t()) and written["d.weight"].dtype == torch.float32
    assert written["e.count"].dtype == torch.int64
    assert (found.shared, found.narrow, found.counters, found.others) == (2, ("float16",), 2, ("step",))
    assert dict(found.lines())["left out"] == "step"


def test_an_entry_by_its_name(tmp_path: Path) -> None:
    torch.save({"student": {"encoder": state()}, "teacher": {"encoder": {}}}, tmp_path / "a.pth")
    found = convert(tmp_path / "a.pth", tmp_path / "a.safetensors", "student.encoder")
    assert found.tensors == len(state())
    with pytest.raises(UsageError, match="has no entry student") as caught:
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors", "student.encodr")
    assert "encoder" in caught.value.hint
    with pytest.raises(InputError, match="holds no state dict: it is a dict of student, teacher") as caught:
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert "--key" in caught.value.hint
    with pytest.raises(InputError, match="holds no tensors by name"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors", "teacher.encoder")
    assert not (tmp_path / "b.safetensors").exists()


class Trap:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("trapped"),))


@pytest.mark.parametrize("what", ["code", "namespace", "module", "text", "half", "missing", "ending"])
def test_what_is_refused(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, out = tmp_path / "a.pth", tmp_path / "a.safetensors"
    if what == "code":
        torch.save({"state_dict": state(), "trap": Trap()}, path)
    elif what == "namespace":
        torch.save({"model": state(), "args": argparse.Namespace(lr=1)}, path)
    elif what == "module":
        torch.save(nn.Conv2d(1, 1, 1), path)
    elif what == "text":
        path.write_text("no checkpoint")
    elif what != "missing":
        torch.save(state(), path)
    if what == "half":
        path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(EdgemambaError) as caught:
        convert(path, tmp_path / "a.bin" if what == "ending" else out)
    assert caught.value.hint and caught.value.exit_code == (2 if what == "ending" else 3)
    assert not out.exists() and not Path("trapped").exists()
    if what in ("code", "namespace", "module"):
        assert "need their own code to load" in caught.value.message
