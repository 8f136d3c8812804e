"""Where weights come from: runs, packaged weights, the newest run; and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from edgemamba import sources as module
from edgemamba.errors import InputError, UsageError
from edgemamba.files import sha256_file
from edgemamba.sources import TrainedSource, open_source, packaged_weights, weights_table


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the run, to change at will."""
    return Path(shutil.copytree(run_folder, tmp_path / "runs" / "mine"))


def edit(run: Path, **changes: object) -> None:
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**document, **changes}))


def test_run_folder(run_folder: Path, source: TrainedSource) -> None:
    assert (source.name, source.model, source.size) == ("small", "ul-vm-unet", (64, 64))
    assert source.weights == run_folder / "weights" / "best.safetensors"
    assert source.weights_sha256 == sha256_file(source.weights)
    assert source.data.name == "phantoms"
    model = source.build()
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}


def test_probability_is_the_sigmoid_of_the_logits(source: TrainedSource) -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = source.reference()(x.numpy())
    assert found.shape == (2, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), torch.sigmoid(source.build()(x))[:, 0])


def test_provenance_names_no_path_and_no_host(source: TrainedSource) -> None:
    text = json.dumps(source.document())
    assert source.weights_sha256 in text and "/" not in text.replace("2.0/", "")
    assert os.uname().nodename not in text


def test_recipe_that_keeps_the_last_epoch(run: Path) -> None:
    settings = json.loads((run / "run.json").read_text())["settings"]
    edit(run, settings={**settings, "checkpoint": "last"})
    assert open_source(run).weights.name == "last.safetensors"


def test_newest_run_is_the_default(run: Path) -> None:
    older = shutil.copytree(run, run.parent / "older")
    os.utime(older / "run.json", ns=(1, 1))
    assert open_source(runs=run.parent).name == "mine"
    with pytest.raises(InputError, match="no run in"):
        open_source(runs=run / "weights")


def test_packaged_weights(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "export" / "weights" / "brain"
    folder.mkdir(parents=True)
    shutil.copy(run / "weights" / "best.safetensors", folder / "model.safetensors")
    shutil.copy(run / "run.json", folder)
    monkeypatch.setattr(module, "data_root", lambda: tmp_path / "data")
    assert packaged_weights() == {"brain": folder}
    (row,) = weights_table()
    assert (row.name, row.model) == ("brain", "ul-vm-unet") and "64x64" in row.summary
    source = open_source("brain")
    assert source.name == "brain" and source.weights == folder / "model.safetensors"
    source.build()
    with pytest.raises(UsageError, match="neither a run folder nor packaged weights") as caught:
        open_source("brian")
    assert caught.value.hint == "did you mean brain?"


def test_changed_weights_are_refused(run: Path) -> None:
    path = run / "weights" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match="is not the file the run wrote"):
        open_source(run)


def test_run_without_weights(run: Path) -> None:
    shutil.rmtree(run / "weights")
    with pytest.raises(InputError, match=r"has no weights/best\.safetensors yet"):
        open_source(run)


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no run\.json"):
        open_source(tmp_path)


def test_record_of_another_schema(run: Path) -> None:
    edit(run, schema="edgemamba.run/99")
    with pytest.raises(InputError, match="is not a valid RunRecord"):
        open_source(run)


def test_unknown_model_in_the_record(run: Path) -> None:
    edit(run, model="ul-vm-unet-v9")
    with pytest.raises(UsageError, match="no model is named"):
        open_source(run)
