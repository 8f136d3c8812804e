"""The three commands of the card, word for word, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def bundle(edgemamba: Callable[..., Any], trained: Path) -> Path:
    done = edgemamba("export", "--target", "jetson")
    assert done.code == 0, done.err
    assert "next: edgemamba profile" in done.err
    return trained / done.out.split()[-1]


def test_training_leaves_a_complete_run(trained: Path) -> None:
    (run,) = (trained / "runs").iterdir()
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"run.json", "metrics.csv", "curves.png", "weights/best.safetensors", "weights/last.safetensors"} <= names
    assert any(name.startswith("samples/") for name in names)
    assert json.loads((run / "run.json").read_text())["state"] == "finished"


def test_export_names_the_newest_jetson(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["target"] == "jetson-orin-nano"
    assert manifest["runtime"] == "tensorrt"
    assert str(Path.home()) not in (bundle / "manifest.json").read_text()


@pytest.mark.usefixtures("bundle")
def test_second_export_is_cached(edgemamba: Callable[..., Any]) -> None:
    done = edgemamba("export", "--target", "jetson", "--out", "again")
    assert done.code == 0, done.err
    assert "cached" in done.err


@pytest.mark.usefixtures("bundle")
def test_dry_run_prints_the_plan_and_writes_nothing(edgemamba: Callable[..., Any], trained: Path) -> None:
    before = {path for path in trained.rglob("*") if "cache" not in path.parts}
    done = edgemamba("export", "--target", "raspberry-pi", "--precision", "int8", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert [step["name"] for step in json.loads(done.out)["steps"]][-1] == "package"
    assert {path for path in trained.rglob("*") if "cache" not in path.parts} == before


def test_profile_takes_the_newest_bundle_and_says_what_it_ran_on(edgemamba: Callable[..., Any], bundle: Path) -> None:
    done = edgemamba("profile", bundle, "--quick", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["schema"] == "edgemamba.report/2"
    assert report["runtime"] == "onnxruntime"
    assert "tensorrt" in report["runtime_note"]
    assert report["retention"]["images"] > 0
    assert report["valid"] is False, "two short processes are never a valid measurement"
    page = (bundle.parent / f"{bundle.name}-report" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_strict_profile_of_a_quick_look_exits_with_8(edgemamba: Callable[..., Any], bundle: Path) -> None:
    done = edgemamba("profile", bundle, "--quick", "--images", "4", "--strict", "--out", "strict", "--json")
    assert done.code == 8, done.err
    assert json.loads(done.out)["valid"] is False, "one document, the report"


def test_evaluate_agrees_between_run_and_bundle(edgemamba: Callable[..., Any], bundle: Path, trained: Path) -> None:
    (run,) = (trained / "runs").iterdir()
    first = json.loads(edgemamba("evaluate", run, "--json", "--ssm").out)
    second = json.loads(edgemamba("evaluate", bundle, "--json").out)
    assert first["protocols"]["pooled"]["dice"]["value"] == pytest.approx(
        second["protocols"]["pooled"]["dice"]["value"], abs=1e-3
    )
    assert first["ssm_contribution"]["scans"] == 6
    assert first["slices"] == second["slices"] > 0


def test_predict_maps_masks_back_to_any_size_and_format(
    edgemamba: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    sizes = {"a.png": (70, 90), "b.jpg": (64, 64), "c.tif": (301, 200), "d.gif": (33, 47), "e.webp": (128, 60)}
    for name, (height, width) in sizes.items():
        pixels = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    done = edgemamba("predict", bundle, *(tmp_path / name for name in sizes), "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    for name, (height, width) in sizes.items():
        with Image.open(tmp_path / "out" / f"{Path(name).stem}_mask.png") as mask:
            assert mask.size == (width, height)
            assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_predict_names_every_bad_image_and_keeps_nothing(
    edgemamba: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    names = ("good.png", "text.png", "cut.png", "missing.png")
    done = edgemamba("predict", bundle, *(tmp_path / name for name in names), "-o", tmp_path / "out")
    assert done.code == 3
    assert all(name in done.err for name in names[1:])
    assert not (tmp_path / "out").exists()


def test_inspect_takes_a_name_a_run_and_a_bundle(edgemamba: Callable[..., Any], bundle: Path, trained: Path) -> None:
    (run,) = (trained / "runs").iterdir()
    for subject in ("ul-vm-unet", run, bundle):
        document = json.loads(edgemamba("inspect", subject, "--json").out)
        assert document["parameters"] == 49_457
        assert len(document["scans"]) == 6
    assert edgemamba("inspect", "ul-vm-unet").out.count(".0.mamba") == 6


def test_a_tampered_bundle_is_refused_everywhere(edgemamba: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    for arguments in (["profile", copy], ["evaluate", copy], ["predict", copy, tmp_path / "a.png"]):
        done = edgemamba(*arguments)
        assert done.code == 3, done.err
        assert "model.onnx" in done.err


def test_a_budget_that_is_not_kept_exits_with_7(edgemamba: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "budget.toml").write_text("artifact_kb = 1\nretention_min_pct = 50\n")
    options = ("--quick", "--images", "4", "--budget", tmp_path / "budget.toml", "--out", tmp_path / "report")
    done = edgemamba("profile", bundle, *options)
    assert done.code == 7, done.err
    assert "artifact_kb" in done.err
    assert "retention" not in done.err.split("error:")[1]
