"""The one reader of pickles: what it takes, and that nothing of a file's choice is ever run."""

from __future__ import annotations

import collections
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cifar import pickled
from edgemamba.data.plain_pickle import load_plain
from edgemamba.errors import InputError

VALUES = {b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [0, 2, 1], b"names": [b"a", b"b" * 300]}


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(data)
    return path


def check(found: Any) -> None:
    assert found.keys() == VALUES.keys()
    np.testing.assert_array_equal(found[b"data"], VALUES[b"data"])
    assert found[b"labels"] == VALUES[b"labels"] and found[b"names"] == VALUES[b"names"]


def test_python_2_strings_and_arrays(tmp_path: Path) -> None:
    data = pickled(VALUES)
    names = {arg for code, arg, _ in pickletools.genops(data) if code.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    assert {code.name for code, _, _ in pickletools.genops(data)} >= {"SHORT_BINSTRING", "BINSTRING"}
    check(load_plain(write(tmp_path, data)))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_python_3_writes(protocol: int, tmp_path: Path) -> None:
    check(load_plain(write(tmp_path, pickle.dumps(VALUES, protocol))))


class Payload:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Payload(os.mkdir, "ran"), "mkdir"),
        (Payload(eval, "__import__('os').mkdir('ran')"), "eval"),
        (Payload(getattr, (), "count"), "getattr"),
        (Payload(np.load, "ran"), "numpy"),
        (collections.OrderedDict(a=1), "OrderedDict"),
        (Payload(np.ndarray, (3,)), ""),
    ],
)
def test_anything_else_is_refused_and_never_run(
    payload: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4):
        path = write(tmp_path, pickle.dumps({"x": payload}, protocol))
        if not name:
            # An array made by its own name is plain.
            assert load_plain(path)["x"].shape == (3,)
            continue
        with pytest.raises(InputError, match=f"is refused: its pickle wants to call .*{name}"):
            load_plain(path)
        assert not Path("ran").exists()


def test_other_classes_codecs_and_outside_objects_are_refused(tmp_path: Path) -> None:
    for data in (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nc__builtin__\nobject\nK\x00U\x01b\x87R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00U\x01b\x87R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        b"\x80\x02K\x07Q.",
    ):
        with pytest.raises(InputError, match="is refused"):
            load_plain(write(tmp_path, data))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_is_one_clear_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    good = pickled(VALUES)
    at = data.draw(st.integers(0, len(good) - 1))
    if data.draw(st.booleans()):
        bad = good[:at]
    else:
        bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    path = tmp_path_factory.mktemp("pickles") / "file"
    path.write_bytes(bad)
    try:
        load_plain(path)
    except InputError as error:
        assert "is damaged" in error.message or "is refused" in error.message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_plain(tmp_path / "none")
