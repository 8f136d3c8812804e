"""What is known about a model, a run or a Bundle: one JSON-able document for ``edgemamba inspect``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgemamba.errors import InputError, UsageError, did_you_mean, require
from edgemamba.records import Manifest
from edgemamba.registry import MODELS, model_info
from edgemamba.sources import IMPORT_RECORD, ImportedSource, TrainedSource, open_source, packaged_weights

SCHEMA = "edgemamba.inspect/1"


def inspect_subject(subject: str, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Describe a model name, packaged weights, a run folder or a Bundle folder.

    Args:
        subject: what to describe.
        size: input height and width for a model name, pixels, None takes the model's; a run and a Bundle know theirs.

    Returns:
        schema, kind (model, weights, run or bundle), name, model, size, parameters, multiply-accumulates, the
        scans, and by kind files, provenance, facts.

    Raises:
        UsageError: none of the four.
        InputError: a folder that is neither a run nor a Bundle, or damaged.
        Unsupported: the model cannot take the size.
    """
    folder = Path(subject)
    if (folder / "manifest.json").is_file():
        return _bundle(folder)
    if (folder / "run.json").is_file() or (folder / IMPORT_RECORD).is_file() or subject in packaged_weights():
        source = open_source(subject)
        return {"schema": SCHEMA, "kind": "run" if folder.is_dir() else "weights", **_source(source)}
    if folder.is_dir():
        raise InputError(f"{folder} is neither a run nor a Bundle", hint="give a folder with run.json or manifest.json")
    if subject not in MODELS:
        raise UsageError(
            f"{subject} is no model, packaged weights, run or Bundle",
            hint=did_you_mean(subject, {*MODELS, *packaged_weights()}),
        )
    info = model_info(subject)
    return {
        "schema": SCHEMA,
        "kind": "model",
        "name": info.name,
        "summary": info.summary,
        "task": info.task,
        "paper_dice": info.paper_dice,
        **_cost(info.name, size or info.size),
    }


def _cost(model: str, size: tuple[int, int], classes: int | None = None) -> dict[str, Any]:
    """What a network needs for one image of ``size``, counted from its layers; ``classes`` of a classifier."""
    require("torch", "train")
    from edgemamba.models import build, count
    from edgemamba.ssm import scan_calls

    model_info(model).check_size(*size)
    network = build(model, classes=classes)
    complexity = count(network, size)
    return {
        "model": model,
        "size": list(size),
        "parameters": complexity.parameters,
        "macs": complexity.macs_conv_matmul + complexity.macs_scan,
        "macs_conv_matmul": complexity.macs_conv_matmul,
        "macs_scan": complexity.macs_scan,
        "scans": [dataclasses.asdict(call) for call in scan_calls(network, size)],
    }


def _source(source: TrainedSource | ImportedSource) -> dict[str, Any]:
    kind, state = ("import", "imported") if isinstance(source, ImportedSource) else ("run", source.run.state)
    return {
        "name": source.name,
        **_cost(source.model, source.size, len(source.labels) or None),
        "weights_sha256": source.weights_sha256,
        "state": state,
        "files": _files(source.folder),
        "provenance": source.document()[kind],
        "data": None if source.data is None else source.data.model_dump(mode="json"),
        "metrics": source.metrics,
    }


def _files(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [{"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size} for path in paths]


def _bundle_cost(manifest: Manifest) -> dict[str, Any]:
    """As ``_cost``; of another project's network, which is not at hand, what the manifest says."""
    if manifest.task == "tensor":
        size = list(manifest.preprocess.size)
        return {"model": manifest.model, "size": size, "parameters": manifest.parameters}
    height, width = manifest.preprocess.size
    return _cost(manifest.model, (height, width), len(manifest.labels) or None)


def _bundle(folder: Path) -> dict[str, Any]:
    from edgemamba.bundle import check

    manifest = check(folder)
    document = manifest.model_dump(mode="json")
    return {
        "schema": SCHEMA,
        "kind": "bundle",
        "name": manifest.name,
        "target": manifest.target,
        "format": manifest.format,
        "precision": manifest.precision,
        "runtime": manifest.runtime,
        "artifact": manifest.artifact,
        "created": manifest.created,
        "edgemamba": manifest.edgemamba,
        "task": manifest.task,
        **_bundle_cost(manifest),
        "files": [{"path": entry.path, "bytes": entry.bytes} for entry in manifest.files],
        "bytes": sum(entry.bytes for entry in manifest.files),
        "provenance": {
            "weights_sha256": manifest.source.get("weights_sha256"),
            **manifest.source.get("run", manifest.source.get("import", {})),
        },
        "data": document["data"],
        "verification": manifest.verification,
        "quantization": manifest.quantization,
        "metrics": manifest.metrics,
        "stages": document["stages"],
    }
