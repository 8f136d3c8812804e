"""A Bundle or a run as a function of arrays: images (n, C, h, w) float32 in [0, 1] to the outputs of its task,
float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemamba.bundle.check import MANIFEST
from edgemamba.bundle.session import board_errors, open_bundle
from edgemamba.errors import InputError, UsageError, require
from edgemamba.sources import RECORD, open_source, packaged_weights
from edgemamba.tasks import rules_of

if TYPE_CHECKING:
    from edgemamba.evaluation.evaluate import Floats


class BundlePredictor:
    """The outputs of a Bundle's artifact on its own runtime, one image at a time as on the board.

    Attributes:
        manifest: the Bundle's.
        rules: of its task.
        size: input height and width, pixels.
        scale: factor from 8-bit values to the input.
        threshold: the Bundle's; of other tasks than segmentation 0.5, which nothing reads.
        runtime, version: what runs it.
        note: why another runtime than the Bundle's was taken; else empty.
    """

    def __init__(self, folder: Path, runtime: str = "auto", threads: int = 1) -> None:
        self.manifest, self._session = open_bundle(folder, runtime=runtime, threads=threads)
        self.size = self.manifest.preprocess.size
        self.scale = self.manifest.preprocess.scale
        self.threshold = 0.5 if self.manifest.threshold is None else self.manifest.threshold
        self.rules = rules_of(self.manifest.task)
        self.runtime = self._session.runtime
        self.version = self._session.version
        self.note = self._session.note

    @property
    def channels(self) -> int:
        """Of the input."""
        return self.manifest.input_channels

    @property
    def document(self) -> dict[str, Any]:
        """What ``board.outputs`` asks of a manifest."""
        return self.manifest.model_dump(mode="json", by_alias=True)

    def __call__(self, images: Floats) -> Floats:
        """Outputs of images (n, C, h, w): of segmentation (n, h, w), of classification (n, K).

        Raises:
            EdgemambaError: the runtime refuses or fails.
        """
        return np.stack([self.rules.value(self.run(images[index : index + 1])) for index in range(len(images))])

    def run(self, image: Floats) -> Floats:
        """What the session gives for one image (1, C, h, w).

        Raises:
            EdgemambaError: the runtime refuses or fails.
        """
        with board_errors():
            found: Floats = self._session.run(image)
        return found


def bundle_predictor(folder: Path, runtime: str = "auto", threads: int = 1) -> BundlePredictor:
    """Open a Bundle as a predictor; its files are checked first.

    Args:
        folder: the Bundle.
        runtime: auto, onnxruntime, litert or tensorrt.
        threads: CPU threads of the runtime.

    Raises:
        InputError: not a Bundle, or damaged.
        MissingDependency: the runtime is not installed.
        Unsupported: the runtime cannot run this artifact.
    """
    return BundlePredictor(folder, runtime, threads)


class RunPredictor:
    """The outputs of a trained run by fp32 PyTorch, one image at a time.

    Attributes:
        size: input height and width, pixels.
        scale: factor from 8-bit values to the input.
        channels: of the input.
        note: empty.
        document: what ``board.outputs`` asks of a manifest.
    """

    scale = 1.0 / 255.0
    note = ""

    def __init__(self, subject: str) -> None:
        source = open_source(subject)
        require("torch", "train")
        self.size, self.channels = source.size, source.channels
        rules = rules_of(source.info.task)
        self._masks = source.info.task == "segmentation"
        self._predict = source.reference()
        shape = [1, 1, *self.size] if self._masks else [1, len(source.labels)]
        self.document: dict[str, Any] = {
            "name": source.name,
            "task": source.info.task,
            "labels": source.labels,
            "threshold": rules.threshold,
            "preprocess": {"size": list(self.size)},
            "outputs": [{"shape": shape}],
        }

    def run(self, image: Floats) -> Floats:
        """What a Bundle's session would give for one image (1, C, h, w)."""
        found = self._predict(image)
        return found[:, None] if self._masks else found


def predictor_of(subject: str, runtime: str = "auto", threads: int = 1) -> BundlePredictor | RunPredictor:
    """Open a Bundle, a run folder or packaged weights.

    Raises:
        UsageError: no such name, or a runtime for a run.
        InputError: a folder that is neither.
        EdgemambaError: see ``bundle_predictor`` and ``sources.open_source``.
    """
    folder = Path(subject)
    if (
        folder.is_dir()
        and subject not in packaged_weights()
        and not any((folder / name).is_file() for name in (MANIFEST, RECORD))
    ):
        raise InputError(f"{subject} is neither a Bundle nor a run: it has no {MANIFEST} and no {RECORD}")
    if (folder / MANIFEST).is_file():
        return bundle_predictor(folder, runtime, threads)
    if runtime != "auto":
        raise UsageError("--runtime is for a Bundle; a run is computed by PyTorch", hint="leave it out")
    return RunPredictor(subject)
