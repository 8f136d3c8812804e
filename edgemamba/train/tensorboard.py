"""The table and the sample pictures of a run as a TensorBoard event file, written without TensorBoard.

An event file is a row of records (length, masked CRC-32C of it, data, masked CRC-32C of that: TensorFlow's TFRecord),
each a protobuf message Event {1: wall time, 2: step, 3: file version, 5: Summary {1: Value {1: tag, 2: number,
4: Image {1: height, 2: width, 3: channels, 4: PNG}}}}. So a run needs no TensorBoard and no TensorFlow; only whoever
looks at it does.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Sequence
from pathlib import Path

from edgemamba.files import disk_errors
from edgemamba.train.history import Row

_POLYNOMIAL = 0x82F63B78
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PARTS = ("train", "val")


class EventLog:
    """One event file that grows with the rows of a run. It follows from them: a resumed run writes it anew.

    Args:
        folder: of the event file; earlier ones there are removed.
        started: of the run, UTC, ISO 8601: an epoch's time is that plus the seconds of the epochs up to it.
    """

    def __init__(self, folder: Path, started: str) -> None:
        self.folder = folder
        self.started = datetime.datetime.fromisoformat(started).timestamp()
        self.path: Path | None = None
        self.done = 0

    def update(self, rows: Sequence[Row]) -> None:
        """Write those of ``rows`` that are not there yet; TensorBoard sees them at once.

        Raises:
            InputError: the disk is full or the place cannot be written.
        """
        with disk_errors(self.folder):
            if self.path is None:
                self.path = self._begin()
            seconds = sum(row.seconds for row in rows[: self.done])
            with self.path.open("ab") as stream:
                for row in rows[self.done :]:
                    seconds += row.seconds
                    stream.write(record(event(self.started + seconds, row.epoch, scalars(row))))
        self.done = len(rows)

    def show(self, rows: Sequence[Row], folder: Path) -> None:
        """Add the PNG pictures in ``folder`` to the last of ``rows``.

        Raises:
            InputError: the disk is full or the place cannot be written.
        """
        self.update(rows)
        if not rows or self.path is None:
            return
        ended = self.started + sum(row.seconds for row in rows)
        with disk_errors(self.folder), self.path.open("ab") as stream:
            for picture in sorted(folder.glob("*.png")):
                value = _text(1, f"samples/{picture.stem}".encode()) + _text(4, image(picture.read_bytes()))
                stream.write(record(_event(ended, rows[-1].epoch, _text(1, value))))

    def _begin(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("events.out.tfevents.*"):
            old.unlink()
        now = datetime.datetime.now(datetime.timezone.utc).timestamp()
        path = self.folder / f"events.out.tfevents.{now:.6f}.edgemamba"
        version = _field(1, _FIXED64, struct.pack("<d", self.started)) + _text(3, b"brain.Event:2")
        path.write_bytes(record(version))
        return path


def scalars(row: Row) -> dict[str, float]:
    """Numbers of an epoch by tag: train/..., val/... and run/...; what is not defined is left out."""
    found = {}
    for name, value in {**vars(row), **row.scores}.items():
        part, _, rest = name.partition("_")
        if name != "epoch" and isinstance(value, int | float):
            found[f"{part}/{rest}" if part in _PARTS else f"run/{name}"] = float(value)
    return found


def event(wall_time: float, step: int, values: dict[str, float]) -> bytes:
    """The Event message of some numbers at ``step``; ``wall_time`` in seconds since 1970."""
    summary = b"".join(
        _text(1, _text(1, tag.encode()) + _field(2, _FIXED32, struct.pack("<f", value)))
        for tag, value in values.items()
    )
    return _event(wall_time, step, summary)


def image(png: bytes) -> bytes:
    """The Image message of an RGB PNG file; the sides stand in its first chunk."""
    width, height = struct.unpack_from(">II", png, 16)
    sides = ((1, height), (2, width), (3, 3))
    return b"".join(_field(number, _VARINT, _varint(value)) for number, value in sides) + _text(4, png)


def _event(wall_time: float, step: int, summary: bytes) -> bytes:
    return _field(1, _FIXED64, struct.pack("<d", wall_time)) + _field(2, _VARINT, _varint(step)) + _text(5, summary)


def record(data: bytes) -> bytes:
    """One TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _field(number: int, wire: int, payload: bytes) -> bytes:
    return _varint(number << 3 | wire) + payload


def _text(number: int, data: bytes) -> bytes:
    return _field(number, _BYTES, _varint(len(data)) + data)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC-32."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
