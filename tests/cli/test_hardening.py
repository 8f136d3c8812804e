"""A hostile machine: full disks, closed pipes, Ctrl-C, folders that are not ours, missing packages."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.numpy import load_file

SMALL = ("--epochs", "2", "--size", "64", "--threads", "1")


@pytest.fixture(scope="module")
def run(trained: Path) -> Path:
    (found,) = (trained / "runs").iterdir()
    return found


@pytest.fixture(scope="module")
def bundle(edgemamba: Callable[..., Any], run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "mein Bündel"
    done = edgemamba("export", run, "--target", "cpu", "--out", out)
    assert done.code == 0, done.err
    assert f"next: edgemamba profile '{out}'" in done.err
    return out


def full_disk(*arguments: str | Path, cache: Path, limit: int = 20_000) -> subprocess.CompletedProcess[str]:
    """Run with files of at most ``limit`` bytes: the write that goes beyond fails as it does on a full disk."""
    return subprocess.run(
        [sys.executable, "-m", "edgemamba", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "EDGEMAMBA_CACHE": str(cache)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("verb", ["train", "export", "export, no cache", "predict", "evaluate", "profile"])
def test_a_full_disk_leaves_nothing(verb: str, run: Path, bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.effect_noise((300, 300), 60).convert("RGB").save(picture)
    place = tmp_path / "place"
    place.mkdir()
    arguments: dict[str, tuple[str | Path, ...]] = {
        "train": ("train", *SMALL),
        "export": ("export", run, "--target", "cpu"),
        "export, no cache": ("export", run, "--target", "cpu", "--no-cache"),
        "predict": ("predict", bundle, picture),
        "evaluate": ("evaluate", run),
        "profile": ("profile", bundle, "--quick", "--images", "4", "--run", run),
    }
    done = full_disk(*arguments[verb], "--out", place / "out", "--json", cache=tmp_path / "cache")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["code"] == 3
    assert "no space left" in done.stderr
    assert ".tmp-" not in done.stderr, "people know nothing of temporary names"
    assert list(place.iterdir()) == []
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_ctrl_c_says_how_to_go_on_and_the_end_is_the_same(
    edgemamba: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgemamba", "train", *SMALL, "--out", "cut off"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 1/"):
            process.send_signal(signal.SIGINT)
            break
    last = process.stderr.read().splitlines()[-1]
    assert process.wait() == 130
    assert last.endswith("1 of 2 epochs are kept; go on with: edgemamba train --resume --out 'cut off'")
    for extra in (("--epochs", "3"), ("--model", "unet"), ("--force",), ("--seed", "1")):
        done = edgemamba("train", "--resume", "--out", tmp_path / "cut off", *extra)
        assert done.code == 2
        assert extra[0] in done.err
    done = edgemamba("train", "--resume", "--out", tmp_path / "cut off")
    assert done.code == 0, done.err
    for name in ("best", "last"):
        resumed, whole = (load_file(folder / f"weights/{name}.safetensors") for folder in (tmp_path / "cut off", run))
        assert {key: value.tobytes() for key, value in resumed.items()} == {
            key: value.tobytes() for key, value in whole.items()
        }


def test_force_replaces_only_what_edgemamba_wrote(edgemamba: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for verb in (("export", run, "--target", "cpu"), ("train", *SMALL), ("demo",)):
        done = edgemamba(*verb, "--out", tmp_path / "thesis", "--force")
        assert done.code == 3, done.err
        done = edgemamba(*verb, "--out", tmp_path / "thesis" / "chapter.txt", "--force")
        assert done.code == 3, done.err
        done = edgemamba(*verb, "--out", tmp_path / "thesis" / "chapter.txt" / "below")
        assert done.code == 3, done.err
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter.txt"]


def test_a_forced_run_that_cannot_start_keeps_the_old_one(
    edgemamba: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for root in ("images", "masks"):
        (tmp_path / root).mkdir()
    done = edgemamba("train", "--data", "folder", "--data-root", tmp_path, "--out", run, "--force")
    assert done.code == 3
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("redirection", "code"), [("| head -c 1 >/dev/null", 0), (">&-", 0), (">/dev/full", 3), ("2>&-", 0)]
)
def test_an_unusual_stdout(redirection: str, code: int) -> None:
    command = f"set -o pipefail; '{sys.executable}' -m edgemamba list models --json {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert all(line.startswith(("error:", "hint:")) for line in done.stderr.splitlines())


def test_options_that_would_do_nothing_are_refused(edgemamba: Callable[..., Any], run: Path, bundle: Path) -> None:
    for arguments in (
        (run, "--group", "_"),
        (run, "--runtime", "litert"),
        (bundle, "--ssm"),
        (bundle, "--device", "cpu"),
    ):
        done = edgemamba("evaluate", *arguments)
        assert done.code == 2
        assert arguments[1] in done.err


HIDE = """
import importlib.machinery, os
find = importlib.machinery.PathFinder.find_spec
def visible(cls, name, path=None, target=None):
    return None if name.split(".")[0] == os.environ["HIDE"] else find(name, path, target)
importlib.machinery.PathFinder.find_spec = classmethod(visible)
"""


@pytest.mark.parametrize(
    ("module", "verb", "extra"),
    [
        ("torch", "train", "train"),
        ("torch", "demo", "train"),
        ("torch", "evaluate lgg", "train"),
        ("torch", "export --weights lgg --target cpu", "train"),
        ("onnx", "export --weights lgg --target cpu", "onnx"),
        ("nncf", "export --weights lgg --target cpu --precision int8", "quant"),
        ("ai_edge_litert", "export --weights lgg --target raspberry-pi", "tflite"),
    ],
)
def test_a_missing_package_gives_the_pip_line(
    edgemamba: Callable[..., Any], tmp_path: Path, module: str, verb: str, extra: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    done = edgemamba(*verb.split(), HIDE=module, PYTHONPATH=os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    assert done.code == 4, done.err
    assert f'hint: pip install "edgemamba[{extra}]"' in done.err
