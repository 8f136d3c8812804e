"""MODEL_CARD.md of a Bundle: what the network is, what it was trained on and what it must not be used for."""

from __future__ import annotations

from typing import Any

from edgemamba.bundle.readme import CAVEAT
from edgemamba.records import Manifest
from edgemamba.registry import MODELS, ModelInfo
from edgemamba.tasks import rules_of

_SOURCE = 'Source: Crews and Whalen, "Mamba vs. else". '
DATA = {
    "lgg": (
        "LGG MRI Segmentation: 3,929 axial slices of 110 patients with lower-grade glioma (The Cancer Imaging"
        " Archive, TCGA-LGG); pre-contrast, FLAIR and post-contrast as channels; masks of the FLAIR"
        " abnormality by Buda, Saha and Mazurowski (Computers in Biology and Medicine 109, 2019). For"
        " research only; the data set's own terms also bind what is trained on it."
    ),
    "phantoms": "Generated brain-like pictures with lesions. No patient's data; no clinical meaning at all.",
    "folder": "A user's own pairs of images and masks.",
}


def text(manifest: Manifest, info: ModelInfo) -> str:
    """The model card of this Bundle."""
    data = manifest.data
    height, width = manifest.preprocess.size
    rules = rules_of(manifest.task)
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: edgemamba",
        f"pipeline_tag: {rules.pipeline_tag}",
        "---",
        f"# {manifest.model}, {manifest.precision}",
        "",
        f"**{CAVEAT}**",
        "",
        "## What it is",
        f"{info.summary}; {manifest.parameters:,} parameters.",
        f"Input: one {manifest.inputs[0].meaning}, {manifest.input_channels}x{height}x{width}. Output: "
        f"{rules.output_text(manifest)}",
        f"{_SOURCE if info.name in MODELS else ''}Made by edgemamba {manifest.edgemamba}, {manifest.created}.",
        "",
        "## Training data",
    ]
    if data is None:
        lines.append("Not recorded.")
    else:
        lines.append(DATA.get(data.name, data.name))
        counts = ", ".join(f"{count} {part}" for part, count in data.counts.items())
        lines.append(f"Split `{data.split}`: {counts}. Fingerprint `{data.fingerprint[:16]}`.")
        if data.split == "image":
            lines.append("The image split puts slices of one patient on both sides: its figures flatter the network.")
    lines += ["", "## Metrics", *_table(manifest.metrics, "No evaluation was recorded.")]
    lines += [
        "",
        "## Agreement with the fp32 PyTorch network",
        *_table(manifest.verification, "Not verified."),
    ]
    if manifest.quantization is not None:
        lines += ["", "## Quantization", *_table(manifest.quantization, "")]
    lines += [
        "",
        "## Limits",
        *(f"- {limit}" for limit in rules.limits),
        "- Speed differs between boards, power modes and temperatures: measure with `agent.py` on yours.",
        "",
        "## Licence",
        "Code: Apache-2.0 (`LICENSE`). Weights: as the training data allow.",
    ]
    return "\n".join(lines) + "\n"


def _table(values: dict[str, Any], empty: str) -> list[str]:
    rows = [f"| {name} | {_show(value)} |" for name, value in _flat(values)]
    return ["| | |", "|---|---|", *rows] if rows else [empty]


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Scalars of a nested document as (dotted name, value); lists are left to the manifest."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (str, int, float, bool)):
            found.append((prefix + name, value))
    return found


def _show(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
