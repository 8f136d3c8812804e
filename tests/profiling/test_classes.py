"""A classifier and a foreign network from export to report: what is scored, written, drawn and held to a budget."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from edgemamba.board.images import to_input
from edgemamba.console import Console
from edgemamba.errors import Unsupported, UsageError
from edgemamba.evaluation.command import EvaluateOptions, evaluate_subject
from edgemamba.evaluation.shares import ratio, share
from edgemamba.models import build
from edgemamba.presets import find_target
from edgemamba.profiling import ProfileOptions, profile
from edgemamba.profiling.budget import Budget, violations
from edgemamba.profiling.quality import ClassRetention, NotMeasured
from edgemamba.profiling.records import ProfileReport
from edgemamba.records import load_record
from edgemamba.registry import ModelInfo
from edgemamba.report import render
from edgemamba.sources import ModuleSource, open_source
from edgemamba.stages import pipeline
from edgemamba.stages.pipeline import Options
from profiling.classifiers import SIZE, opened, write_run

QUIET = Console(quiet=True)
QUICK = ProfileOptions(quick=True, min_runs=12, warmup_runs=2, processes=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classes")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    return write_run(folder / "runs" / "figures", "resnet9")


@pytest.fixture(scope="module")
def bundles(run: Path, folder: Path) -> dict[str, Path]:
    """An fp32 and an int8 Bundle, for ONNX Runtime and for LiteRT."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEMAMBA_CACHE", str(folder / "cache"))
        for name, target, precision in (("onnx", "cpu", "fp32"), ("tflite", "raspberry-pi", "int8")):
            options = Options(quantizer="ort", calibration=32, verify_images=24, out=folder / name)
            plan = pipeline.plan(open_source(run), find_target(target), precision, options)
            made[name] = pipeline.run(plan, QUIET)
    return made


@pytest.fixture(scope="module")
def reports(bundles: dict[str, Path], run: Path, folder: Path) -> dict[str, ProfileReport]:
    return {
        name: profile(path, ProfileOptions(**{**vars(QUICK), "run": run, "out": folder / f"{name}-report"}), QUIET)
        for name, path in bundles.items()
    }


def right(model: torch.nn.Module) -> np.ndarray:
    """Which test pictures a PyTorch network names right, without any of the code under test."""
    dataset, split = opened()
    x = np.concatenate([to_input(dataset.picture(index), SIZE, 1 / 255) for index in split.test])
    with torch.no_grad():
        found = model(torch.from_numpy(x)).argmax(1).numpy()
    return found == np.array([dataset.targets[index] for index in split.test])


def test_accuracy_is_counted_right(reports: dict[str, ProfileReport], run: Path, folder: Path) -> None:
    expected = right(open_source(run).build())
    assert expected.mean() > 0.6
    for name, report in reports.items():
        kept = report.retention
        assert isinstance(kept, ClassRetention)
        assert load_record(folder / f"{name}-report" / "report.json", ProfileReport) == report
        assert (kept.images, kept.of_images, kept.classes) == (24, 24, 4)
        assert kept.top1_reference.value == pytest.approx(expected.mean())
        assert kept.top5_reference.value == kept.top5_artifact.value == 1.0
        low, high = kept.top1_reference.low, kept.top1_reference.high
        assert low is not None and high is not None and low < expected.mean() < high
        assert sum(score.images for score in kept.scores) == 24
        lost = kept.top1_reference.value * 24 - kept.top1_artifact.value * 24
        assert lost == pytest.approx(kept.lost - kept.gained)
        assert len(kept.cases) <= 3 and all(case.reference != case.artifact for case in kept.cases)
    exact = reports["onnx"].retention
    assert isinstance(exact, ClassRetention)
    assert exact.same_class_pct.value == exact.retention_pct.value == 100 and exact.mean_variation < 1e-5
    assert [check.agreement_of for check in reports["onnx"].processes[0].golden] == ["equal first classes"] * 2


def test_calibration_is_balanced_and_recorded(bundles: dict[str, Path]) -> None:
    manifest = json.loads((bundles["tflite"] / "manifest.json").read_text())
    assert manifest["quantization"]["calibration"]["classes"] == 4
    assert manifest["labels"] == ["disc", "square", "cross", "ring"] and manifest["threshold"] is None
    assert manifest["parameters"] == sum(p.numel() for p in build("resnet9", classes=4).parameters())


