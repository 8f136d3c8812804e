"""Gains between two evaluations of the same patients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgemamba.bench.gains import gain
from edgemamba.errors import InputError


def record(scores: dict[str, float | None]) -> dict[str, Any]:
    return {"per_patient": [{"patient": patient, "dice": score} for patient, score in scores.items()]}


def test_the_interval_is_that_of_paired_differences() -> None:
    generator = np.random.default_rng(0)
    hard = generator.uniform(0.3, 0.95, 110)
    steps = generator.normal(0.01, 0.02, 110)
    before = {f"p{i}": float(score) for i, score in enumerate(hard)}
    after = {f"p{i}": float(score) for i, score in reversed([*enumerate(hard + steps)])}
    found, better = gain(record({**before, "empty": None}), record({**after, "empty": None}))
    error = steps.std(ddof=1) / np.sqrt(110)
    assert found.value == pytest.approx(steps.mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(
        (steps.mean() - 1.96 * error, steps.mean() + 1.96 * error), abs=0.1 * error * 2
    )
    assert (better, found.patients) == (int((steps > 0).sum()), 110)


def test_other_patients_are_refused() -> None:
    with pytest.raises(InputError, match="same patients"):
        gain(record({"a": 0.5, "b": 0.6}), record({"a": 0.5, "c": 0.6}))
