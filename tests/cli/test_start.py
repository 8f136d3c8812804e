"""Help and listings: at once, without a heavy module; errors: one line, a hint, the documented code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from edgemamba.presets import devices, targets
from edgemamba.registry import MODELS

VERBS = ("train", "evaluate", "export", "profile", "predict", "inspect", "list", "doctor", "demo")
HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "nncf", "ai_edge_litert", "PIL", "safetensors")


def imported(*arguments: str) -> set[str]:
    code = (
        f"import sys; sys.argv = ['edgemamba', *{list(arguments)!r}]\n"
        "from edgemamba.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: code = stop.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, _, exit_code = done.stderr.strip().splitlines()[-1].rpartition(" ")
    assert exit_code in ("0", "None")
    return set(json.loads(names.replace("'", '"')))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["export", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert imported(*arguments) == set()


@pytest.mark.parametrize("what", ["models", "targets", "devices", "datasets"])
def test_listings_import_nothing_heavy(what: str) -> None:
    assert imported("list", what, "--json") == set()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(edgemamba: Callable[..., Any], verb: str) -> None:
    done = edgemamba(verb, "--help")
    assert done.code == 0
    assert f"edgemamba {verb}" in done.out.split("Options:")[0]


def test_listing_models_gives_exact_counts(edgemamba: Callable[..., Any]) -> None:
    document = json.loads(edgemamba("list", "models", "--json").out)
    assert {row["name"]: row["parameters"] for row in document["models"]} == {
        name: info.parameters for name, info in MODELS.items()
    }


def test_listing_targets_and_devices(edgemamba: Callable[..., Any]) -> None:
    found = json.loads(edgemamba("list", "targets", "--json").out)["targets"]
    assert {row["name"] for row in found} == set(targets())
    kinds = [row["kind"] for row in found if row["newest"]]
    assert sorted(kinds) == sorted(set(kinds)), "one newest board a kind"
    assert {row["device"] for row in found} <= set(devices())


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["trian"], 2, "train"),
        (["list", "modles"], 2, "models"),
        (["train", "--model", "ul-vm-unnet"], 2, "ul-vm-unet"),
        (["train", "--data", "lgg"], 2, "--data-root"),
        (["train", "--data", "phantms"], 2, "phantoms"),
        (["train", "--data-root", "x"], 2, "--data"),
        (["train", "--epochs", "many"], 2, "epochs"),
        (["train", "--size", "100"], 5, "96"),
        (["train", "--split", "fold:9"], 2, "fold"),
        (["train", "--recipe", "papr"], 2, "paper"),
        (["train", "--amp", "--device", "cpu"], 2, "--amp"),
        (["train", "--data", "lgg", "--data-root", "."], 3, "kaggle_3m"),
        (["train", "--data", "folder", "--data-root", "nowhere"], 3, "nowhere"),
        (["train", "--resume", "--out", "nowhere"], 3, "nowhere"),
        (["export", "--target", "jetsn", "--weights", "lgg"], 2, "jetson"),
        (["export", "--target", "cpu", "--weights", "lgx"], 2, "lgg"),
        (["export", "--target", "cpu", "--weights", "lgg", "--precision", "int4"], 2, "int8"),
        (["export", "--target", "jetson", "--weights", "lgg", "--format", "tflite"], 5, "onnx"),
        (["export", "nowhere", "--target", "cpu"], 2, "nowhere"),
        (["profile", "nowhere"], 3, "nowhere"),
        (["profile", ".", "--device", "raspbery-pi-5"], 2, "raspberry-pi-5"),
        (["evaluate", "nowhere"], 2, "nowhere"),
        (["inspect", "nothing"], 2, "nothing"),
        (["predict", "nowhere", "a.png"], 3, "a.png"),
        (["train", "--recipe", "finetune"], 2, "--weights"),
        (["train", "--weights", "lgx"], 2, "lgg"),
    ],
)
def test_a_mistake_is_one_line_a_hint_and_its_code(
    edgemamba: Callable[..., Any], arguments: list[str], code: int, word: str
) -> None:
    done = edgemamba(*arguments)
    lines = [line for line in done.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert done.code == code, done.err
    assert done.out == ""
    assert len([line for line in lines if line.startswith("error:")]) == 1
    assert word in " ".join(lines)
    assert "Traceback" not in done.err


def test_a_mistake_with_json_is_one_document(edgemamba: Callable[..., Any]) -> None:
    done = edgemamba("train", "--model", "unnet", "--json")
    document = json.loads(done.out)
    assert document["schema"] == "edgemamba.error/1"
    assert document["code"] == done.code == 2
    assert "unet" in document["hint"]


def test_debug_shows_the_traceback(edgemamba: Callable[..., Any]) -> None:
    assert "Traceback" in edgemamba("train", "--model", "unnet", "--debug").err


def test_doctor_says_what_it_saw(edgemamba: Callable[..., Any]) -> None:
    done = edgemamba("doctor", "--json")
    document = json.loads(done.out)
    rows = {row["name"]: row for row in document["checks"]}
    assert done.code == 0, done.out
    assert rows["scan on cpu: torch"]["status"] == "ok"
    assert all(row["fix"] for row in document["checks"] if row["status"] in ("warn", "FAIL"))


def test_doctor_names_a_data_root_without_the_layout(edgemamba: Callable[..., Any], tmp_path: Any) -> None:
    done = edgemamba("doctor", EDGEMAMBA_DATA=str(tmp_path))
    assert done.code == 4
    assert "FAIL" in done.out
