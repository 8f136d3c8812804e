"""Event files, read back by protobuf's own decoder and by the rules of TFRecord."""

from __future__ import annotations

import csv
import struct
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image

from edgemamba.errors import InputError
from edgemamba.train import resume_config, train
from edgemamba.train import run as run_module
from edgemamba.train.tensorboard import crc32c
from train.runs import QUIET, tiny

Field = descriptor_pb2.FieldDescriptorProto


def _event_class() -> Any:
    """tensorflow/core/util/event.proto and framework/summary.proto, what of them is used here."""
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="tensorflow", syntax="proto3")
    messages: dict[str, list[tuple[str, int, Any, Any, str]]] = {
        "Image": [
            ("height", 1, Field.TYPE_INT32, Field.LABEL_OPTIONAL, ""),
            ("width", 2, Field.TYPE_INT32, Field.LABEL_OPTIONAL, ""),
            ("colorspace", 3, Field.TYPE_INT32, Field.LABEL_OPTIONAL, ""),
            ("encoded_image_string", 4, Field.TYPE_BYTES, Field.LABEL_OPTIONAL, ""),
        ],
        "Value": [
            ("tag", 1, Field.TYPE_STRING, Field.LABEL_OPTIONAL, ""),
            ("simple_value", 2, Field.TYPE_FLOAT, Field.LABEL_OPTIONAL, ""),
            ("image", 4, Field.TYPE_MESSAGE, Field.LABEL_OPTIONAL, ".tensorflow.Image"),
        ],
        "Summary": [("value", 1, Field.TYPE_MESSAGE, Field.LABEL_REPEATED, ".tensorflow.Value")],
        "Event": [
            ("wall_time", 1, Field.TYPE_DOUBLE, Field.LABEL_OPTIONAL, ""),
            ("step", 2, Field.TYPE_INT64, Field.LABEL_OPTIONAL, ""),
            ("file_version", 3, Field.TYPE_STRING, Field.LABEL_OPTIONAL, ""),
            ("summary", 5, Field.TYPE_MESSAGE, Field.LABEL_OPTIONAL, ".tensorflow.Summary"),
        ],
    }
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for title, number, kind, label, inner in fields:
            message.field.add(name=title, number=number, type=kind, label=label, type_name=inner or None)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Event"))


EVENT = _event_class()


def unmasked(data: bytes) -> int:
    masked = (struct.unpack("<I", data)[0] - 0xA282EAD8) & 0xFFFFFFFF
    return (masked >> 17 | masked << 15) & 0xFFFFFFFF


def events(run: Path) -> list[Any]:
    (path,) = (run / "tensorboard").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    data, found, place = path.read_bytes(), [], 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        assert unmasked(data[place + 8 : place + 12]) == crc32c(data[place : place + 8])
        body = data[place + 12 : place + 12 + length]
        assert unmasked(data[place + 12 + length : place + 16 + length]) == crc32c(body)
        found.append(EVENT.FromString(body))
        place += 16 + length
    return found


def test_the_checksum_is_castagnolis() -> None:
    """The check value of CRC-32C, and a vector of RFC 3720, B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def pictures(found: Any) -> dict[str, Any]:
    return {value.tag: value.image for value in found.summary.value if value.image.encoded_image_string}


def check_against_the_table(run: Path) -> None:
    first, *rest = [event for event in events(run) if not pictures(event)]
    assert first.file_version == "brain.Event:2"
    table = list(csv.DictReader((run / "metrics.csv").open()))
    assert [event.step for event in rest] == [int(row["epoch"]) for row in table]
    for event, row in zip(rest, table, strict=True):
        found = {value.tag: value.simple_value for value in event.summary.value}
        for tag, column in {
            "train/loss": "train_loss",
            "val/loss": "val_loss",
            "train/dice": "train_dice",
            "val/dice_pooled": "val_dice_pooled",
            "run/lr": "lr",
            "run/images_per_s": "images_per_s",
        }.items():
            assert found[tag] == pytest.approx(float(row[column]), rel=1e-5), tag
    times = [event.wall_time for event in rest]
    assert times == sorted(times) and times[0] >= first.wall_time > 1.7e9


def test_the_file_is_the_table_and_is_written_anew_by_a_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        epoch = run_module.Run._epoch

        def stops(self: Any, number: int, bar: Any) -> Any:
            if number == 2:
                raise InputError("stopped")
            return epoch(self, number, bar)

        patch.setattr(run_module.Run, "_epoch", stops)
        with pytest.raises(InputError, match="stopped"):
            train(tiny(out, epochs=3, tensorboard=True), QUIET)
    check_against_the_table(out)
    assert len(events(out)) == 3
    train(resume_config(out), QUIET)
    check_against_the_table(out)
    shown: dict[str, Any] = {}
    for event in events(out)[4:]:
        assert event.step == 3
        shown |= pictures(event)
    files = sorted((out / "samples").glob("*.png"))
    assert sorted(shown) == [f"samples/{file.stem}" for file in files] and files
    for file in files:
        picture = shown[f"samples/{file.stem}"]
        assert picture.encoded_image_string == file.read_bytes()
        with Image.open(file) as opened:
            assert (opened.width, opened.height) == (picture.width, picture.height)
            assert len(opened.getbands()) == picture.colorspace


def test_there_is_none_unless_asked(tmp_path: Path) -> None:
    train(tiny(tmp_path / "out", epochs=1), QUIET)
    assert not (tmp_path / "out" / "tensorboard").exists()
