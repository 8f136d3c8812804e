"""Sessions give the probability whatever the runtime; the golden check tells right from wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from board import bundles
from board.conftest import Copy
from edgemamba.board import runner


def random_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 3, *bundles.SIZE), np.float32)


@pytest.mark.parametrize(
    ("name", "runtime", "tolerance"),
    [
        ("onnx", "onnxruntime", 2e-6),
        ("tflite", "litert", 2e-6),
        ("jetson", "onnxruntime", 2e-6),
        ("int8", "litert", 0.05),
    ],
)
def test_sessions_compute_the_network(copy: Copy, name: str, runtime: str, tolerance: float) -> None:
    folder = copy(name)
    session = runner.open_session(folder, runner.load_manifest(folder))
    for seed in range(3):
        x = random_image(seed)
        y = session.run(x)
        assert y.shape == (1, 1, *bundles.SIZE)
        assert y.dtype == np.float32
        assert np.abs(y[:, 0] - bundles.reference(x)).max() <= tolerance
    assert session.runtime == runtime
    assert session.version[0].isdigit() or "ai-edge-litert" in session.version


def test_a_tensorrt_bundle_falls_back_and_says_so(copy: Copy) -> None:
    folder = copy("jetson")
    manifest = runner.load_manifest(folder)
    session = runner.open_session(folder, manifest)
    assert manifest["runtime"] == "tensorrt"
    assert "tensorrt" in session.note
    assert "ONNX Runtime" in session.note
    assert runner.open_session(folder, manifest, "onnxruntime").note == ""


@pytest.mark.parametrize(
    ("name", "runtime", "code", "words"),
    [
        ("jetson", "tensorrt", 4, "not usable here"),
        ("onnx", "litert", 5, "litert runs tflite models, this Bundle holds onnx"),
        ("tflite", "onnxruntime", 5, "onnxruntime runs onnx models, this Bundle holds tflite"),
        ("onnx", "openvino", 2, "no runtime is named 'openvino'"),
    ],
)
def test_an_explicit_runtime_is_that_one_or_an_error(
    copy: Copy, name: str, runtime: str, code: int, words: str
) -> None:
    folder = copy(name)
    with pytest.raises(runner.BundleError) as caught:
        runner.open_session(folder, runner.load_manifest(folder), runtime)
    assert caught.value.exit_code == code
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_at_least_one(copy: Copy, threads: int) -> None:
    folder = copy("onnx")
    with pytest.raises(runner.BundleError, match="at least 1"):
        runner.open_session(folder, runner.load_manifest(folder), threads=threads)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_two_threads_give_the_same(copy: Copy, name: str) -> None:
    folder = copy(name)
    manifest, x = runner.load_manifest(folder), random_image(5)
    one = runner.open_session(folder, manifest).run(x)
    assert np.abs(runner.open_session(folder, manifest, threads=2).run(x) - one).max() <= 1e-6


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_a_damaged_model_is_refused_on_one_line(copy: Copy, name: str) -> None:
    folder = copy(name)
    manifest = runner.load_manifest(folder)
    model = folder / manifest["artifact"]
    for content in (b"", b"not a model", model.read_bytes()[:200]):
        model.write_bytes(content)
        with pytest.raises(runner.BundleError) as caught:
            runner.open_session(folder, manifest)
        assert caught.value.exit_code == 5
        assert "\n" not in caught.value.message
    model.unlink()
    with pytest.raises(runner.BundleError, match="is missing"):
        runner.open_session(folder, manifest)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_a_model_that_is_not_the_manifests_is_refused(copy: Copy, name: str) -> None:
    folder = copy(name)
    manifest = runner.load_manifest(folder)
    for key, value in (("layout", "NHWC"), ("name", "other")):
        changed = json.loads(json.dumps(manifest))
        changed["inputs"][0][key] = value
        if (name, key) == ("tflite", "name"):
            # Converters rename tensors; the only one is taken.
            assert runner.check_golden(folder, changed, runner.open_session(folder, changed))["ok"]
            continue
        with pytest.raises(runner.BundleError, match="the manifest says") as caught:
            runner.open_session(folder, changed)
        assert caught.value.exit_code == 5
    manifest["preprocess"]["size"] = [32, 32]
    with pytest.raises(runner.BundleError, match="the manifest says"):
        runner.open_session(folder, manifest)


def test_another_shape_or_type_is_refused(copy: Copy) -> None:
    folder = copy("onnx")
    session = runner.open_session(folder, runner.load_manifest(folder))
    x = random_image(0)
    for wrong in (x[:, :, :32], x[0], x.astype(np.float64), np.repeat(x, 2, axis=0)):
        with pytest.raises(runner.BundleError, match="the model takes float32"):
            session.run(wrong)


@pytest.mark.parametrize("name", ["onnx", "tflite", "int8"])
def test_golden_is_the_reference(copy: Copy, name: str) -> None:
    folder = copy(name)
    manifest = runner.load_manifest(folder)
    golden = runner.load_golden(folder, manifest)
    scaled = golden["images"].transpose(0, 3, 1, 2).astype(np.float32) / 255.0
    expected, stride = bundles.reference(scaled), int(golden["stride"])
    assert np.abs(golden["probability"] - expected[:, ::stride, ::stride]).max() < 1e-6
    certain = np.abs(expected - 0.5) > 1e-5
    assert np.array_equal(golden["mask"][certain], (expected >= 0.5)[certain])
    assert golden["mask"].any()
    assert not golden["mask"].all()
    found = runner.check_golden(folder, manifest, runner.open_session(folder, manifest))
    assert found["ok"] is True
    assert found["mean_abs_diff"] <= found["mean_tolerance"]
    assert found["max_abs_diff"] >= found["mean_abs_diff"]


class Given(runner.Session):
    """A session with a known answer."""

    def __init__(self, manifest: dict[str, Any], answer: Any) -> None:
        super().__init__(manifest, "0")
        self._answer = answer

    def _run(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._answer(x), np.float32)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: np.zeros((1, 1, *bundles.SIZE)),
        lambda _: np.full((1, 1, *bundles.SIZE), np.nan),
        lambda x: 1.0 - bundles.reference(x)[:, None],
        lambda x: np.roll(bundles.reference(x)[:, None], 1, axis=3),
    ],
)
def test_golden_check_finds_wrong_answers(copy: Copy, answer: Any) -> None:
    folder = copy("onnx")
    manifest = runner.load_manifest(folder)
    found = runner.check_golden(folder, manifest, Given(manifest, answer))
    assert found["ok"] is False
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_golden_check_of_the_exact_answer(copy: Copy) -> None:
    folder = copy("onnx")
    manifest = runner.load_manifest(folder)
    found = runner.check_golden(folder, manifest, Given(manifest, lambda x: bundles.reference(x)[:, None]))
    assert found == {**found, "ok": True, "mean_abs_diff": 0.0, "max_abs_diff": 0.0, "agreement": 1.0}


def test_a_damaged_golden_file_is_refused(copy: Copy) -> None:
    folder = copy("onnx")
    manifest = runner.load_manifest(folder)
    path = folder / "golden.npz"
    whole = path.read_bytes()
    for content in (b"", b"junk", whole[: len(whole) // 2], b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(runner.BundleError, match="is damaged"):
            runner.load_golden(folder, manifest)
    np.savez(path, images=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(runner.BundleError, match="is damaged"):
        runner.load_golden(folder, manifest)
    path.unlink()
    with pytest.raises(runner.BundleError, match="is missing"):
        runner.load_golden(folder, manifest)


def test_golden_of_another_size_is_refused(copy: Copy) -> None:
    folder = copy("onnx")
    manifest = runner.load_manifest(folder)
    manifest["preprocess"]["size"] = [32, 128]
    with pytest.raises(runner.BundleError, match="the model takes"):
        runner.load_golden(folder, manifest)


def test_pickled_golden_is_never_loaded(copy: Copy) -> None:
    folder = copy("onnx")
    manifest = runner.load_manifest(folder)
    np.savez(
        folder / "golden.npz",
        images=np.array([object()]),
        probability=np.zeros(1),
        mask=np.zeros((1, 1), np.uint8),
        stride=4,
    )
    with pytest.raises(runner.BundleError, match="is damaged"):
        runner.load_golden(folder, manifest)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "has schema 'list'"),
        (b'{"schema": "edgemamba.bundle/3"}', "has schema 'edgemamba.bundle/3'"),
        (b'{"schema": "edgemamba.bundle/1"}', "lacks 'name'"),
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(runner.BundleError, match=words):
        runner.load_manifest(tmp_path)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


JUNK = st.sampled_from([None, True, 0, -1, 1e308, "", "../x", [], {}, [1, 2], "9" * 50, 2**70])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_manifest_ends_in_an_answer_or_an_error_for_people(
    originals: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    document = json.loads((originals["onnx"] / "manifest.json").read_text())
    path = data.draw(st.sampled_from(_places(document)), label="place")
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if data.draw(st.booleans(), label="remove"):
        del inner[path[-1]]
    else:
        inner[path[-1]] = data.draw(JUNK, label="value")
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    try:
        manifest = runner.load_manifest(tmp_path)
    except runner.BundleError as error:
        assert "\n" not in error.message
        return
    for step in (
        lambda: runner.check_files(originals["onnx"], manifest),
        lambda: runner.check_golden(originals["onnx"], manifest, runner.open_session(originals["onnx"], manifest)),
    ):
        try:
            step()
        except runner.BundleError as error:
            assert "\n" not in error.message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_golden_file_ends_in_arrays_or_an_error_for_people(
    originals: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    manifest = runner.load_manifest(originals["onnx"])
    content = bytearray((originals["onnx"] / "golden.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "golden.npz").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        runner.load_golden(tmp_path, manifest)
    except runner.BundleError as error:
        assert "\n" not in error.message


def test_a_golden_bomb_is_not_unpacked(copy: Copy) -> None:
    folder = copy("onnx")
    np.savez_compressed(folder / "golden.npz", images=np.zeros((300, 1024, 1024), np.uint8))
    assert (folder / "golden.npz").stat().st_size < 1_000_000
    with pytest.raises(runner.BundleError, match="at most 268435456 are read"):
        runner.load_golden(folder, runner.load_manifest(folder))


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(runner.BundleError, match="is not a Bundle"):
            runner.load_manifest(folder)
    (tmp_path / "manifest.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(runner.BundleError, match="not a manifest"):
        runner.load_manifest(tmp_path)


def test_channel_last_artifacts_are_turned(tmp_path: Path) -> None:
    exported = bundles.export_tflite(tmp_path, channel_last=True)
    manifest = bundles.build(tmp_path / "bundle", exported, "raspberry-pi-5")
    assert [manifest.inputs[0].shape, manifest.inputs[0].layout] == [[1, *bundles.SIZE, 3], "NHWC"]
    assert [manifest.outputs[0].shape, manifest.outputs[0].layout] == [[1, *bundles.SIZE, 1], "NHWC"]
    session = runner.open_session(tmp_path / "bundle", runner.load_manifest(tmp_path / "bundle"))
    x = random_image(3)
    assert np.abs(session.run(x)[:, 0] - bundles.reference(x)).max() <= 2e-6


def detail(dtype: Any, scale: float, zero: int) -> dict[str, Any]:
    parameters = {"scales": np.array([scale], np.float32), "zero_points": np.array([zero])}
    return {"name": "x", "dtype": dtype, "quantization_parameters": parameters}


@given(
    st.sampled_from([np.int8, np.uint8, np.int16]),
    st.floats(1e-4, 1.0),
    st.integers(-128, 127),
    st.lists(st.floats(-2.0, 2.0, width=32), min_size=1, max_size=20),
)
def test_integer_tensors(dtype: Any, scale: float, zero: int, values: list[float]) -> None:
    """Every value comes back within half a step, or at the type's limit."""
    limits = np.iinfo(dtype)
    zero = max(zero, limits.min)
    tensor = detail(dtype, scale, zero)
    x = np.array(values, np.float32)
    q = runner.quantize(x, tensor)
    assert q.dtype == dtype
    back = runner.dequantize(q, tensor)
    step = float(np.float32(scale))
    low, high = (limits.min - zero) * step, (limits.max - zero) * step
    held = np.clip(x.astype(np.float64), low, high)
    assert np.abs(back - held).max() <= step * 0.5 * (1 + 1e-3) + 1e-6


def test_per_channel_inputs_are_refused() -> None:
    tensor = detail(np.int8, 0.1, 0)
    tensor["quantization_parameters"]["scales"] = np.array([0.1, 0.2], np.float32)
    with pytest.raises(runner.BundleError, match="without one scale"):
        runner.quantize(np.zeros(3, np.float32), tensor)
