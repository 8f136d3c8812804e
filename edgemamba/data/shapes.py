"""Seeded figures on uneven ground, a class for each outline: the built-in data of classifiers, generated on demand.

Place, size, colours, ground and noise vary, so that only the outline tells the class. Every picture depends on
(seed, class, number, size) alone and is the same on every platform (``fields``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgemamba.data.base import ClassDataset, Sample
from edgemamba.data.fields import Field, Float, Stream, centers, step
from edgemamba.errors import UsageError
from edgemamba.files import sha256_json

if TYPE_CHECKING:
    from edgemamba.data.base import UInt8

# Part of the fingerprint: raise it when any picture changes.
GENERATION = 1
LIMITS = {"classes": (2, 8), "images": (3, 10_000), "size": (16, 512), "seed": (0, 2**63 - 1)}


def _ring(x: Float, y: Float) -> Float:
    return np.float32(0.25) - np.abs(np.sqrt(x * x + y * y) - np.float32(0.75))


def _cross(x: Float, y: Float) -> Float:
    across, down = np.abs(x), np.abs(y)
    return np.minimum(np.float32(0.3) - np.minimum(across, down), np.float32(1.0) - np.maximum(across, down))


def _saltire(x: Float, y: Float) -> Float:
    return _cross((x + y) * np.float32(0.75), (x - y) * np.float32(0.75))


def _bars(x: Float, y: Float) -> Float:
    return np.minimum(np.float32(0.25) - np.abs(np.abs(y) - np.float32(0.6)), np.float32(1.0) - np.abs(x))


# Positive inside, of about unit size.
_OUTLINES: Mapping[str, Callable[[Float, Float], Float]] = {
    "disc": lambda x, y: np.float32(1.0) - np.sqrt(x * x + y * y),
    "square": lambda x, y: np.float32(0.85) - np.maximum(np.abs(x), np.abs(y)),
    "cross": _cross,
    "ring": _ring,
    "diamond": lambda x, y: np.float32(1.1) - np.abs(x) - np.abs(y),
    "saltire": _saltire,
    "bars": _bars,
    "wedge": lambda x, y: np.minimum(np.float32(0.8) - y, y * np.float32(0.5) + np.float32(0.5) - np.abs(x)),
}


class Shapes(ClassDataset):
    """``images`` pictures of each of the first ``classes`` outlines, ``size`` x ``size`` pixels.

    Raises:
        UsageError: an option is not a whole number within its limits.
    """

    name = "shapes"
    grouped = False

    def __init__(self, *, classes: int = 8, images: int = 120, size: int = 32, seed: int = 0) -> None:
        self.root = None
        self.options = {"classes": classes, "images": images, "size": size, "seed": seed}
        for option, value in self.options.items():
            low, high = LIMITS[option]
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(f"shapes: {option} is {value!r}", hint=f"a whole number from {low} to {high}")
        self.labels = tuple(_OUTLINES)[:classes]
        names = [f"{label}_{number:04d}" for label in self.labels for number in range(images)]
        self.samples = tuple(Sample(name, name, 0) for name in names)
        self.targets = tuple(target for target in range(classes) for _ in range(images))

    def picture(self, index: int) -> UInt8:
        """See :meth:`ClassDataset.picture`."""
        target, number = divmod(index, self.options["images"])
        return draw(self.options["seed"], target, number, self.options["size"])

    def fingerprint(self) -> str:
        """SHA-256 of the options and the generation: they determine every pixel."""
        return sha256_json({"generation": GENERATION, **self.options})


def draw(seed: int, target: int, number: int, size: int) -> UInt8:
    """One picture of class ``target``, uint8 (size, size, 3)."""
    stream = Stream(seed, target, number)
    radius = stream.uniform(0.35, 0.7)
    room = 0.9 - radius
    across = (centers(size)[None, :] - np.float32(stream.uniform(-room, room))) * np.float32(1.0 / radius)
    down = (centers(size)[:, None] - np.float32(stream.uniform(-room, room))) * np.float32(1.0 / radius)
    x, y = np.broadcast_arrays(across, down)
    weight = step(_OUTLINES[tuple(_OUTLINES)[target]](x, y), 0.15)
    light = stream.uniform(0.0, 1.0) < 0.5
    planes = []
    for _ in range(3):
        low, high = stream.uniform(0.1, 0.4), stream.uniform(0.55, 0.9)
        ground, figure = (low, high) if light else (high, low)
        uneven = np.float32(ground) + Field(stream, 1, 3).plane(0.0, size) * np.float32(0.08)
        plane = uneven + (np.float32(figure) - uneven) * weight
        noisy = plane + stream.bell(size, size) * np.float32(0.05)
        planes.append(np.clip(noisy * np.float32(255.0) + np.float32(0.5), np.float32(0.0), np.float32(255.0)))
    return np.stack(planes, axis=-1).astype(np.uint8)
