"""Packaging a run's weights: real weights and their real record go in, what comes out opens and says what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgemamba.bench.publish import publish
from edgemamba.errors import InputError
from edgemamba.files import read_json, sha256_file
from edgemamba.records import RunRecord, load_record

ROOT = Path(__file__).parent.parent
REPORTS = ROOT / "profiles" / "reports" / "evaluation"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """``lgg-v1`` as the run that it was."""
    folder = tmp_path / "run"
    (folder / "weights").mkdir(parents=True)
    packaged = ROOT / "export" / "weights" / "lgg-v1"
    shutil.copyfile(packaged / "model.safetensors", folder / "weights" / "best.safetensors")
    record = read_json(packaged / "run.json")
    record["weights"] = {"weights/best.safetensors": record["weights"]["model.safetensors"]}
    record["data"]["root"] = "/home/somebody/lgg"
    teacher = {"run": "/home/somebody/runs/large", "model": "unet", "weights_sha256": 64 * "0"}
    record["environment"]["teachers"] = [teacher]
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_what_is_packaged_opens_and_its_card_has_the_figures(run: Path, tmp_path: Path) -> None:
    folder = publish(
        run, "lgg-again", read_json(REPORTS / "ul-vm-unet-v1-image.json"), tmp_path / "weights", "pixel-exact"
    )
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "run.json", "MODEL_CARD.md"}
    record = load_record(folder / "run.json", RunRecord)
    assert record.data.root is None and record.weights == {
        "model.safetensors": sha256_file(folder / "model.safetensors")
    }
    text = (folder / "MODEL_CARD.md").read_text()
    for said in (
        "217,165 parameters",
        "Dice 0.8779",
        "the paper: 0.8409",
        "8 of 127",
        "393 pixel-exact slices",
        "distilled from unet (000000000000)",
        "is 0.8124",
        "not a medical device",
    ):
        assert said.lower() in text.lower()
    assert "/home" not in text + (folder / "run.json").read_text()
    assert max(map(len, text.splitlines())) <= 130


def test_a_record_of_other_weights_and_unfinished_runs_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other weights"):
        publish(run, "a", read_json(REPORTS / "ul-vm-unet-v4-image.json"), tmp_path)
    record = read_json(run / "run.json")
    (run / "run.json").write_text(json.dumps({**record, "state": "interrupted"}))
    with pytest.raises(InputError, match="not a finished run"):
        publish(run, "a", read_json(REPORTS / "ul-vm-unet-v1-image.json"), tmp_path)
    assert not (tmp_path / "a").exists()
