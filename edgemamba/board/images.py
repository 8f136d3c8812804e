"""From an image file to the network's input and from its output to a mask: the one place where pixels change.

Training, evaluation and the board all call these functions, so that a network sees on the board what it was
trained on. The file is copied verbatim into Bundles: Python 3.8, standard library, numpy, Pillow >= 10.3.

How a file becomes three channels of 8 bits:

* one picture a file (an animation or a stack of pages is refused), turned upright as its EXIF tag says;
* grey is repeated, palettes are resolved, CMYK and YCbCr are converted, transparency lies on black;
* grey of more than 8 bits (16-bit PNG and TIFF, 32-bit, floating point) has no agreed scale, and a 12-bit
  scan in a 16-bit file would be nearly black, so the image's own range, from min(0, least value) to the
  greatest, becomes 0 to 255;
* colour of 16 bits keeps the upper byte, as Pillow reads it.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    import numpy.typing as npt

    UInt8 = npt.NDArray[np.uint8]
    Float32 = npt.NDArray[np.float32]
    Size = tuple[int, int]
    AnyPath = str | os.PathLike[str]

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
MAX_PIXELS = 64_000_000

# Both end as an ImageError, which says it once: damage, and a size above a limit that is lower than Pillow's.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# What Pillow's decoders raise on damaged bytes; it differs by format and version.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    EOFError,
    struct.error,
    zlib.error,
)


class ImageError(ValueError):
    """A file is not an image that can be used; ``hint`` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def open_image(path: AnyPath) -> UInt8:
    """Read an image file as RGB.

    Returns:
        uint8 (H, W, 3), upright.

    Raises:
        ImageError: missing, not an image, truncated or damaged, too large, or not a single picture.
    """
    return to_rgb(path, load(path))


def load(path: AnyPath) -> Image.Image:
    """Decode an image file completely, in its own mode, upright.

    Raises:
        ImageError: see :func:`open_image`.
    """
    place = Path(path)
    if not place.is_file():
        reason = "is a folder" if place.is_dir() else "does not exist"
        raise ImageError(f"{path} {reason}", "give the path of an image file")
    known = "PNG, JPEG, TIFF, BMP, GIF, WebP and PPM can be read"
    try:
        with Image.open(place, formats=_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _too_large(path, f"{width}x{height} pixels")
            # A JPEG of the MPO kind carries previews behind its one picture.
            pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if pages != 1:
                raise ImageError(f"{path} holds {pages} pictures, not one", "save each page or frame as its own file")
            return ImageOps.exif_transpose(image)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path, "far too many pixels") from None
    except UnidentifiedImageError:
        empty = place.stat().st_size == 0
        raise ImageError(f"{path} is {'empty' if empty else 'not an image that can be read'}", known) from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(f"{path} cannot be read: {error.strerror}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path} is damaged or truncated: {reason}", "copy or export the file again") from None


def _too_large(path: object, seen: str) -> ImageError:
    return ImageError(f"{path} has {seen}; at most {MAX_PIXELS:,} are read", "cut or shrink the image first")


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def to_rgb(path: AnyPath, image: Image.Image) -> UInt8:
    """A decoded image of any mode as uint8 (H, W, 3); ``path`` is for the message.

    Raises:
        ImageError: values that are not finite, or a colour space that has no rule.
    """
    try:
        if image.mode == "F" or image.mode.startswith("I"):
            return np.repeat(_stretch(np.asarray(image))[:, :, None], 3, axis=2)
        if image.getbands()[-1] in ("A", "a") or "transparency" in image.info:
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(black, image.convert("RGBA"))
        return np.array(image.convert("RGB"))
    except _DAMAGE as error:
        raise ImageError(f"{path} cannot be converted to RGB: {error}", "save it as 8-bit grey or RGB") from None


def _stretch(values: npt.NDArray[np.generic]) -> UInt8:
    exact = values.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("some values are not finite")
    low = min(0.0, float(exact.min()))
    span = float(exact.max()) - low
    if span == 0.0:
        return np.zeros(values.shape, np.uint8)
    return np.floor((exact - low) * 255.0 / span + 0.5).astype(np.uint8)


def of_channels(path: AnyPath, image: UInt8, channels: int) -> UInt8:
    """An RGB image (H, W, 3) with as many channels as the network takes: itself, or its luminance (H, W, 1).

    Raises:
        ImageError: any other number.
    """
    if channels == 3:
        return image
    if channels == 1:
        return np.asarray(Image.fromarray(image).convert("L"))[:, :, None]
    raise ImageError(f"{path} is an image, the network takes {channels} channels", "give it as .npy, float32 (C, H, W)")


