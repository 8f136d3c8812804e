"""predict.py as a person runs it: a copied folder, only its requirements installed, elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from board import bundles
from board.conftest import Copy

Packages = Callable[[str], Path]


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def picture(path: Path, height: int, width: int) -> np.ndarray:
    """Dark, with a bright disc in FLAIR; saved, and given as uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 40, np.uint8)
    image[(y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(height, width) / 4) ** 2, 1] = 230
    Image.fromarray(image).save(path)
    return image


@pytest.mark.parametrize("name", ["onnx", "tflite", "jetson", "int8"])
def test_mask_and_overlay(copy: Copy, packages: Packages, cwd: Path, name: str) -> None:
    site = packages(name)
    for forbidden in bundles.FORBIDDEN:
        assert not bundles.importable(forbidden, site, cwd)
    image = picture(cwd / "scan.png", *bundles.SIZE)
    folder = copy(name)
    done = bundles.on_board(folder, site, "predict.py", "scan.png", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "scan.png: " in done.stdout
    mask = np.asarray(Image.open(cwd / "predictions" / "scan_mask.png"))
    expected = bundles.reference(image.transpose(2, 0, 1)[None] / np.float32(255.0))[0] >= 0.5
    assert set(np.unique(mask)) == {0, 255}
    assert np.mean((mask == 255) == expected) > (0.98 if name == "int8" else 0.999)
    overlay = np.asarray(Image.open(cwd / "predictions" / "scan_overlay.png"))
    assert np.array_equal(overlay[mask == 0], image[mask == 0])
    assert not np.array_equal(overlay[mask == 255], image[mask == 255])
    assert ("ONNX Runtime runs this Bundle" in done.stderr) == (name == "jetson")
    # Nothing was left in the Bundle or in the home folder: no byte code, no telemetry.
    assert not (cwd.parent / "home").exists()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [entry["path"] for entry in json.loads((folder / "manifest.json").read_text())["files"]]
        + ["manifest.json", "SHA256SUMS"]
    )


