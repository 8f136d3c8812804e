"""Seeded noise with the spectrum of natural images, for networks that take no pictures of three channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def pictures(count: int, size: tuple[int, int], channels: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 (count, h, w, channels); equal arguments give equal pixels.

    The amplitude falls as one over the frequency (Field, Journal of the Optical Society of America A 4, 1987), each
    channel spans 0 to 255.
    """
    import numpy as np

    height, width = size
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = 1.0 / np.maximum(frequency, 1.0 / max(height, width))
    white = rng.standard_normal((count, channels, height, width))
    pink = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(height, width))
    low, high = pink.min(axis=(2, 3), keepdims=True), pink.max(axis=(2, 3), keepdims=True)
    scaled = (pink - low) / np.maximum(high - low, 1e-12) * 255.0
    return np.rint(scaled).astype(np.uint8).transpose(0, 2, 3, 1)