def test_pages_speak_of_classes(reports: dict[str, ProfileReport], folder: Path) -> None:
    page = (folder / "tflite-report" / "report.html").read_text()
    assert "of the fp32 model’s top-1 accuracy" in page and "Every class" in page and "Top-1 accuracy retention" in page
    assert "Dice" not in re.sub(r'<script type="application/json".*', "", page, flags=re.DOTALL)
    both = render(list(reports.values()))
    assert "top-1 accuracy" in both and "equal first classes, %" in both and "Latency against top-1 accuracy" in both


def test_a_budget_holds_accuracy_and_agreement(reports: dict[str, ProfileReport]) -> None:
    report = reports["onnx"]
    assert not violations(report, Budget(retention_min_pct=99.0, agreement_min_pct=99.0))
    assert [text.split()[0] for text in violations(report, Budget(agreement_min_pct=100.5))] == ["agreement_min_pct"]


def test_evaluate_takes_runs_and_bundles(bundles: dict[str, Path], run: Path, tmp_path: Path) -> None:
    by_run = evaluate_subject(str(run), EvaluateOptions(device="cpu", out=tmp_path / "out"), QUIET)
    by_bundle = evaluate_subject(str(bundles["onnx"]), EvaluateOptions(), QUIET)
    assert by_run["top1"] == by_bundle["top1"] and by_run["mistakes"] == by_bundle["mistakes"]
    assert by_run["top1"]["value"] == pytest.approx(right(open_source(run).build()).mean())
    rows = (tmp_path / "out" / "per_image.csv").read_text().splitlines()
    assert len(rows) == 25 and rows[0] == "id,truth,best_1,best_2,best_3,best_4,probability"
    with pytest.raises(UsageError, match="are for networks that segment"):
        evaluate_subject(str(run), EvaluateOptions(device="cpu", ssm=True), QUIET)


class Features(torch.nn.Module):
    """Two convolutions: a map of features."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 5, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(x)))


def make() -> Features:
    torch.manual_seed(0)
    return Features()


def test_a_foreign_network_has_time_memory_and_parity_but_no_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEMAMBA_CACHE", str(tmp_path / "cache"))
    info = ModelInfo("features", "", {}, 609, 1, "tensor", "a map of features")
    source = ModuleSource("theirs", info, "2" * 64, (32, 48), 3, make, None, {})
    options = Options(verify_images=8, out=tmp_path / "bundle")
    bundle = pipeline.run(pipeline.plan(source, find_target("cpu"), "fp16", options), QUIET)
    report = profile(bundle, ProfileOptions(**{**vars(QUICK), "out": tmp_path / "report"}), QUIET)
    assert report.retention == NotMeasured(
        reason="the task of this network is not known",
        hint="its agreement with fp32 PyTorch stands under how it was made",
    )
    page = (tmp_path / "report" / "report.html").read_text()
    assert "accuracy was not measured: the task of this network is not known" in page
    assert "cosine, mean over images" in page and report.subject.verification["cosine"] > 0.9999
    assert report.device_run.n >= 12 and report.processes[0].golden[0].agreement_of == "cosine"
    with pytest.raises(Unsupported, match="the task of features-cpu-fp16 is not known"):
        evaluate_subject(str(bundle), EvaluateOptions(), QUIET)


def test_shares_have_intervals_that_hold() -> None:
    """Coverage of the nominal 95 %, by simulation."""
    rng = np.random.default_rng(0)
    truth, held, kept = 0.9, 0, 0
    for _ in range(300):
        before = rng.random(200) < truth
        after = np.where(rng.random(200) < 0.05, ~before, before)
        found, kept_share = share(before), ratio(after, before)
        assert found.low is not None and found.high is not None
        assert kept_share.low is not None and kept_share.high is not None
        held += found.low <= truth <= found.high
        kept += kept_share.low <= (0.95 * truth + 0.05 * (1 - truth)) / truth <= kept_share.high
    assert held / 300 > 0.92 and kept / 300 > 0.92


def test_edges_of_shares() -> None:
    nobody, everybody = np.zeros(20, bool), np.ones(20, bool)
    assert ratio(nobody, nobody).value is None and "undefined" in ratio(nobody, nobody).method
    assert (ratio(everybody, everybody).low, ratio(everybody, everybody).high) == (1.0, 1.0)
    assert share(everybody).low == pytest.approx(0.8389, abs=1e-4) and share(everybody).high == 1.0
    assert share(everybody[:4]).low is None and share(everybody[:0]).value is None
    few = functools.partial(ratio, everybody[:3])
    assert few(everybody[:3]).low is None