def open_array(path: AnyPath, shape: tuple[int, ...]) -> Float32:
    """An .npy file as the network's input: float32 (1, C, h, w), values as they are.

    Raises:
        ImageError: missing, damaged, of another type than float, or of another shape than ``shape``.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist", "give the path of an .npy file") from None
    except _DAMAGE as error:
        raise ImageError(f"{path} is not an .npy file: {error}", "write it with numpy.save") from None
    if getattr(values, "shape", None) not in (shape, shape[1:]) or values.dtype.kind != "f":
        seen = f"{getattr(values, 'dtype', type(values).__name__)} {getattr(values, 'shape', '')}"
        raise ImageError(f"{path} holds {seen}, the network takes float32 {shape}", "save it in this shape")
    return np.ascontiguousarray(values.reshape(shape), np.float32)


def resize(image: UInt8, size: Size) -> UInt8:
    """Bilinear resize of uint8 (H, W, C) to ``size`` = (h, w); shrinking averages, as Pillow does it."""
    if image.ndim != 3 or image.dtype != np.uint8:
        raise ImageError(f"an image must be uint8 (H, W, C), not {image.dtype} {image.shape}")
    if image.shape[:2] == tuple(size):
        return image
    if image.shape[2] != 3:
        planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in image.transpose(2, 0, 1)]
        small = [plane.resize((size[1], size[0]), Image.Resampling.BILINEAR) for plane in planes]
        return np.stack([np.asarray(plane) for plane in small], axis=2)
    picture = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def resize_mask(mask: UInt8, size: Size) -> UInt8:
    """Nearest-pixel resize of a mask (H, W) to ``size`` = (h, w)."""
    if mask.shape == tuple(size):
        return mask
    return np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))


def to_input(image: UInt8, size: Size, scale: float) -> Float32:
    """The network's input: resize to ``size`` = (h, w), multiply by ``scale``, put channels first.

    Args:
        image: uint8 (H, W, C); RGB where C is 3.

    Returns:
        float32 (1, C, h, w).
    """
    planes = resize(image, size).transpose(2, 0, 1)[None]
    return np.ascontiguousarray(planes, np.float32) * np.float32(scale)


def to_mask(probability: Float32, threshold: float, original_size: Size) -> UInt8:
    """The mask in the image's own size: the probability is resized bilinearly, then compared (``>=``).

    Resized after comparing, the mask would show the network's pixels as steps.

    Args:
        probability: float32 (h, w).
        original_size: (H, W) of the image.

    Returns:
        uint8 (H, W) of 0 and 1.
    """
    if probability.ndim != 2:
        raise ImageError(f"a probability map must be (h, w), not {probability.shape}")
    values = np.ascontiguousarray(probability, np.float32)
    if values.shape != tuple(original_size):
        picture = Image.fromarray(values)
        values = np.asarray(picture.resize((original_size[1], original_size[0]), Image.Resampling.BILINEAR))
    return (values >= threshold).astype(np.uint8)


def outline(mask: UInt8) -> npt.NDArray[np.bool_]:
    """Pixels of ``mask`` (H, W) with one of four neighbours outside it or beyond the edge of the picture."""
    inside = np.pad(mask != 0, 1)
    core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return inside[1:-1, 1:-1] & ~core


def overlay(image: UInt8, mask: UInt8, *, color: tuple[int, int, int] = (255, 64, 64), opacity: float = 0.3) -> UInt8:
    """Draw ``mask`` (H, W) on a copy of ``image`` (H, W, 3): a tint of ``opacity`` and a full outline."""
    if image.shape[:2] != mask.shape:
        raise ImageError(f"the mask is {mask.shape}, the image {image.shape[:2]}")
    drawn = image.copy()
    inside = mask != 0
    paint = np.asarray(color, np.float32)
    drawn[inside] = np.rint(image[inside] * (1.0 - opacity) + paint * opacity).astype(np.uint8)
    drawn[outline(mask)] = color
    return drawn


def save_image(path: AnyPath, image: UInt8) -> None:
    """Write uint8 (H, W) or (H, W, 3) as PNG: complete or not at all, without any metadata of the source.

    Raises:
        OSError: the place cannot be written, or the disk is full.
    """
    place = Path(path)
    temporary = place.with_name(f".{place.name}.tmp-{os.getpid()}")
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="PNG")
    try:
        temporary.write_bytes(encoded.getvalue())
        temporary.replace(place)
    finally:
        if temporary.exists():
            temporary.unlink()


def save_mask(path: AnyPath, mask: UInt8) -> None:
    """Write a mask (H, W) of 0 and 1 as a grey PNG of 0 and 255."""
    save_image(path, (mask != 0).astype(np.uint8) * np.uint8(255))
