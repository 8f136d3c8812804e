"""A real Bundle, made here: UL-VM-UNet with seeded weights at 64x64 as ONNX, with its run folder and data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from edgemamba.bundle import build
from edgemamba.data import Dataset, data_ref, open_dataset, split_dataset
from edgemamba.files import sha256_file
from edgemamba.models import build as build_model
from edgemamba.models.weights import save_weights
from edgemamba.presets import find_target
from edgemamba.records import RunRecord, StageRecord, save_record
from edgemamba.registry import model_info
from edgemamba.stages.artifact import open_artifact
from edgemamba.stages.to_onnx import to_onnx

SIZE = (64, 64)
MODEL = "ul-vm-unet"


@dataclasses.dataclass(frozen=True)
class Made:
    """What the fixture leaves: the Bundle, the run that it was made from, the model and its data."""

    bundle: Path
    run: Path
    model: torch.nn.Module
    dataset: Dataset


def _model(dataset: Dataset) -> torch.nn.Module:
    """Seeded weights; the last bias puts half of one picture's probabilities on either side of 0.5."""
    torch.manual_seed(7)
    model = build_model(MODEL).eval()
    picture = torch.from_numpy(dataset.read(0)[0]).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        last = [parameter for parameter in model.parameters() if parameter.shape == (1,)][-1]
        last -= model(picture).median()
    return model


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("profiling")
    dataset = open_dataset("phantoms", patients=10, slices=4, size=SIZE[0])
    ref = data_ref(dataset, split_dataset(dataset, "patient"))
    model = _model(dataset)
    run = folder / "runs" / "made"
    weights = run / "weights" / "best.safetensors"
    weights.parent.mkdir(parents=True)
    save_weights(weights, model, {"model": MODEL})
    record = RunRecord(
        edgemamba="0", state="finished", model=MODEL, parameters=model_info(MODEL).parameters, size=SIZE,
        init="mamba", recipe="default", settings={}, epochs=1, epochs_done=1, batch=1, seed=7, data=ref,
        environment={}, started="2026-01-01T00:00:00+00:00", train_seconds=1.0,
        weights={"weights/best.safetensors": sha256_file(weights)},
    )  # fmt: skip
    save_record(run / "run.json", record)
    target = find_target("cpu")
    facts = to_onnx(model, SIZE, folder / "model.onnx", opset=target.opset, ir_version=target.ir_version)

    def probability(x):
        with torch.inference_mode():
            return torch.sigmoid(model(torch.from_numpy(x)))[:, 0].numpy()

    build(
        folder / "bundle",
        artifact=open_artifact(folder / "model.onnx", "onnx", "fp32", facts),
        target=target,
        model_info=model_info(MODEL),
        size=SIZE,
        reference=probability,
        stages=[StageRecord(name="export", title="export to ONNX", seconds=1.5, cached=False, facts=facts)],
        verification={},
        quantization=None,
        source={"weights_sha256": sha256_file(weights)},
        data=ref,
        metrics={},
    )
    return Made(folder / "bundle", run, model, dataset)
