"""Scales, labels, masks and the Pareto front against what they must be."""

from __future__ import annotations

import base64
import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from profiling.synthetic import report

from edgemamba.profiling.pictures import THUMBNAIL, decode_runs, encode_runs, thumbnail
from edgemamba.report.charts_quality import pareto_front
from edgemamba.report.figure import labels, significant
from edgemamba.report.svg import Canvas, Scale, spread, tick_text


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_runs_are_exact(mask):
    assert (decode_runs(encode_runs(mask), *mask.shape) == mask).all()


@pytest.mark.parametrize("runs", [[0], [-1, 2], [3, 0], [3, 2]])
def test_runs_outside_the_picture_are_refused(runs):
    with pytest.raises(ValueError, match="run"):
        decode_runs(runs, 2, 2)


def test_a_large_picture_becomes_a_thumbnail():
    image = np.zeros((600, 300, 3), np.uint8)
    mask = np.zeros((600, 300), np.uint8)
    mask[300:] = 1
    webp, (small,) = thumbnail(image, [mask])
    assert small.shape == (THUMBNAIL, THUMBNAIL // 2)
    assert small.mean() == pytest.approx(0.5)
    with Image.open(io.BytesIO(base64.b64decode(webp))) as picture:
        assert picture.size == (THUMBNAIL // 2, THUMBNAIL)


@given(st.floats(1e-3, 1e5), st.floats(1.0001, 1e4), st.booleans(), st.integers(2, 8))
def test_ticks_are_few_and_inside(low, factor, log, count):
    scale = Scale(low, low * factor, 40, 440, log)
    ticks = scale.ticks(count)
    assert 1 <= len(ticks) <= 3 * count + 1
    assert all(low * (1 - 1e-6) <= tick <= low * factor * (1 + 1e-6) for tick in ticks)
    places = [scale(tick) for tick in ticks]
    assert places == sorted(places)
    assert all(40 <= place <= 440 for place in places)
    texts = [tick_text(tick, ticks) for tick in ticks]
    if low * (factor - 1) > 1e-3:
        assert len(set(texts)) == len(texts)


def test_a_scale_keeps_values_inside():
    scale = Scale(1, 100, 0, 200, log=True)
    assert scale(10) == pytest.approx(100)
    assert scale(0.1) == 0
    assert scale(1e6) == 200


def test_a_spread_is_never_empty():
    low, high = spread([3.0, 3.0])
    assert low < 3 < high
    low, high = spread([1.0, 2.0], minimum=4)
    assert high - low >= 4


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (9.8, "9.80"), (123.456, "123"), (1234.5, "1,230"), (0.01234, "0.0123"), (99.96, "100")],
)
def test_three_significant_digits(value, text):
    assert significant(value) == text


def test_labels_name_what_differs():
    assert labels([report()]) == ["ul-vm-unet fp32"]
    assert labels([report(), report(precision="int8")]) == ["fp32", "int8"]
    mixed = [report(), report(target="jetson-orin-nano"), report(model="unet")]
    assert labels(mixed) == ["ul-vm-unet cpu", "ul-vm-unet jetson-orin-nano", "unet cpu"]
    assert labels([report(), report()]) == ["ul-vm-unet fp32 (1)", "ul-vm-unet fp32 (2)"]
    assert labels([report(), report(format="tflite")]) == ["onnx", "tflite"]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=8))
def test_the_front_is_what_nothing_beats(points):
    front = set(pareto_front(points))
    assert front
    for i, j in itertools.product(range(len(points)), repeat=2):
        better = points[j][0] <= points[i][0] and points[j][1] >= points[i][1] and points[i] != points[j]
        if better:
            assert i not in front
    for i in set(range(len(points))) - front:
        assert any(points[j][0] <= points[i][0] and points[j][1] >= points[i][1] for j in front)


def test_text_in_a_drawing_is_escaped():
    canvas = Canvas(10, title="<b>", description="a & b")
    canvas.text(1, 2, "<script>")
    text = canvas.render()
    assert "<script>" not in text
    assert "&lt;b&gt;" in text
    assert "a &amp; b" in text
