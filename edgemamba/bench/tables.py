"""``python -m edgemamba.bench.tables``: write the README's tables from the committed records, and from nothing else.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``; a test compares both.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgemamba.bench import entry, gains, results
from edgemamba.errors import InputError
from edgemamba.files import read_json, write_text
from edgemamba.registry import MODELS

_BLOCK = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PRECISIONS = ("fp32", "fp16", "int8")


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _models(_: Path) -> str:
    rows = [
        [f"`{info.name}`", f"{info.parameters:,}", str(info.stride), str(info.paper_dice or "-"), info.summary]
        for info in MODELS.values()
    ]
    header = ["name", "parameters", "input sides are multiples of", "Dice in the paper (image split)", "what"]
    return _markdown(header, rows)


def _dice(found: dict[str, Any]) -> str:
    value = found["dice"]
    if value["low"] is None:
        return f"{value['value']:.4f}"
    return f"{value['value']:.4f} ({value['low']:.3f} to {value['high']:.3f})"


def _accuracy(reports: Path) -> str:
    rows = []
    for path in sorted((reports / "evaluation").glob("*.json")):
        found = read_json(path)
        if found["split"] == "folds":
            continue
        protocols = found["protocols"]
        cells = [
            _dice(protocols[name]) if "dice" in protocols[name] else "-"
            for name in ("paper_batch16", "pooled", "tumour_slices", "volume")
        ]
        alarms, missed = found["false_alarms"], found["missed_lesions"]
        rows.append(
            [
                f"`{found['subject']['model']}`",
                found["split"],
                f"{found['slices']} of {found['patients']}",
                *cells,
                f"{alarms['count']} of {alarms['of']}",
                f"{missed['count']} of {missed['of']}",
                f"[{path.stem}](profiles/reports/evaluation/{path.name})",
            ]
        )
    header = ["model", "split", "slices of patients", "paper's protocol", "pooled", "slices with tumour"]
    header += ["per volume, mean", "false alarms on empty slices", "missed lesions", "record"]
    return _markdown(header, rows)


def _results(reports: Path) -> str:
    folder = reports / "evaluation"
    return _markdown(results.HEADER, results.rows(results.load(folder), Path("profiles/reports/evaluation")))


def _steps(reports: Path) -> str:
    return _markdown(gains.HEADER, gains.rows(reports / "evaluation", Path("profiles/reports/evaluation")))


def _profiles(reports: Path) -> str:
    rows = []
    for path in sorted(reports.glob("profile/*/report.json"), key=_order):
        found = read_json(path)
        subject, kept = found["subject"], found["retention"]
        interval = kept["retention_pct"]
        p90 = found["device_run"]["p90_ms"]["value"]
        rows.append(
            [
                f"`{_order(path)[0]}`",
                subject["target"],
                subject["precision"],
                f"{found['runtime']} {found['runtime_version']}",
                f"{found['device_run']['typical_ms']['value']:.2f}",
                "-" if p90 is None else f"{p90:.2f}",
                f"{found['cold_start']['total_ms']['value']:.0f}",
                f"{found['memory']['growth_mb']['value']:.1f}",
                f"{subject['artifact_bytes'] / 1e3:,.0f}",
                f"{interval['value']:.2f} ({interval['low']:.2f} to {interval['high']:.2f})",
                "-" if kept["mask_dice"] is None else f"{kept['mask_dice']:.5f}",
                f"{kept['false_alarms_artifact']['count']} ({kept['false_alarms_reference']['count']})",
                "valid" if found["valid"] else "doubtful",
                f"[{path.parent.name}](profiles/reports/profile/{path.parent.name}/report.json)",
            ]
        )
    header = ["weights", "Bundle for", "precision", "runtime here", "median ms", "p90 ms", "cold start ms"]
    header += ["memory over idle MB", "artifact kB", "Dice retention %", "mask Dice with fp32"]
    header += ["false alarms (fp32)", "timing", "record"]
    return _markdown(header, rows)


def _order(path: Path) -> tuple[Any, ...]:
    subject = read_json(path)["subject"]
    weights = path.parent.name.removesuffix("-{target}-{precision}".format(**subject))
    return (weights, subject["target"], _PRECISIONS.index(subject["precision"]))


def _bench(reports: Path) -> str:
    """One row a comparison, one column a machine."""
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    machines: dict[str, str] = {}
    for path in sorted(reports.glob("bench*.json"), reverse=True):
        found = read_json(path)
        machines[path.stem] = found["environment"]["cpu"]
        for title, part in found["results"].items():
            for row in part.get("ratios", []):
                bar = "-" if row["bar"] is None else f"{row['bar']:g}"
                cell = f"{row['ratio']:.2f} ({row['low']:.1f} to {row['high']:.1f})"
                judged = {True: ", met", False: ", missed", None: ""}[row["met"]]
                key = (title, row["slower"], row["faster"], bar)
                cells.setdefault(key, {})[path.stem] = cell + judged
    rows = ([*key, *(own.get(record, "-") for record in machines)] for key, own in cells.items())
    return _markdown(["what", "slower", "faster", "goal", *machines.values()], rows)


def _quantizers(reports: Path) -> str:
    rows = []
    for name, found in read_json(reports / "quantizers.json")["weights"].items():
        base = found["fp32"]
        for quantizer in ("nncf", "ort"):
            scores = found[quantizer]
            rows.append(
                [
                    f"`{name}`",
                    quantizer,
                    f"{100 * scores['retention']:.2f}",
                    f"{scores['mask_dice']:.4f}",
                    f"{100 * scores['false_alarms']:.1f} ({100 * base['false_alarms']:.1f})",
                    f"{scores['bytes'] / 1e3:,.0f} ({base['bytes'] / 1e3:,.0f})",
                ]
            )
    header = ["weights", "--quantizer", "Dice retention %", "mask Dice with fp32", "false alarms % (fp32)", "kB (fp32)"]
    return _markdown(header, rows)


def _gpu(reports: Path) -> str:
    """Training speed on two cards, on one of them before and after the scan's kernels were laid out anew."""
    records = [read_json(reports / f"{name}.json") for name in ("gpu-before", "gpu-h200", "gpu")]
    before, former, now = ({_contestant(one): one for one in record["results"]} for record in records)
    cards = [record["environment"]["gpu"] for record in records]
    rows = []
    for contestant, older in former.items():
        found = now.get(contestant, older)
        kernels, goal = found["kernels"], found["goal_images_per_s"]
        rows.append(
            [
                *contestant,
                f"{before[contestant]['images_per_s']:,.0f}",
                f"{older['images_per_s']:,.0f}",
                f"{found['images_per_s']:,.0f}" if contestant in now else "not run",
                "-" if goal is None else f"{goal:,.0f}",
                cards[2] if contestant in now else cards[1],
                f"{found['step_ms']:.2f}",
                f"{kernels['total_ms']:.2f} ({kernels['launches']:,})",
                f"{found['setup_s']:.0f}",
                f"{found['tflop_per_s']:.1f}",
                f"{found['activation_gb_per_s']:,.0f}",
            ]
        )
    speeds = [f"images/s, {card}{when}" for card, when in zip(cards, (", before", "", ""), strict=True)]
    header = ["net", "precision", "step", *speeds, "goal on an H100", "the rest on", "ms a step"]
    return _markdown([*header, "ms of kernels (launches)", "set-up s", "TFLOP/s", "activations GB/s"], rows)


