"""``python -m edgemamba.bench.gains BEFORE.json AFTER.json``: what a step gains on the same patients, as an interval.

Both are records of ``edgemamba evaluate --json`` over the folds of a cross-validation. The interval resamples patients
and keeps a patient's two scores together, so what makes patients differ cancels out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgemamba.bench import entry
from edgemamba.errors import InputError
from edgemamba.evaluation.bootstrap import Estimate, difference, estimate, ratio_of_totals
from edgemamba.files import read_json

HEADER = ("step", "from", "to", "gain (95 % over patients)", "patients who gain", "records")
# What was tried on the five folds of patients: the step, the record before it, the record after it.
STEPS = (
    ("`edge-unet`: four mirror images, small components off", "edge-unet-folds-s0", "edge-unet-folds-s0-cleaned"),
    ("`edge-unet`: the validation part trained on too", "edge-unet-folds-s0", "edge-unet-refit-folds-s0"),
    ("then four mirror images, small components off", "edge-unet-refit-folds-s0", "edge-unet-refit-folds-s0-cleaned"),
    ("`edge-unet`: all of it", "edge-unet-folds-s0", "edge-unet-refit-folds-s0-cleaned"),
    ("`unet`: the validation part trained on too", "unet-folds-s0", "unet-refit-folds-s0"),
    ("then four mirror images, small components off", "unet-refit-folds-s0", "unet-refit-folds-s0-cleaned"),
    ("from `unet` to `edge-unet`, both with the validation part", "unet-refit-folds-s0", "edge-unet-refit-folds-s0"),
    ("the same, volumes cleaned", "unet-refit-folds-s0-cleaned", "edge-unet-refit-folds-s0-cleaned"),
)


def gain(before: dict[str, Any], after: dict[str, Any]) -> tuple[Estimate, int]:
    """Difference of the mean Dice a volume, and how many patients have a higher one.

    Raises:
        InputError: the records are not of the same patients, or one names none.
    """
    if not all("per_patient" in record for record in (before, after)):
        raise InputError("a record has no scores per patient", hint="take records of edgemamba evaluate --json")
    first, second = (
        {row["patient"]: row["dice"] for row in record["per_patient"] if row["dice"] is not None}
        for record in (before, after)
    )
    if first.keys() != second.keys():
        raise InputError("the records are not of the same patients", hint="compare evaluations of one data set")
    one, other = (np.array([scores[patient] for patient in sorted(first)]) for scores in (first, second))
    each = np.ones(len(one))
    found = estimate(difference(ratio_of_totals(other, each), ratio_of_totals(one, each)), bounds=(-1.0, 1.0))
    return found, int((other > one).sum())


def rows(folder: Path, link: Path) -> Iterator[list[str]]:
    """Every step; ``link`` is how the README names ``folder``.

    Raises:
        InputError: a record is missing.
    """
    for step, before, after in STEPS:
        records = [read_json(folder / f"{name}.json") for name in (before, after)]
        found, better = gain(*records)
        yield [
            step,
            *(f"{record['protocols']['volume']['dice']['value']:.4f}" for record in records),
            f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})",
            f"{better} of {found.patients}",
            ", ".join(f"[{name}]({link}/{name}.json)" for name in (before, after)),
        ]


def main() -> None:
    """Compare two records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    arguments = parser.parse_args()
    found, better = gain(read_json(arguments.before), read_json(arguments.after))
    print(json.dumps({**found.document(), "patients_who_gain": better}, indent=2))


if __name__ == "__main__":
    entry.run(main)
