"""Seeded brain-like phantoms with lesions: the built-in data set, generated on demand and never stored.

A patient is a volume of axial slices with three channels that behave like pre-contrast T1, FLAIR and
post-contrast T1 of one head: scalp, skull, fluid, folded cortex, white matter, deep nuclei, ventricles,
vessels, coil bias, noise. Lesions are irregular, soft-edged and bright in FLAIR, faintly dark in T1.
Brightness in FLAIR alone does not give them away: scalp, ventricle caps and unlabelled flow artefacts are as
bright. In some patients a missing sequence is replaced by FLAIR, as in the LGG set.

Every picture depends on (seed, patient, slice, size) alone and is the same on every platform (``fields``).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from edgemamba.data.base import Dataset, Sample
from edgemamba.data.fields import Field, Float, Stream, centers, step
from edgemamba.errors import UsageError
from edgemamba.files import sha256_json

if TYPE_CHECKING:
    from edgemamba.data.base import UInt8

# Part of the fingerprint: raise it when any picture changes.
GENERATION = 1
# How far, in radii, the edge of a lesion may leave its ellipsoid.
_RAGGED = 0.8
LIMITS = {"patients": (1, 10_000), "slices": (1, 1_000), "size": (16, 2_048), "seed": (0, 2**63 - 1)}

# T1, FLAIR and T1 after contrast of each tissue, before the patient's own variation.
_TISSUES = {
    "scalp": (0.85, 0.66, 0.90),
    "bone": (0.08, 0.06, 0.08),
    "fluid": (0.14, 0.09, 0.15),
    "grey": (0.38, 0.46, 0.41),
    "white": (0.52, 0.37, 0.54),
    "nuclei": (0.43, 0.43, 0.45),
}


class Phantoms(Dataset):
    """``patients`` volumes of ``slices`` slices, ``size`` x ``size`` pixels.

    Raises:
        UsageError: an option is not a whole number within its limits.
    """

    name = "phantoms"

    def __init__(self, *, patients: int = 24, slices: int = 16, size: int = 128, seed: int = 0) -> None:
        self.root = None
        self.options = {"patients": patients, "slices": slices, "size": size, "seed": seed}
        for option, value in self.options.items():
            low, high = LIMITS[option]
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(f"phantoms: {option} is {value!r}", hint=f"a whole number from {low} to {high}")
        self.samples = tuple(
            Sample(f"phantom_{patient:03d}_{number:02d}", f"phantom_{patient:03d}", number)
            for patient in range(patients)
            for number in range(slices)
        )

    def read(self, index: int) -> tuple[UInt8, UInt8]:
        """See :meth:`Dataset.read`."""
        patient, number = divmod(index, self.options["slices"])
        height = -0.75 + 1.65 * (number + 0.5) / self.options["slices"]
        return render(self.options["seed"], patient, number, height, self.options["size"])

    def fingerprint(self) -> str:
        """SHA-256 of the options and the generation: they determine every pixel."""
        return sha256_json({"generation": GENERATION, **self.options})


@dataclasses.dataclass(frozen=True)
class _Lesion:
    """Lengths in half frame widths; ``signal`` is what it adds to each channel."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    softness: float
    signal: tuple[float, float, float]
    cyst: float
    ragged: float
    labelled: bool


@dataclasses.dataclass(frozen=True)
class _Head:
    """What a patient's slices have in common."""

    half: tuple[float, float]
    shift: tuple[float, float]
    turn: float
    ventricle: float
    caps: float
    gains: tuple[float, ...]
    noise: float
    missing: int
    tissue: dict[str, Float]
    warp: tuple[Field, Field]
    folds: Field
    bias: tuple[Field, ...]
    edge: Field
    lesions: tuple[_Lesion, ...]


