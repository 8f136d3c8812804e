"""Layouts against numpy: whatever sequence of permutations and reshapes, LiteRT's result is torch's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_run import operators, run

from edgemamba.stages import tflite_layout as layout
from edgemamba.stages.tflite_layout import Laid
from edgemamba.stages.tflite_writer import GraphWriter


@st.composite
def shapes(draw: st.DrawFn, total: int | None = None) -> tuple[int, ...]:
    """A shape of one to four axes, of a given number of elements or of up to a few dozen."""
    if total is None:
        return tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    left, sizes = total, []
    for _ in range(draw(st.integers(0, 3))):
        sizes.append(draw(st.sampled_from([n for n in range(1, left + 1) if left % n == 0])))
        left //= sizes[-1]
    return tuple(draw(st.permutations([*sizes, left])))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=shapes())
def test_moves_are_torchs(data: st.DataObject, shape: tuple[int, ...]) -> None:
    writer = GraphWriter()
    source = writer.input(shape)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    x, expected = layout.plain(source), image
    for _ in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            axes = data.draw(st.permutations(range(expected.ndim)))
            x, expected = layout.permute(x, axes), expected.transpose(axes)
        else:
            new = data.draw(shapes(total=math.prod(shape)))
            x, expected = layout.reshape(writer, x, new), expected.reshape(new)
        assert x.shape == expected.shape
    found = run(_finish(writer, source, x), image)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=shapes())
def test_broadcast_in_any_stored_order(data: st.DataObject, shape: tuple[int, ...]) -> None:
    writer = GraphWriter()
    source = writer.input(shape)
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    axes = data.draw(st.permutations(range(len(shape))))
    x = layout.permute(layout.plain(source), axes)
    small = tuple(data.draw(st.sampled_from([1, n])) for n in x.shape)
    vector = np.random.default_rng(2).normal(size=small).astype(np.float32)
    value = layout.elementwise(writer, "ADD", x.value, writer.constant(vector.transpose(x.order)))
    found = run(_finish(writer, source, Laid(value, x.order)), image)
    np.testing.assert_allclose(found, image.transpose(axes) + vector, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 8, 24, 64])
def test_short_rows_are_widened(channels: int) -> None:
    writer = GraphWriter()
    source = writer.input((1, 16, 16, channels))
    mean = writer.reduce("MEAN", source, [1, 2], keep=True)
    weight = writer.constant(np.linspace(1, 2, channels, dtype=np.float32))
    y = layout.elementwise(writer, "MUL", layout.elementwise(writer, "SUB", source, mean), weight)
    image = np.random.default_rng(3).normal(size=(1, 16, 16, channels)).astype(np.float32)
    model = _finish(writer, source, layout.plain(y))
    expected = (image - image.mean((1, 2), keepdims=True)) * np.linspace(1, 2, channels, dtype=np.float32)
    np.testing.assert_allclose(run(model, image), expected, rtol=1e-5, atol=1e-6)
    widened = [shape for name, shape in operators(model) if name in ("SUB", "MUL") and len(shape) == 2]
    assert all(row >= 64 for _, row in widened)
    assert bool(widened) == (1 < channels < 64)


def _finish(writer: GraphWriter, source: Any, x: Laid) -> Any:
    value = layout.arrange(writer, x, range(len(x.order))).value
    if value == source:
        value = writer.add(value, writer.constant(np.float32(0)))
    return writer.finish({"in": source}, {"out": value})
