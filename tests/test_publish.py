"""Packaging a run's weights: real weights and their real record go in, what comes out opens and says what they say.

And how the bench commands end when their input is wrong.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
        "--teacher large",
        "Teacher large: unet, weights 0000000000000000",
        "is 0.8124",
        "not a medical device",
    ):
        assert said.lower() in text.lower()
    assert "/home" not in text + (folder / "run.json").read_text()
    assert max(map(len, text.splitlines())) <= 120


def test_what_cannot_be_packaged_is_refused_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    own, other = (read_json(REPORTS / f"ul-vm-unet-{one}-image.json") for one in ("v1", "v4"))
    cases: list[tuple[str, str, Any]] = [
        ("a", "other weights", other),
        ("a", "no record of evaluating one network", []),
        ("a", "no record of evaluating one network", read_json(REPORTS / "unet-folds-s0.json")),
        ("a/b", "no name of weights", own),
    ]
    for name, message, record in cases:
        with pytest.raises(InputError, match=message):
            publish(run, name, record, tmp_path / "weights")
    document = read_json(run / "run.json")
    (run / "run.json").write_text(json.dumps({**document, "state": "interrupted"}))
    with pytest.raises(InputError, match="not a finished run"):
        publish(run, "a", own, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("command", ["gains", "publish", "sweep"])
def test_commands_end_with_one_line_of_error(command: str, tmp_path: Path) -> None:
    arguments = {
        "gains": [str(ROOT / "profiles" / "reports" / "gpu.json")] * 2,
        "publish": [str(tmp_path), "a", "--record", str(tmp_path / "none.json")],
        "sweep": [str(tmp_path / "none.toml"), "--data-root", str(tmp_path)],
    }
    done = subprocess.run(
        [sys.executable, "-m", f"edgemamba.bench.{command}", *arguments[command]],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 3 and done.stdout == "" and done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2