def test_any_size_and_format(copy: Copy, packages: Packages, cwd: Path) -> None:
    sizes = {"a.tif": (300, 200), "b.jpg": (31, 97), "c.bmp": (64, 64), "d.gif": (128, 256)}
    for name, (height, width) in sizes.items():
        picture(cwd / name, height, width)
    done = bundles.on_board(
        copy("onnx"), packages("onnx"), "predict.py", *sizes, "-o", "deep/masks", "--threads", "2", cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    for name, (height, width) in sizes.items():
        mask = Image.open(cwd / "deep/masks" / f"{Path(name).stem}_mask.png")
        assert mask.size == (width, height)
        share = np.mean(np.asarray(mask) == 255)
        disc = np.pi * (min(height, width) / 4) ** 2 / (height * width)
        assert abs(share - disc) < 0.05


def test_threshold(copy: Copy, packages: Packages, cwd: Path) -> None:
    picture(cwd / "scan.png", 64, 64)
    shares = []
    for threshold in ("0.01", "0.5", "0.99"):
        done = bundles.on_board(
            copy("onnx") if threshold == "0.01" else cwd.parent / "board" / "onnx",
            packages("onnx"),
            "predict.py",
            "scan.png",
            "--threshold",
            threshold,
            "-o",
            threshold,
            cwd=cwd,
        )
        assert done.returncode == 0, done.stderr
        shares.append(np.mean(np.asarray(Image.open(cwd / threshold / "scan_mask.png")) == 255))
    assert shares[0] > shares[1] > shares[2]


def test_one_bad_image_does_not_stop_the_others(copy: Copy, packages: Packages, cwd: Path) -> None:
    picture(cwd / "good.png", 50, 50)
    whole = (cwd / "good.png").read_bytes()
    (cwd / "short.png").write_bytes(whole[: len(whole) // 2])
    (cwd / "empty.tif").write_bytes(b"")
    (cwd / "text.jpg").write_text("no picture")
    bad = ["short.png", "empty.tif", "text.jpg", "nowhere.png"]
    done = bundles.on_board(copy("onnx"), packages("onnx"), "predict.py", *bad, "good.png", cwd=cwd)
    assert done.returncode == 3
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(bad)
    for line, name in zip(errors, bad, strict=True):
        assert name in line
    assert "Traceback" not in done.stderr
    written = sorted(path.name for path in (cwd / "predictions").iterdir())
    assert written == ["good_mask.png", "good_overlay.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "IMAGE"),
        (["a.png", "sub/a.tif"], 2, "would both be written as a_mask.png"),
        (["scan.png", "scan_mask.png", "-o", "."], 2, "would overwrite the image"),
        (["scan.png", "--threshold", "1.5"], 2, "is not between 0 and 1"),
        (["scan.png", "--threshold", "half"], 2, "--threshold"),
        (["scan.png", "--runtime", "caffe"], 2, "invalid choice"),
        (["scan.png", "--threads", "0"], 2, "at least 1"),
        (["scan.png", "--runtime", "litert"], 5, "litert runs tflite models"),
        (["scan.png", "--runtime", "tensorrt"], 4, "python3-libnvinfer"),
        (["scan.png", "-o", "scan.png"], 3, "choose another place with -o"),
        (["scan.png", "-o", "/proc/masks"], 3, "choose another place with -o"),
    ],
)
def test_wrong_use(copy: Copy, packages: Packages, cwd: Path, arguments: list[str], code: int, words: str) -> None:
    picture(cwd / "scan.png", 32, 32)
    picture(cwd / "scan_mask.png", 32, 32)
    before = sorted(cwd.iterdir())
    name = "jetson" if "tensorrt" in arguments else "onnx"
    done = bundles.on_board(copy(name), packages(name), "predict.py", *arguments, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(cwd.iterdir()) == before


@pytest.mark.parametrize("name", ["model.onnx", "images.py", "golden.npz", "manifest.json", "SHA256SUMS"])
def test_a_changed_bundle_is_refused(copy: Copy, packages: Packages, cwd: Path, name: str) -> None:
    picture(cwd / "scan.png", 32, 32)
    folder = copy("onnx")
    content = (folder / name).read_bytes()
    # Behind the end, or as spaces: the files still work and are still refused.
    (folder / name).write_bytes(content + b"\n" if name != "model.onnx" else content[:-1] + b"\0")
    done = bundles.on_board(folder, packages("onnx"), "predict.py", "scan.png", cwd=cwd)
    if name == "SHA256SUMS":
        # A blank line more says nothing else about any file.
        assert done.returncode == 0
        return
    assert done.returncode == 3
    assert "the Bundle is damaged" in done.stderr
    assert name in done.stderr
    assert not (cwd / "predictions").exists()


def test_no_check(copy: Copy, packages: Packages, cwd: Path) -> None:
    picture(cwd / "scan.png", 32, 32)
    folder = copy("onnx")
    (folder / "README.md").unlink()
    refused = bundles.on_board(folder, packages("onnx"), "predict.py", "scan.png", cwd=cwd)
    assert refused.returncode == 3
    assert "README.md is missing" in refused.stderr
    done = bundles.on_board(folder, packages("onnx"), "predict.py", "scan.png", "--no-check", cwd=cwd)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_leaves_nothing(copy: Copy, packages: Packages, cwd: Path) -> None:
    """A limit on file size stands for the disk: the mask fits, the overlay does not."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (200, 200, 3), np.uint8)).save(cwd / "noise.png")
    starter = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-s", "-c", starter, str(copy("onnx") / "predict.py"), "noise.png"],
        cwd=cwd,
        env={"PYTHONPATH": str(packages("onnx")), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert "cannot write to predictions" in done.stderr
    assert list((cwd / "predictions").iterdir()) == []


def test_missing_packages_give_the_pip_line(copy: Copy, tmp_path: Path, cwd: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    picture(cwd / "scan.png", 32, 32)
    done = bundles.on_board(copy("onnx"), empty, "predict.py", "scan.png", cwd=cwd)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == "hint: pip install -r requirements.txt"


@pytest.mark.parametrize(
    ("name", "line"), [("onnx", "pip install onnxruntime"), ("tflite", "pip install ai-edge-litert")]
)
def test_a_missing_runtime_gives_the_pip_line(copy: Copy, tmp_path: Path, cwd: Path, name: str, line: str) -> None:
    site = bundles.board_site("numpy\npillow\n", tmp_path / "site")
    picture(cwd / "scan.png", 32, 32)
    done = bundles.on_board(copy(name), site, "predict.py", "scan.png", cwd=cwd)
    assert done.returncode == 4
    assert line in done.stderr
    assert not (cwd / "predictions").exists()


def test_help_says_what_it_is_not_for(copy: Copy, packages: Packages, cwd: Path) -> None:
    done = bundles.on_board(copy("onnx"), packages("onnx"), "predict.py", "--help", cwd=cwd)
    assert done.returncode == 0
    assert "Not a medical device" in done.stdout
