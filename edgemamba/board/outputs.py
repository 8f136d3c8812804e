"""What the output of a Bundle's model means, and what becomes of it: one class per task of the manifest.

segmentation    the probability of each pixel; a mask and an overlay for every image
classification  the probability of each class; a table of the best classes
tensor          another project's network, whose output is just numbers; an .npy file for every image

Copied into every Bundle beside ``runner.py``; standard library, numpy, Pillow, Python 3.8.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import pathlib
from typing import Any

import numpy as np

images: Any = importlib.import_module(f"{__package__}.images" if __package__ else "images")

TOP = 5


class Output:
    """One task.

    Attributes:
        agreement: what a golden check's agreement counts, for people.
        endings: of the files written beside each other for one image, after its name.
        summary: whether there is one table over all images.
    """

    agreement = ""
    endings: tuple[str, ...] = ()
    summary = False

    def __init__(self, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self.size = tuple(manifest["preprocess"]["size"])
        self.shape = tuple(manifest["outputs"][0]["shape"])

    def value(self, y: np.ndarray) -> np.ndarray:
        """The output of one run without its batch axis."""
        return y[0]

    def finish(self, y: np.ndarray) -> Any:
        """What an application does with the output of one run; part of the end-to-end time."""
        return self.value(y)

    def golden_arrays(self, count: int, stride: int) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Type and shape of each array of the golden file, beside ``images`` and ``stride``."""
        values = int(np.prod(self.shape, dtype=np.int64))
        return {"output": (np.float32, (count, -(-values // stride)))}

    def unpack(self, arrays: dict[str, np.ndarray]) -> None:
        """Bring arrays of the golden file into the form that ``compare`` takes."""

    def compare(self, arrays: dict[str, np.ndarray], found: np.ndarray) -> tuple[np.ndarray, float]:
        """|difference| from the golden outputs, and the agreement, 0 to 1.

        Args:
            arrays: of the golden file.
            found: ``value`` of every golden picture, stacked.
        """
        flat = found.reshape(len(found), -1)[:, :: int(arrays["stride"])]
        return np.abs(flat.astype(np.float64) - arrays["output"]), self._agreement(arrays["output"], flat)

    def _agreement(self, expected: np.ndarray, found: np.ndarray) -> float:
        raise NotImplementedError

    def write(self, stem: pathlib.Path, image: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        """Write the results of one image to ``stem`` + ending; gives what there is to tell.

        Raises:
            OSError: the results cannot be written; then none of them exists.
        """
        raise NotImplementedError

    def line(self, row: dict[str, Any]) -> str:
        """What ``write`` told, for people."""
        raise NotImplementedError


class Masks(Output):
    """Segmentation: run-time output (1, 1, h, w), compared at every s-th pixel and as masks."""

    agreement = "equal mask pixels"
    endings = ("_mask.png", "_overlay.png")

    def __init__(self, manifest: dict[str, Any]) -> None:
        super().__init__(manifest)
        self.threshold = manifest["threshold"]

    def value(self, y: np.ndarray) -> np.ndarray:
        """Probability (h, w)."""
        return y[0, 0]

    def finish(self, y: np.ndarray) -> Any:
        """The mask (h, w)."""
        return images.to_mask(self.value(y), self.threshold, self.size)

    def golden_arrays(self, count: int, stride: int) -> dict[str, tuple[type, tuple[int, ...]]]:
        """The probability at every s-th pixel, and the whole mask as bits."""
        height, width = self.size
        return {
            "probability": (np.float32, (count, -(-height // stride), -(-width // stride))),
            "mask": (np.uint8, (count, -(-height * width // 8))),
        }

    def unpack(self, arrays: dict[str, np.ndarray]) -> None:
        """Masks as (n, h, w) of 0 and 1."""
        height, width = self.size
        bits = np.unpackbits(arrays["mask"], axis=1, count=height * width)
        arrays["mask"] = bits.reshape(-1, height, width)

    def compare(self, arrays: dict[str, np.ndarray], found: np.ndarray) -> tuple[np.ndarray, float]:
        """|difference| of the probability, and the share of equal mask pixels."""
        stride = int(arrays["stride"])
        masks = np.stack([images.to_mask(one, self.threshold, self.size) for one in found])
        difference = np.abs(found[:, ::stride, ::stride].astype(np.float64) - arrays["probability"])
        return difference, float(np.mean(masks == arrays["mask"]))

    def write(self, stem: pathlib.Path, image: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        """Mask (0 and 255) and overlay, in the image's own size."""
        mask = images.to_mask(self.value(y), self.threshold, image.shape[:2])
        mask_path, overlay_path = (stem.with_name(stem.name + ending) for ending in self.endings)
        try:
            images.save_mask(mask_path, mask)
            images.save_image(overlay_path, images.overlay(image, mask))
        except OSError:
            if mask_path.exists():
                mask_path.unlink()
            raise
        foreground = int(np.count_nonzero(mask))
        return {
            "mask": str(mask_path),
            "overlay": str(overlay_path),
            "width": int(image.shape[1]),
            "height": int(image.shape[0]),
            "foreground_pixels": foreground,
            "foreground_share": foreground / mask.size,
            "max_probability": float(self.value(y).max()),
        }

    def line(self, row: dict[str, Any]) -> str:
        """Share of the image and where the mask is."""
        return f"{100.0 * row['foreground_share']:.2f} % in the mask -> {row['mask']}"


class Classes(Output):
    """Classification: run-time output (1, K)."""

    agreement = "equal first classes"
    summary = True

    def __init__(self, manifest: dict[str, Any]) -> None:
        super().__init__(manifest)
        labels = manifest.get("labels") or []
        self.labels = labels or [str(number) for number in range(self.shape[-1])]

    def best(self, y: np.ndarray, count: int = TOP) -> list[dict[str, Any]]:
        """Rank, class number, name and probability of the ``count`` best classes."""
        values = self.value(y)
        order = np.argsort(-values, kind="stable")[:count].tolist()
        return [
            {"rank": rank, "class": index, "name": self.labels[index], "probability": float(values[index])}
            for rank, index in enumerate(order, 1)
        ]

    def finish(self, y: np.ndarray) -> Any:
        """The best classes."""
        return self.best(y)

    def _agreement(self, expected: np.ndarray, found: np.ndarray) -> float:
        return float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1)))

    def write(self, stem: pathlib.Path, image: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        """No file of its own: the table over all images has the best classes."""
        del stem, image
        return {"classes": self.best(y)}

    def line(self, row: dict[str, Any]) -> str:
        """The best classes with their probability."""
        return ", ".join(f"{one['name']} {one['probability']:.4f}" for one in row["classes"])


class Tensors(Output):
    """Another project's network: its output as it is."""

    agreement = "cosine"
    endings = (".npy",)

    def value(self, y: np.ndarray) -> np.ndarray:
        """All of it: the first axis need not be the batch."""
        return y

    def _agreement(self, expected: np.ndarray, found: np.ndarray) -> float:
        a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
        product = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
        return float(np.dot(a, b)) / product if product else float(np.array_equal(a, b))

    def write(self, stem: pathlib.Path, image: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        """The output as float32 .npy, in its own shape."""
        del image
        path = stem.with_name(stem.name + self.endings[0])
        values = np.ascontiguousarray(self.value(y), np.float32)
        stream = io.BytesIO()
        np.save(stream, values, allow_pickle=False)
        write_bytes(path, stream.getvalue())
        return {
            "output": str(path),
            "shape": list(values.shape),
            "min": float(values.min()),
            "max": float(values.max()),
            "mean": float(values.mean()),
        }

    def line(self, row: dict[str, Any]) -> str:
        """Shape, range and where it is."""
        shape = "x".join(str(side) for side in row["shape"])
        return f"{shape}, {row['min']:.4g} to {row['max']:.4g} -> {row['output']}"


TASKS = {"segmentation": Masks, "classification": Classes, "tensor": Tensors}


def open_output(manifest: dict[str, Any]) -> Output:
    """The class that knows this Bundle's task."""
    return TASKS[manifest.get("task", "segmentation")](manifest)


def table(rows: list[dict[str, Any]], form: str) -> str:
    """The best classes of every image as CSV (a line a class) or JSON.

    Args:
        rows: ``image`` and ``classes`` of every image.
        form: csv or json.
    """
    if form == "json":
        return json.dumps({"schema": "edgemamba.predict/1", "images": rows}, indent=2, ensure_ascii=False) + "\n"
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "name", "probability"])
    for row in rows:
        for one in row["classes"]:
            writer.writerow([row["image"], one["rank"], one["class"], one["name"], "{:.6g}".format(one["probability"])])
    return stream.getvalue()


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Write a file, complete or not at all.

    Raises:
        OSError: the place cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        if temporary.exists():
            temporary.unlink()