@functools.lru_cache(maxsize=64)
def _head(seed: int, patient: int) -> _Head:
    draw = Stream(seed, patient)
    vary = np.float32(1.0) + draw.symmetric(len(_TISSUES), 3) * np.float32(0.08)
    tissue = {name: np.array(v, np.float32) * vary[k] for k, (name, v) in enumerate(_TISSUES.items())}
    lesions = [_lesion(draw)]
    if draw.uniform(0.0, 1.0) < 0.25:
        lesions.append(_lesion(draw))
    lesions.extend(_artefact(draw) for _ in range(int(draw.uniform(1.0, 5.0))))
    brightness = draw.uniform(0.5, 0.95)
    lost = draw.uniform(0.0, 1.0)
    return _Head(
        half=(draw.uniform(0.62, 0.72), draw.uniform(0.78, 0.90)),
        shift=(draw.uniform(-0.06, 0.06), draw.uniform(-0.06, 0.06)),
        turn=draw.uniform(-0.08, 0.08),
        ventricle=draw.uniform(0.7, 1.5),
        caps=draw.uniform(0.0, 0.25),
        gains=tuple(brightness * draw.uniform(0.8, 1.1) for _ in range(3)),
        noise=draw.uniform(0.008, 0.03),
        missing=0 if lost < 0.06 else 2 if lost > 0.92 else 1,
        tissue=tissue,
        warp=(Field(draw, 3, 4), Field(draw, 3, 4)),
        folds=Field(draw, 10, 25),
        bias=tuple(Field(draw, 2, 2) for _ in range(3)),
        edge=Field(draw, 7, 15),
        lesions=tuple(lesions),
    )


def _lesion(draw: Stream) -> _Lesion:
    side = 1.0 if draw.uniform(0.0, 1.0) < 0.5 else -1.0
    size = draw.uniform(0.12, 0.36)
    return _Lesion(
        center=(side * draw.uniform(0.14, 0.46), draw.uniform(-0.5, 0.5), draw.uniform(-0.45, 0.65)),
        radii=(size * draw.uniform(0.8, 1.25), size * draw.uniform(0.8, 1.25), draw.uniform(0.12, 0.3)),
        softness=draw.uniform(0.15, 0.5),
        signal=(draw.uniform(-0.14, -0.05), draw.uniform(0.15, 0.38), draw.uniform(-0.12, 0.02)),
        cyst=draw.uniform(0.3, 0.6) if draw.uniform(0.0, 1.0) < 0.3 else 0.0,
        ragged=draw.uniform(0.3, _RAGGED),
        labelled=True,
    )


def _artefact(draw: Stream) -> _Lesion:
    """A flow artefact or harmless spot: as bright in FLAIR as a lesion, absent from T1, not labelled."""
    side = 1.0 if draw.uniform(0.0, 1.0) < 0.5 else -1.0
    size = draw.uniform(0.03, 0.11)
    return _Lesion(
        center=(side * draw.uniform(0.05, 0.48), draw.uniform(-0.55, 0.55), draw.uniform(-0.6, 0.8)),
        radii=(size, size * draw.uniform(0.6, 1.6), draw.uniform(0.08, 0.25)),
        softness=draw.uniform(0.3, 0.8),
        signal=(draw.uniform(-0.01, 0.05), draw.uniform(0.12, 0.34), draw.uniform(0.0, 0.05)),
        cyst=0.0,
        ragged=draw.uniform(0.2, 0.6),
        labelled=False,
    )


def render(seed: int, patient: int, number: int, height: float, size: int) -> tuple[UInt8, UInt8]:
    """One slice.

    Args:
        number: slice number; it decides the noise.
        height: place of the slice, from -1 (base of the skull) to 1 (crown).
        size: height and width, pixels.

    Returns:
        image uint8 (size, size, 3) and mask uint8 (size, size) of 0 and 1.
    """
    head = _head(seed, patient)
    canvas = _Canvas(head, height, size)
    canvas.draw_layers()
    canvas.draw_depths()
    canvas.draw_base()
    for lesion in head.lesions:
        canvas.draw_lesion(lesion)
    return canvas.image(Stream(seed, patient, number)), canvas.mask


