"""A network of another project takes the same stages to a Bundle that works alone."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
import torch
from PIL import Image

from edgemamba import bundle
from edgemamba.console import Console
from edgemamba.data import noise
from edgemamba.errors import InputError, UsageError
from edgemamba.presets import find_target
from edgemamba.records import Manifest
from edgemamba.sources import ModuleSource
from edgemamba.stages import pipeline
from edgemamba.stages.calibration import calibration_set, verification_set
from edgemamba.stages.pipeline import Options

OPTIONS = Options(quantizer="ort", calibration=16, verify_images=8)


def export(source: ModuleSource, out: Path, precision: Any, target: str, **changes: Any) -> Manifest:
    options = Options(**{**vars(OPTIONS), "out": out, **changes})
    pipeline.run(pipeline.plan(source, find_target(target), precision, options), Console(quiet=True))
    return bundle.check(out)


def predict(folder: Path, *arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    """predict.py in a process that has only what the board has on its path."""
    command = [sys.executable, "-I", str(folder / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(noise.pictures(40, (40, 48), 3, seed=3)):
        Image.fromarray(picture).save(folder / f"{number:02}.png")
    return folder


@pytest.mark.parametrize("target", ["cpu", "raspberry-pi"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_on_both_formats(precision: str, target: str, pictures: Path, tmp_path: Path) -> None:
    source = foreign.source(images=pictures)
    manifest = export(source, tmp_path / "out", precision, target)
    assert (manifest.task, manifest.outputs[0].name, manifest.outputs[0].shape) == ("tensor", "output", [1, 7, 3])
    assert manifest.outputs[0].layout == "plain" and manifest.threshold is None and manifest.labels == []
    assert manifest.verification["images"] == 8 and manifest.verification["data"] == "own images"
    assert manifest.verification["cosine"] >= {"fp32": 0.999999, "fp16": 0.9999, "int8": 0.98}[precision]
    assert manifest.source == {"name": "theirs", "weights_sha256": "0" * 64, "module": "net.py:Tokens"}
    if precision == "int8":
        assert manifest.quantization is not None and manifest.quantization["calibration"]["images"] == 16
    done = predict(tmp_path / "out", pictures / "00.png", "-o", "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "results" / "00.npy", allow_pickle=False)
    image = Image.open(pictures / "00.png").resize((32, 32), Image.Resampling.BILINEAR)
    with torch.no_grad():
        expected = source.build()(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255.0).numpy()
    assert found.shape == expected.shape == (1, 7, 3) and found.dtype == np.float32
    limit = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.2}[precision]
    assert np.abs(found - expected).mean() <= limit * np.sqrt((expected**2).mean())


def test_arrays_of_any_channels_are_taken_as_they_are(tmp_path: Path) -> None:
    source = foreign.source(functools.partial(foreign.Tokens, 4), channels=4)
    manifest = export(source, tmp_path / "out", "fp32", "cpu")
    assert manifest.input_channels == 4 and manifest.preprocess.channel_order == "none"
    assert manifest.verification["data"].startswith("natural-like noise, because no images")
    x = np.random.default_rng(0).normal(size=(4, 32, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = predict(tmp_path / "out", "x.npy", "-o", "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = source.build()(torch.from_numpy(x)[None]).numpy()
    assert np.allclose(np.load(tmp_path / "results" / "x.npy"), expected, rtol=1e-4, atol=1e-5)
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    done = predict(tmp_path / "out", "x.png", cwd=tmp_path)
    assert done.returncode == 3 and "takes 4 channels" in done.stderr
    np.save(tmp_path / "y.npy", x[:3])
    assert predict(tmp_path / "out", "y.npy", cwd=tmp_path).returncode == 3
    done = predict(tmp_path / "out", "x.npy", "--threshold", "0.4", cwd=tmp_path)
    assert done.returncode == 2 and "--threshold means nothing" in done.stderr


def test_one_channel_reads_pictures_as_grey(pictures: Path, tmp_path: Path) -> None:
    source = foreign.source(functools.partial(foreign.Tokens, 1), channels=1, images=pictures)
    manifest = export(source, tmp_path / "out", "fp32", "cpu")
    assert (manifest.input_channels, manifest.preprocess.channel_order) == (1, "grey")
    done = predict(tmp_path / "out", pictures / "01.png", cwd=tmp_path)
    assert done.returncode == 0 and "7x3" in done.stdout


def test_half_of_the_images_calibrate_and_the_others_verify(pictures: Path, tmp_path: Path) -> None:
    source = foreign.source(images=pictures)
    calibrated, verified = calibration_set(source, 64), verification_set(source, 64)
    assert (len(calibrated), len(verified)) == (20, 20) and not set(calibrated.ids) & set(verified.ids)
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        (few / f"{number}.png").write_bytes((pictures / f"0{number}.png").read_bytes())
    same = verification_set(foreign.source(images=few))
    assert len(same) == 3 and same.origin == "own images, the same for calibration and verification"


def test_what_cannot_calibrate_is_said_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int8 needs images that theirs was made for") as caught:
        pipeline.plan(foreign.source(), find_target("cpu"), "int8", OPTIONS)
    assert "--images" in caught.value.hint
    with pytest.raises(InputError, match="is not a folder"):
        verification_set(foreign.source(images=tmp_path / "gone"))
    with pytest.raises(InputError, match="holds no pictures"):
        verification_set(foreign.source(images=tmp_path))
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"broken\.png is not an image"):
        verification_set(foreign.source(images=tmp_path))
