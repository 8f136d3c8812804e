"""A Bundle as a function of arrays: images (n, C, h, w) float32 in [0, 1] to the outputs of its task, float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgemamba.bundle.session import board_errors, open_bundle
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
