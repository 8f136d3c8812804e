"""Limits: read strictly, judged by the value, a missing figure never passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemamba.errors import InputError
from edgemamba.profiling.budget import Budget, load_budget, violations
from edgemamba.profiling.quality import Quantity
from profiling.synthetic import report


def test_a_budget_that_is_kept_says_nothing() -> None:
    found = report()
    generous = Budget(latency_p50_ms=1e6, cold_start_ms=1e9, memory_growth_mb=1e6, artifact_kb=1e9)
    assert violations(found, generous) == []


@pytest.mark.parametrize("name", ["latency_p50_ms", "cold_start_ms", "memory_growth_mb", "artifact_kb"])
def test_every_limit_can_be_broken(name: str) -> None:
    (line,) = violations(report(), Budget.model_validate({name: 1e-9}))
    assert line.startswith(name)
    assert "1e-09" in line


def test_a_figure_that_is_missing_does_not_keep_its_limit() -> None:
    found = report()
    latency = found.device_run.model_copy(update={"p99_ms": Quantity(value=None, reason="20 runs, needs 662")})
    short = found.model_copy(update={"device_run": latency})
    assert violations(short, Budget(latency_p99_ms=1e9)) == [
        "latency_p99_ms was not measured (20 runs, needs 662), limit 1e+09"
    ]


def test_least_retention_is_a_lower_limit() -> None:
    (line,) = violations(report(), Budget(retention_min_pct=1000.0))
    assert line.startswith("retention_min_pct")


def test_a_budget_file_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_text("latency_p90_ms = 12.5\nretention_min_pct = 99\n")
    assert load_budget(path) == Budget(latency_p90_ms=12.5, retention_min_pct=99)
    for text, word in (("latency_p9_ms = 1", "latency_p90_ms"), ("latency_p90_ms = -1", "greater"), ("x", "TOML")):
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            load_budget(path)
        assert word in caught.value.message + caught.value.hint
    with pytest.raises(InputError, match="does not exist"):
        load_budget(tmp_path / "none.toml")
