"""Find what a Bundle is held against: the fp32 PyTorch weights it was made from, and images it has not seen.

A Bundle carries neither: it names the weights by SHA-256 and the data by fingerprint; both are looked for.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgemamba.errors import EdgemambaError, InputError
from edgemamba.files import sha256_file
from edgemamba.profiling.quality import NotMeasured
from edgemamba.records import DataRef, Manifest, RunRecord, load_record
from edgemamba.sources import packaged_weights

if TYPE_CHECKING:
    from torch import nn

    from edgemamba.data import Dataset, Split


@dataclasses.dataclass(frozen=True)
class Reference:
    """The fp32 PyTorch model of a Bundle, and its held-out images.

    Attributes:
        weights: safetensors file whose SHA-256 the manifest names.
        dataset, split: opened and checked against the recorded fingerprint.
    """

    manifest: Manifest
    weights: Path
    dataset: Dataset
    split: Split

    def build(self) -> nn.Module:
        """The network in float32, evaluation mode."""
        from edgemamba.models.weights import build_trained

        return build_trained(self.manifest.model, self.weights, len(self.manifest.labels) or None)


def find_reference(
    manifest: Manifest, *, run: Path | None = None, runs: Path = Path("runs"), data_root: Path | None = None
) -> Reference | NotMeasured:
    """Look for the weights, then for the data.

    Args:
        manifest: of the Bundle.
        run: folder of the run that it was made from; None looks below ``runs``, beside it and in the packaged weights.
        runs: where training puts its runs.
        data_root: folder of the data; None takes the one of the run record, else ``EDGEMAMBA_DATA``.

    Returns:
        the reference, or why there is none and what to do.

    Raises:
        InputError: ``run`` or ``data_root`` was given and is not the right one.
    """
    wanted = manifest.source.get("weights_sha256")
    if not isinstance(wanted, str):
        return NotMeasured(reason="the Bundle does not name the weights it was made from", hint="export it again")
    if importlib.util.find_spec("torch") is None:
        return NotMeasured(reason="the fp32 reference needs PyTorch", hint='pip install "edgemamba[train]"')
    weights = next((path for path in _candidates(run, runs) if sha256_file(path) == wanted), None)
    if weights is None:
        if run is not None:
            raise InputError(
                f"{run} does not hold the weights of this Bundle (SHA-256 {wanted[:12]}...)",
                hint="give the run that was exported with --run",
            )
        return NotMeasured(
            reason=f"the fp32 weights of this Bundle (SHA-256 {wanted[:12]}...) are in no run here",
            hint="name the run that was exported with --run RUN",
        )
    ref = _data_ref(manifest, weights)
    if ref is None:
        return NotMeasured(reason="neither the Bundle nor its run says on which data it was trained")
    opened = _open_data(ref, data_root)
    if isinstance(opened, NotMeasured):
        return opened
    return Reference(manifest, weights, *opened)


def _candidates(run: Path | None, runs: Path) -> Iterator[Path]:
    """Weight files to look at, most likely first."""
    if run is not None:
        yield from sorted(
            path for path in (run, *run.glob("*.safetensors"), *run.glob("weights/*.safetensors")) if path.is_file()
        )
        return
    for pattern in ("*/weights/*.safetensors", "*/*/weights/*.safetensors"):
        yield from sorted(runs.glob(pattern))
    yield from sorted(runs.parent.glob("*/weights/*.safetensors"))
    for folder in packaged_weights().values():
        yield folder / "model.safetensors"


def _data_ref(manifest: Manifest, weights: Path) -> DataRef | None:
    """The data as the run recorded it (it knows the folder), else as the manifest does."""
    for folder in (weights.parent.parent, weights.parent):
        record = folder / "run.json"
        if record.is_file():
            ref = load_record(record, RunRecord).data
            if manifest.data is None or ref.fingerprint == manifest.data.fingerprint:
                return ref
    return manifest.data


def _open_data(ref: DataRef, data_root: Path | None) -> tuple[Dataset, Split] | NotMeasured:
    from edgemamba.data import DATASETS, open_ref

    if ref.name not in DATASETS or not DATASETS[ref.name].needs_root:
        return open_ref(ref)
    if data_root is not None:
        return open_ref(ref, data_root)
    places = [place for place in (ref.root, os.environ.get("EDGEMAMBA_DATA")) if place]
    for place in places:
        try:
            return open_ref(ref, place)
        except EdgemambaError:
            continue
    where = "was moved or changed" if places else "is not known here"
    return NotMeasured(
        reason=f"the held-out {ref.name} data (fingerprint {ref.fingerprint[:12]}) {where}",
        hint="name its folder with --data-root DIR, or set EDGEMAMBA_DATA",
    )
