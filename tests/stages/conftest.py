"""One small network, trained for a few seconds on phantoms, and its fp32 ONNX artifact."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgemamba.console import Console
from edgemamba.sources import TrainedSource, open_source
from edgemamba.stages.artifact import Artifact, open_artifact
from edgemamba.stages.calibration import CalibrationSet, ImageSet, calibration_set, verification_set
from edgemamba.stages.to_onnx import to_onnx
from edgemamba.train import TrainConfig, train


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMAMBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEMAMBA_DATA", raising=False)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: ul-vm-unet at 64x64 that finds most phantom lesions."""
    out = tmp_path_factory.mktemp("runs") / "small"
    config = TrainConfig.resolve(
        out=out, size=64, epochs=4, device="cpu", threads=1, data_options={"patients": 20, "slices": 12}
    )
    train(config, Console(quiet=True))
    return out


@pytest.fixture(scope="session")
def source(run_folder: Path) -> TrainedSource:
    return open_source(run_folder)


@pytest.fixture(scope="session")
def fp32(source: TrainedSource, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("fp32") / "model.onnx"
    facts = to_onnx(source.build(), source.size, path, opset=20, ir_version=10)
    return open_artifact(path, "onnx", "fp32", facts)


@pytest.fixture
def graph(fp32: Artifact) -> onnx.ModelProto:
    """The fp32 graph, to change at will."""
    return onnx.load(fp32.path)


@pytest.fixture(scope="session")
def calibration(source: TrainedSource) -> CalibrationSet:
    return calibration_set(source, 16)


@pytest.fixture(scope="session")
def images(source: TrainedSource) -> ImageSet:
    return verification_set(source, 32)
