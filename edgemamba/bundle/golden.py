"""The golden file of a Bundle: input pictures and what the fp32 PyTorch model makes of them.

The pictures are phantoms, so that no patient's image travels with an artifact. Every board runs them before
and after it measures.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemamba.board import images
from edgemamba.presets import Precision

Probability = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]

FILE = "golden.npz"
STRIDE = 4
# The slices with the largest lesions of two patients of the default phantoms.
SAMPLES = (379, 182)

# Precision: largest mean |difference| of the probability, least share of equal mask pixels.
LIMITS: dict[Precision, tuple[float, float]] = {
    "fp32": (1e-5, 0.9999),
    "fp16": (2e-3, 0.998),
    "int8": (2e-2, 0.98),
}


def golden_images(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8 (n, h, w, 3): phantoms with large lesions, where a wrong mask shows most."""
    from edgemamba.data import open_dataset

    dataset = open_dataset("phantoms", size=max(size))
    return np.stack([images.resize(dataset.read(number)[0], size) for number in SAMPLES])


def golden_bytes(pictures: npt.NDArray[np.uint8], probability: Probability, scale: float, threshold: float) -> bytes:
    """The file's bytes; equal inputs give equal bytes.

    Args:
        pictures: uint8 (n, h, w, 3).
        probability: the fp32 reference, float32 (n, 3, h, w) to float32 (n, h, w).
        scale: of the preprocessing.
        threshold: probability from which a pixel belongs to the mask.
    """
    size = pictures.shape[1], pictures.shape[2]
    x = np.concatenate([images.to_input(picture, size, scale) for picture in pictures])
    expected = np.asarray(probability(x), np.float32)
    masks = np.stack([images.to_mask(one, threshold, size) for one in expected])
    arrays: dict[str, npt.NDArray[Any]] = {
        "images": pictures,
        "probability": np.ascontiguousarray(expected[:, ::STRIDE, ::STRIDE]),
        "mask": np.packbits(masks.reshape(len(masks), -1), axis=1),
        "stride": np.asarray(STRIDE),
    }
    return _npz(arrays)


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
