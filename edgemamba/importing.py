"""Checkpoints published elsewhere, made a folder that evaluation and export take like a run's."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemamba import __version__
from edgemamba.errors import require
from edgemamba.files import new_folder, refuse_taken, sha256_file
from edgemamba.records import ImportRecord, save_record
from edgemamba.registry import model_info
from edgemamba.sources import IMPORT_RECORD, IMPORTED
from edgemamba.versions import commit

if TYPE_CHECKING:
    from edgemamba.models.published import Published


def import_weights(
    path: Path,
    out: Path,
    *,
    model: str | None = None,
    size: tuple[int, int] | None = None,
    bgr: bool = False,
    force: bool = False,
) -> tuple[ImportRecord, tuple[str, ...]]:
    """Read a published checkpoint into the folder ``out``: ``import.json`` and ``weights/imported.safetensors``.

    Args:
        path: ``torch.save`` (read with weights_only) or safetensors.
        out: folder to make.
        model: registry name; None recognises it by the shapes of the tensors.
        size: input height and width that exports will have, pixels; None takes the network's own.
        bgr: the network was trained on B, G, R; its first convolution is turned to take R, G, B.
        force: replace an earlier import at ``out``.

    Returns:
        The record, and other networks of the same shapes that the file could be meant for.

    Raises:
        InputError: not a checkpoint, cut off, one that needs code to load, of no network here; or ``out`` is taken.
        Unsupported: the network cannot take ``size``.
        UsageError: unknown ``model``.
    """
    require("torch", "train")
    from edgemamba.models.pickled import read_checkpoint
    from edgemamba.models.published import recognise, rgb_from_bgr
    from edgemamba.models.weights import save_tensors

    refuse_taken(out, force=force, marker=IMPORT_RECORD)
    found = recognise(read_checkpoint(path), str(path), model)
    info = model_info(found.model)
    size = size or info.size
    info.check_size(*size)
    changes = _changes(found)
    if bgr:
        changes["turned"] = rgb_from_bgr(found.tensors)
    with new_folder(out, force=force, marker=IMPORT_RECORD) as folder:
        save_tensors(folder / IMPORTED, found.tensors, {"edgemamba": __version__, "model": found.model})
        record = ImportRecord(
            edgemamba=__version__,
            commit=commit(),
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            model=found.model,
            parameters=info.parameters,
            size=size,
            channel_order="BGR" if bgr else "RGB",
            file=path.name,
            file_sha256=sha256_file(path),
            changes=changes,
            weights={IMPORTED: sha256_file(folder / IMPORTED)},
        )
        save_record(folder / IMPORT_RECORD, record)
    return record, found.also


def _changes(found: Published) -> dict[str, Any]:
    """What differs between the file and the network's tensors; what does not is left out."""
    told = {
        "taken_from": found.wrapper,
        "prefix_removed": found.prefix,
        "aliases_dropped": found.aliases,
        "profiler_counters_dropped": found.counters,
        "converted_to_float32": list(found.converted),
    }
    return {name: value for name, value in told.items() if value}