def _blend(signal: Float, tissue: Float, weight: Float) -> None:
    """Move ``signal`` (3, h, w) towards ``tissue`` (3,); plane by plane, which stays in the cache."""
    for plane, value in zip(signal, tissue, strict=True):
        plane += (value - plane) * weight


class _Canvas:
    """One slice while it is drawn; (x, y) are head coordinates, y grows towards the back."""

    def __init__(self, head: _Head, height: float, size: int) -> None:
        self.head, self.height, self.size = head, height, size
        gx = centers(size)[None, :] - np.float32(head.shift[0])
        gy = centers(size)[:, None] - np.float32(head.shift[1])
        turn = np.float32(head.turn)
        bend = np.float32(0.035)
        self.x = gx + turn * gy + bend * head.warp[0].plane(height, size)
        self.y = gy - turn * gx + bend * head.warp[1].plane(height, size)
        self.side = np.abs(self.x)
        lift = 0.95 * height if height > 0.0 else 0.6 * height
        across = self.x * np.float32(1.0 / head.half[0])
        along = self.y * np.float32(1.0 / head.half[1])
        self.radius = np.sqrt(across * across + along * along + np.float32(lift * lift))
        self.inside = step(np.float32(0.83) - self.radius, 0.02)
        self.hollow = np.zeros((size, size), np.float32)
        self.edge = np.clip(head.edge.plane(height, size), np.float32(-1.0), np.float32(1.0))
        self.signal = np.zeros((3, size, size), np.float32)
        self.mask = np.zeros((size, size), np.uint8)

    def _paint(self, tissue: str, weight: Float) -> None:
        _blend(self.signal, self.head.tissue[tissue], weight)

    def _ellipse(self, u: Float, v: Float, ru: float, rv: float) -> Float:
        """1 at the centre, 0 on the ellipse, negative outside."""
        a, b = u * np.float32(1.0 / ru), v * np.float32(1.0 / rv)
        return np.float32(1.0) - np.sqrt(a * a + b * b)

    def draw_layers(self) -> None:
        """From the scalp inwards to the white matter."""
        depth = np.float32(0.83) - self.radius
        folds = self.head.folds.plane(self.height, self.size)
        self._paint("scalp", step(np.float32(1.0) - self.radius, 0.02))
        self._paint("bone", step(np.float32(0.94) - self.radius, 0.02))
        self._paint("fluid", step(np.float32(0.87) - self.radius, 0.02))
        self._paint("grey", self.inside)
        self._paint("white", step(depth - np.float32(0.10) + folds * np.float32(0.06), 0.04))
        furrows = step(np.float32(0.12) - np.abs(folds), 0.2) * step(np.float32(0.18) - depth, 0.16)
        self._paint("fluid", furrows * self.inside * np.float32(0.9))
        gap = step(np.float32(0.012) - self.side, 0.02) * self.inside
        if self.height < 0.35:
            gap *= step(np.abs(self.y) - np.float32(0.42), 0.1)
        self._paint("fluid", gap * np.float32(0.8))
        # The sagittal sinus takes up contrast.
        sinus = self._ellipse(self.x, self.radius - np.float32(0.85), 0.04, 0.045)
        self.signal[2] += step(sinus, 0.6) * np.float32(0.4)

    def draw_depths(self) -> None:
        """Nuclei and ventricles, as far as they reach into this slice."""
        nuclei = 1.0 - ((self.height + 0.05) / 0.32) ** 2
        if nuclei > 0.05:
            reach = math.sqrt(nuclei)
            body = self._ellipse(self.side - np.float32(0.19), self.y + np.float32(0.05), 0.085 * reach, 0.16 * reach)
            self._paint("nuclei", step(body, 0.3))
            slit = self._ellipse(self.x, self.y - np.float32(0.02), 0.018, 0.14 * reach)
            self._paint("fluid", step(slit, 0.5))
        ventricle = 1.0 - ((self.height - 0.12) / 0.4) ** 2
        if ventricle > 0.05:
            reach = math.sqrt(ventricle)
            bow = self.side - np.float32(0.055) - self.y * self.y * np.float32(0.6)
            body = self._ellipse(bow, self.y - np.float32(0.02), 0.042 * self.head.ventricle * reach, 0.36 * reach)
            self.signal[1] += step(body + np.float32(0.5), 1.0) * np.float32(self.head.caps)
            self.hollow = step(body, 0.3)
            self._paint("fluid", self.hollow)

    def draw_base(self) -> None:
        """Brain stem in its cistern, and the orbits, in the lowest slices."""
        if self.height >= -0.4:
            return
        show = step(np.float32(0.98) - self.radius, 0.04) * np.float32(min(1.0, 5.0 * (-0.4 - self.height)))
        self._paint("fluid", step(self._ellipse(self.x, self.y - np.float32(0.02), 0.2, 0.17), 0.2) * show)
        self._paint("white", step(self._ellipse(self.x, self.y - np.float32(0.06), 0.12, 0.13), 0.2) * show)
        ahead = self.y + np.float32(0.68 * self.head.half[1])
        self._paint("bone", step(self._ellipse(self.x, ahead, 0.12, 0.2), 0.3) * show)
        orbit = step(self._ellipse(self.side - np.float32(0.27), ahead, 0.15, 0.17), 0.15) * show
        self._paint("scalp", orbit)
        self._paint("fluid", step(self._ellipse(self.side - np.float32(0.27), ahead, 0.09, 0.09), 0.2) * show)
        self.hollow = np.maximum(self.hollow, orbit)

    def draw_lesion(self, lesion: _Lesion) -> None:
        """Add a lesion's signal and, if it is labelled, its mask."""
        rise = (self.height - lesion.center[2]) / lesion.radii[2]
        if abs(rise) > 1.0 + _RAGGED:
            return
        rows, columns = (self._window(lesion.center[axis], lesion.radii[axis], axis) for axis in (1, 0))
        across = (self.x[rows, columns] - np.float32(lesion.center[0])) * np.float32(1.0 / lesion.radii[0])
        along = (self.y[rows, columns] - np.float32(lesion.center[1])) * np.float32(1.0 / lesion.radii[1])
        distance = np.sqrt(across * across + along * along + np.float32(rise * rise))
        level = np.float32(1.0) - distance + self.edge[rows, columns] * np.float32(lesion.ragged)
        tissue = self.inside[rows, columns] * (np.float32(1.0) - self.hollow[rows, columns])
        signal = self.signal[:, rows, columns]
        weight = step(level, lesion.softness) * tissue
        for plane, value in zip(signal, lesion.signal, strict=True):
            plane += np.float32(value) * weight
        if lesion.cyst:
            weight = step(np.float32(lesion.cyst) - distance, 0.2) * tissue * np.float32(0.8)
            _blend(signal, self.head.tissue["fluid"], weight)
        if lesion.labelled:
            self.mask[rows, columns] |= ((level > 0) & (tissue > np.float32(0.5))).view(np.uint8)

    def _window(self, center: float, radius: float, axis: int) -> slice:
        """Rows (axis 1) or columns (axis 0) that a lesion can reach, with room for turn and bending."""
        middle = center + self.head.shift[axis]
        reach = radius * (1.0 + _RAGGED) + 0.2
        low, high = (int((place + 1.0) * 0.5 * self.size) for place in (middle - reach, middle + reach))
        return slice(max(0, low), min(self.size, high + 1))

    def image(self, noise: Stream) -> UInt8:
        """Coil bias, brightness and noise, as 8 bits a channel, (size, size, 3)."""
        head = self.head
        planes = []
        for channel in range(3):
            coil = np.float32(1.0) + np.float32(0.22) * head.bias[channel].plane(self.height, self.size)
            clean = self.signal[channel] * coil * np.float32(head.gains[channel])
            noisy = np.abs(clean + noise.bell(self.size, self.size) * np.float32(head.noise))
            planes.append(np.minimum(noisy * np.float32(255.0) + np.float32(0.5), np.float32(255.0)))
        planes[head.missing] = planes[1]
        return np.stack(planes, axis=-1).astype(np.uint8)
