"""Classifiers take the same stages to Bundles that name classes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from classifiers import LABELS, ResNet9Like, VimLike, draw, source, trained
from PIL import Image
from test_foreign import export, predict
from torch import nn

from edgemamba import bundle
from edgemamba.console import Console
from edgemamba.evaluation.predict import predict_images


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, (picture, label) in enumerate(zip(*draw(80, 1), strict=True)):
        Image.fromarray(picture).save(folder / f"{number:02}-{label}.png")
    return folder


@pytest.fixture(scope="module", params=[ResNet9Like, VimLike], ids=["resnet9", "vim"])
def net(request: pytest.FixtureRequest) -> nn.Module:
    return trained(request.param)


def top1(net: nn.Module, seed: int = 2) -> float:
    shown, classes = draw(128, seed)
    with torch.no_grad():
        found = net(torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255).argmax(1).numpy()
    return float((found == classes).mean())


@pytest.mark.parametrize("target", ["cpu", "raspberry-pi"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_on_both_formats(
    net: nn.Module, precision: Any, target: str, pictures: Path, tmp_path: Path
) -> None:
    assert top1(net) >= 0.9
    out = tmp_path / "out"
    manifest = export(source(net, pictures), out, precision, target, verify_images=40)
    assert (manifest.task, manifest.labels, manifest.threshold) == ("classification", LABELS, None)
    assert (manifest.outputs[0].name, manifest.outputs[0].shape) == ("probabilities", [1, 4])
    assert manifest.verification["top1_agreement"] == 1.0 and manifest.verification["classes"] == 4
    assert manifest.verification["mean_variation"] <= {"fp32": 1e-5, "fp16": 0.01, "int8": 0.1}[precision]
    done = predict(out, *sorted(pictures.glob("0*.png")), "-o", "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "results" / "classes.csv").open()))
    assert len(rows) == 10 * 4
    best = [row for row in rows if row["rank"] == "1"]
    right = [Path(row["image"]).stem[-1] == row["class"] and LABELS[int(row["class"])] == row["name"] for row in best]
    assert sum(right) >= 9
    assert sum(float(row["probability"]) for row in rows[:4]) == pytest.approx(1.0, abs=0.02)


def test_the_table_as_json_and_what_the_bundle_says(pictures: Path, tmp_path: Path) -> None:
    net, out = trained(ResNet9Like), tmp_path / "out"
    export(source(net, pictures), out, "fp32", "cpu")
    image = pictures / "00-3.png" if (pictures / "00-3.png").exists() else sorted(pictures.iterdir())[0]
    done = predict(out, image, image, "-o", "results", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0 and f"{image}: " in done.stdout
    document = json.loads((tmp_path / "results" / "classes.json").read_text())
    assert [len(row["classes"]) for row in document["images"]] == [4, 4]
    rows = predict_images(out, [image], tmp_path / "own", Console(quiet=True))
    assert rows[0]["classes"] == document["images"][0]["classes"]
    assert (tmp_path / "own" / "classes.csv").read_text().startswith("image,rank,class,name,probability\n")
    card, readme = ((out / name).read_text() for name in ("MODEL_CARD.md", "README.md"))
    assert "image-classification" in card and "each of 4 classes (top left" in card and "threshold" not in card
    assert "classes.csv" in readme and "mask" not in readme and "--threshold" not in readme
    assert predict(out, image, "--threshold", "0.4", cwd=tmp_path).returncode == 2


def test_golden_pictures_have_a_clear_first_class(pictures: Path, tmp_path: Path) -> None:
    net, out = trained(VimLike), tmp_path / "out"
    manifest = export(source(net, pictures), out, "fp32", "cpu")
    with np.load(out / "golden.npz", allow_pickle=False) as golden:
        assert golden["images"].shape == (4, 32, 32, 3) and golden["output"].shape == (4, 4)
        ranked = np.sort(golden["output"], axis=1)
    assert manifest.golden.agreement == 1.0 and manifest.golden.mean_tolerance == pytest.approx(2e-4 / 4)
    assert (ranked[:, -1] > ranked[:, -2]).all()
    _, session = bundle.open_bundle(out)
    assert session.run(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 4)