def _contestant(found: dict[str, Any]) -> tuple[str, str, str]:
    precision = "bfloat16" if found["bfloat16"] else "float32 (TF32)"
    return f"`{found['model']}`", precision, "`--compile`" if found["compile"] else "plain"


def _scaling(reports: Path) -> str:
    rows = [
        [
            str(run["devices"]),
            run["scaling"],
            str(run["batch"]),
            f"{run['images_per_s']:,.0f}",
            f"{run['speed_up']:.2f}",
            f"{run['last_epoch']['val_dice_pooled']:.4f}",
        ]
        for run in read_json(reports / "scaling.json")["runs"]
    ]
    return _markdown(["GPUs", "scaling", "batch of all", "images/s", "times one GPU", "validation Dice, pooled"], rows)


def _sustained(reports: Path) -> str:
    record = read_json(reports / "sustained.json")
    rows = [
        [
            f"`{run['model']}`",
            "`--compile`" if run["environment"]["compile"] else "plain",
            run["environment"]["gpu"],
            f"{record['epochs']} of batch {run['batch']}",
            f"{run['images_per_s']:,.0f}",
            f"{run['images_per_s_slowest']:,.0f}",
            f"{run['images_per_s_with_validation']:,.0f}",
            f"{run['last_epoch']['val_dice_pooled']:.4f}",
        ]
        for run in record["runs"]
    ]
    header = ["net", "step", "GPU", "epochs", "images/s, median epoch", "slowest epoch but the first"]
    return _markdown([*header, "with validation", "validation Dice, pooled"], rows)


TABLES = {
    "models": _models,
    "accuracy": _accuracy,
    "results": _results,
    "steps": _steps,
    "profiles": _profiles,
    "bench": _bench,
    "quantizers": _quantizers,
    "gpu": _gpu,
    "scaling": _scaling,
    "sustained": _sustained,
}


def fill(text: str, reports: Path) -> str:
    """``text`` with every table block made anew.

    Raises:
        InputError: a block names no table, or a record is missing.
    """

    def make(block: re.Match[str]) -> str:
        name = block.group(2)
        if name not in TABLES:
            raise InputError(f"README names no known table: {name}")
        return block.group(1) + TABLES[name](reports) + block.group(3)

    return _BLOCK.sub(make, text)


def main() -> None:
    """Rewrite README.md of the checkout."""
    root = Path(__file__).parent.parent.parent
    readme = root / "README.md"
    text = fill(readme.read_text(), root / "profiles" / "reports")
    write_text(readme, text)
    print(f"{readme.name}: {len(_BLOCK.findall(text))} tables", file=sys.stderr)


if __name__ == "__main__":
    entry.run(main)
