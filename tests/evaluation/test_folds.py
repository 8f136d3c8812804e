"""The folds of a cross-validation scored together, on two real runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from train.runs import PHANTOMS, QUIET, tiny

from edgemamba.errors import InputError, UsageError
from edgemamba.evaluation.command import EvaluateOptions, evaluate_folds, evaluate_subject
from edgemamba.evaluation.volumes import Postprocessing
from edgemamba.train import train

CPU = EvaluateOptions(device="cpu", threshold=0.2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("folds")
    for split in ("fold:0", "fold:3", "image"):
        train(tiny(folder / split.replace(":", ""), split=split, epochs=1), QUIET)
    return {split: str(folder / split.replace(":", "")) for split in ("fold:0", "fold:3", "image")}


def test_every_patient_once_by_the_run_that_has_not_seen_it(runs: dict[str, str]) -> None:
    both = evaluate_folds([runs["fold:0"], runs["fold:3"]], CPU, QUIET)
    alone = [evaluate_subject(runs[fold], CPU, QUIET) for fold in ("fold:0", "fold:3")]
    assert both["split"] == "folds"
    assert both["slices"] == sum(one["slices"] for one in alone)
    assert both["patients"] == sum(one["patients"] for one in alone) == len(both["per_patient"]) < PHANTOMS["patients"]
    n = [one["protocols"]["volume"]["n"] for one in alone]
    mean = sum(k * one["protocols"]["volume"]["dice"]["value"] for k, one in zip(n, alone, strict=True)) / sum(n)
    assert both["protocols"]["volume"]["dice"]["value"] == pytest.approx(mean)
    assert list(both["folds"]) == ["fold:0", "fold:3"]
    assert [one["name"] for one in both["subjects"]] == ["fold0", "fold3"]
    names = {row["patient"] for row in both["per_patient"]}
    assert not any("patient" in name or name.startswith("p") for name in names)


def test_volumes_are_cleaned(runs: dict[str, str]) -> None:
    options = EvaluateOptions(device="cpu", threshold=0.2, processing=Postprocessing(flips=True, component_share=0.2))
    found = evaluate_folds([runs["fold:0"], runs["fold:3"]], options, QUIET)
    assert found["postprocessing"] == {"flips": True, "neighbours": 0.0, "component_share": 0.2}


def test_what_is_no_cross_validation_is_refused(runs: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two runs are of one fold"):
        evaluate_folds([runs["fold:0"], runs["fold:0"]], CPU, QUIET)
    with pytest.raises(InputError, match="is no fold"):
        evaluate_folds([runs["fold:0"], runs["image"]], CPU, QUIET)
    with pytest.raises(UsageError, match="without --ssm"):
        evaluate_folds([runs["fold:0"], runs["fold:3"]], EvaluateOptions(ssm=True), QUIET)
    train(tiny(tmp_path / "v2", split="fold:3", epochs=1, model="ul-vm-unet-v2"), QUIET)
    with pytest.raises(InputError, match="differ in model"):
        evaluate_folds([runs["fold:0"], str(tmp_path / "v2")], CPU, QUIET)


def test_single_slices_are_no_volumes(runs: dict[str, str]) -> None:
    options = EvaluateOptions(device="cpu", processing=Postprocessing(component_share=0.2))
    with pytest.raises(UsageError, match="not volumes"):
        evaluate_subject(runs["image"], options, QUIET)
