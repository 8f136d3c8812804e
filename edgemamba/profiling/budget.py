"""Limits for CI: a TOML file of the figures a report must keep to.

A verdict is by the measured value; where the figure has an interval that reaches over the limit, the message says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError

from edgemamba.errors import InputError, did_you_mean
from edgemamba.profiling.quality import NotMeasured, Quantity
from edgemamba.profiling.records import ProfileReport

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Budget(BaseModel):
    """Largest allowed values, and the least retention (of Dice or of top-1 accuracy) and agreement with fp32 (equal
    mask pixels or first classes); what is left out is not judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_p50_ms: PositiveFloat | None = None
    latency_p90_ms: PositiveFloat | None = None
    latency_p99_ms: PositiveFloat | None = None
    cold_start_ms: PositiveFloat | None = None
    memory_growth_mb: PositiveFloat | None = None
    artifact_kb: PositiveFloat | None = None
    retention_min_pct: PositiveFloat | None = None
    agreement_min_pct: PositiveFloat | None = None


def load_budget(path: Path) -> Budget:
    """Read a budget file.

    Raises:
        InputError: missing, not TOML, an unknown key, or a limit that is not a positive number.
    """
    try:
        return Budget.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", hint="--budget takes a TOML file of limits") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise InputError(f"{path}: {key}: {first['msg']}", hint=did_you_mean(key, Budget.model_fields)) from None


def violations(report: ProfileReport, budget: Budget) -> list[str]:
    """Every limit the report does not keep, as ``figure value, limit`` lines; a missing figure does not keep it."""
    found = []
    for name, figure in _figures(report):
        limit = getattr(budget, name)
        if limit is None:
            continue
        if figure.value is None:
            found.append(f"{name} was not measured ({figure.reason}), limit {limit:g}")
            continue
        least = name.endswith("_min_pct")
        if figure.value < limit if least else figure.value > limit:
            edge = figure.high if least else figure.low
            within = edge is not None and (edge >= limit if least else edge <= limit)
            doubt = ", though its 95 % interval reaches the limit" if within else ""
            found.append(f"{name} {figure.value:.4g}, limit {limit:g}{doubt}")
    return found


def _figures(report: ProfileReport) -> Iterator[tuple[str, Quantity]]:
    latency = report.device_run
    yield "latency_p50_ms", latency.p50_ms
    yield "latency_p90_ms", latency.p90_ms
    yield "latency_p99_ms", latency.p99_ms
    yield "cold_start_ms", report.cold_start.total_ms
    yield "memory_growth_mb", report.memory.growth_mb
    yield "artifact_kb", Quantity(value=report.subject.artifact_bytes / 1e3)
    kept = report.retention
    if isinstance(kept, NotMeasured):
        for name in ("retention_min_pct", "agreement_min_pct"):
            yield name, Quantity(value=None, reason=kept.reason)
    else:
        yield "retention_min_pct", kept.retention_pct
        yield "agreement_min_pct", Quantity(value=kept.agreement_pct)
