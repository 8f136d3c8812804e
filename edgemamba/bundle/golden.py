"""The golden file of a Bundle: input pictures and what the fp32 PyTorch model makes of them.

The pictures are generated, so that no patient's image travels with an artifact. Every board runs them before and
after it measures.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemamba.board import images
from edgemamba.tasks import TaskRules

Reference = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]

FILE = "golden.npz"
# The slices with the largest lesions of two patients of the default phantoms, then others.
SAMPLES = (379, 182, 20, 60, 100, 140, 220, 260, 300, 340)


def golden_images(size: tuple[int, int], channels: int = 3, count: int = 2) -> npt.NDArray[np.uint8]:
    """uint8 (count, h, w, channels), at most 10: phantoms, those with large lesions first, where a wrong mask shows
    most; for other than three channels noise with the spectrum of natural images."""
    from edgemamba.data import noise, open_dataset

    if channels != 3:
        return noise.pictures(count, size, channels)
    dataset = open_dataset("phantoms", size=max(size))
    return np.stack([images.resize(dataset.read(number)[0], size) for number in SAMPLES[:count]])


def golden_outputs(
    pictures: npt.NDArray[np.uint8], reference: Reference, scale: float, rules: TaskRules
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The pictures that are taken and the reference's outputs for them.

    Args:
        pictures: candidates, uint8 (n, h, w, channels).
        reference: fp32 PyTorch, float32 (n, channels, h, w) to float32 (n, ...).
        scale: of the preprocessing.
        rules: of the network's task.
    """
    size = pictures.shape[1], pictures.shape[2]
    x = np.concatenate([images.to_input(picture, size, scale) for picture in pictures])
    outputs = np.asarray(reference(x), np.float32)
    chosen = rules.golden_choice(outputs)
    return pictures[chosen], outputs[chosen]


def golden_bytes(pictures: npt.NDArray[np.uint8], expected: npt.NDArray[np.float32], rules: TaskRules) -> bytes:
    """The file's bytes of what ``golden_outputs`` gives; equal inputs give equal bytes."""
    return _npz({"images": pictures, **rules.golden_arrays(expected)})


def _npz(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """As np.savez_compressed, with fixed dates."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.asanyarray(array), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, entry.getvalue(), zipfile.ZIP_DEFLATED, 9)
    return target.getvalue()
