"""The engine builder with NVIDIA's own parser and compiler: TensorRT-RTX installs and compiles without a GPU.

It shares the Python API and the ONNX parser with the TensorRT of a Jetson, not its kernels; nothing runs.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from board import bundles
from edgemamba.board import build_engine, bundle_files
from edgemamba.board.build_engine import Options

MODULE = "tensorrt_rtx_bindings"
GPU = {"name": "none", "capability": "8.6"}
SM86 = Options(compute_capability="SM86")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.export_onnx(tmp_path_factory.mktemp("engine")).path


def graph(path: Path, nodes: list[Any], *, opsets: dict[str, int], **constants: np.ndarray) -> Path:
    """An ONNX file with input x and output y, float32 (1, 3, 8, 8)."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy"]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], weights),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=10,
    )
    onnx.save(proto, path)
    return path


def test_the_parser_takes_the_graph(model: Path) -> None:
    facts = build_engine.check_graph(model, MODULE)
    assert facts["layers"] > 3
    names = [one.name for one in (*onnx.load(model).graph.input, *onnx.load(model).graph.output)]
    assert facts["tensors"] == {names[0]: [1, 3, 64, 64, "FLOAT"], names[1]: [1, 1, 64, 64, "FLOAT"]}
    assert facts["version"][0].isdigit()


def test_the_real_network_parses_and_compiles(tmp_path: Path) -> None:
    path = bundles.export_network(tmp_path, "ul-vm-unet")[0].path
    facts = build_engine.check_graph(path, MODULE)
    assert facts["tensors"] == {"image": [1, 3, 64, 64, "FLOAT"], "probability": [1, 1, 64, 64, "FLOAT"]}
    engine, _ = build_engine.ensure_engine(path, SM86, tmp_path, module=MODULE, gpu=GPU)
    assert len(engine) > path.stat().st_size


def test_every_refusal_is_listed_with_its_node(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Strange", ["x"], ["a"], name="first", domain="mine"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("Stranger", ["b"], ["y"], name="second", domain="mine"),
    ]
    with pytest.raises(bundle_files.BundleError) as caught:
        build_engine.check_graph(graph(tmp_path / "odd.onnx", nodes, opsets={"": 17, "mine": 1}), MODULE)
    assert caught.value.exit_code == 5
    assert "node first (Strange): " in caught.value.message
    assert "node second (Stranger): " in caught.value.message
    assert "\n" not in caught.value.message


def test_asymmetric_activations_are_refused(tmp_path: Path) -> None:
    """The Q/DQ form that ONNX Runtime's quantizer gives by default."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="dequantize"),
    ]
    scale, zero = np.array(0.05, np.float32), np.array(3, np.int8)
    path = graph(tmp_path / "q.onnx", nodes, opsets={"": 17}, scale=scale, zero=zero)
    with pytest.raises(bundle_files.BundleError, match="quantize"):
        build_engine.check_graph(path, MODULE)
    path = graph(tmp_path / "q.onnx", nodes, opsets={"": 17}, scale=scale, zero=np.array(0, np.int8))
    assert build_engine.check_graph(path, MODULE)["tensors"]["y"] == [1, 3, 8, 8, "FLOAT"]


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_file_that_is_no_graph(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(content)
    with pytest.raises(bundle_files.BundleError) as caught:
        build_engine.check_graph(path, MODULE)
    assert caught.value.exit_code == 5
    assert "junk.onnx" in caught.value.message


def test_without_tensorrt_the_hint_says_how(model: Path) -> None:
    with pytest.raises(bundle_files.BundleError) as caught:
        build_engine.check_graph(model)
    assert caught.value.exit_code == 4
    assert "python3-libnvinfer" in caught.value.hint


def test_without_a_gpu_it_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(bundle_files.BundleError) as caught:
        build_engine.ensure_engine(model, SM86, tmp_path, module=MODULE)
    assert caught.value.exit_code in (4, 9)
    assert "cuda" in caught.value.message.lower()
    assert list(tmp_path.iterdir()) == []


def test_build_keep_and_take_again(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cache" / "engines"
    engine, record = build_engine.ensure_engine(model, SM86, folder, module=MODULE, gpu=GPU)
    assert len(engine) > 10_000
    assert record["cached"] is False
    assert Path(record["path"]).read_bytes() == engine
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "minutes, once" in capsys.readouterr().err
    kept, again = build_engine.ensure_engine(model, SM86, folder, module=MODULE, gpu=GPU)
    assert kept == engine
    assert again["cached"] is True
    assert again["identity"]["graph_sha256"] == bundle_files.hash_file(model)
    assert capsys.readouterr().err == ""
    assert sorted(path.suffix for path in folder.iterdir()) == [".engine", ".json"]
    _, rebuilt = build_engine.ensure_engine(model, SM86, folder, module=MODULE, gpu=GPU, rebuild=True)
    assert rebuilt["cached"] is False


def test_another_graph_gpu_or_option_is_another_engine(model: Path, tmp_path: Path) -> None:
    other_model = bundles.export_onnx(tmp_path, flip=True).path
    folder = tmp_path / "engines"
    cases: list[tuple[Path, Options, dict[str, str]]] = [
        (model, SM86, GPU),
        (other_model, SM86, GPU),
        (model, dataclasses.replace(SM86, tf32=True), GPU),
        (model, dataclasses.replace(SM86, optimization_level=1), GPU),
        (model, dataclasses.replace(SM86, compute_capability="SM89"), {**GPU, "capability": "8.9"}),
    ]
    paths = set()
    for graph_path, options, gpu in cases:
        _, record = build_engine.ensure_engine(graph_path, options, folder, module=MODULE, gpu=gpu)
        assert record["cached"] is False
        paths.add(record["path"])
    assert len(paths) == len(cases)


@pytest.mark.parametrize("damage", ["engine", "record", "identity", "missing"])
def test_a_damaged_engine_is_built_again(model: Path, tmp_path: Path, damage: str) -> None:
    engine, record = build_engine.ensure_engine(model, SM86, tmp_path, module=MODULE, gpu=GPU)
    path = Path(record["path"])
    note = path.with_suffix(".json")
    if damage == "engine":
        path.write_bytes(engine[:-1] + b"\0\0")
    elif damage == "record":
        note.write_text("{")
    elif damage == "identity":
        document = json.loads(note.read_text())
        document["identity"]["tensorrt"] = "tensorrt 1.0"
        note.write_text(json.dumps(document))
    else:
        path.unlink()
    _, again = build_engine.ensure_engine(model, SM86, tmp_path, module=MODULE, gpu=GPU)
    assert again["cached"] is False
    assert bundle_files.hash_file(path) == json.loads(note.read_text())["sha256"] == again["sha256"]


def test_a_folder_of_someone_else_is_refused(model: Path, tmp_path: Path) -> None:
    if os.getuid() == 0:
        os.chown(tmp_path, 12345, 12345)
        folder = tmp_path
    else:
        folder = Path("/tmp")
    with pytest.raises(bundle_files.BundleError, match="belongs to another user"):
        build_engine.ensure_engine(model, SM86, folder, module=MODULE, gpu=GPU)


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMAMBA_CACHE", "/somewhere")
    assert build_engine.cache_folder() == Path("/somewhere/engines")
    monkeypatch.delenv("EDGEMAMBA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert build_engine.cache_folder() == Path("/xdg/edgemamba/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert build_engine.cache_folder() == Path.home() / ".cache/edgemamba/engines"


def test_the_script_in_a_bundle(model: Path, tmp_path: Path) -> None:
    bundles.build(tmp_path / "bundle", bundles.Exported(model, "onnx"), "jetson")
    site = bundles.board_site("numpy\npillow\n", tmp_path / "site")
    work = tmp_path / "work"
    work.mkdir()
    for arguments in (["--check"], []):
        done = bundles.on_board(tmp_path / "bundle", site, "build_engine.py", *arguments, cwd=work)
        assert done.returncode == 4
        assert "tensorrt is not usable here" in done.stderr
        assert "Traceback" not in done.stderr
    (site / "tensorrt.py").write_text(f"from {MODULE} import *\nfrom {MODULE} import __version__\n")
    for name in (MODULE, "tensorrt_rtx_libs"):
        (site / name).symlink_to(Path(np.__file__).parents[1] / name)
    done = bundles.on_board(tmp_path / "bundle", site, "build_engine.py", "--check", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "accepts model.onnx" in done.stdout
    done = bundles.on_board(tmp_path / "bundle", site, "build_engine.py", cwd=work)
    assert done.returncode in (4, 9)
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    done = bundles.on_board(tmp_path / "bundle", site, "build_engine.py", "--optimization-level", "9", cwd=work)
    assert done.returncode == 2


def test_names_of_the_session_exist() -> None:
    """What trt_session.py calls on objects that cannot be made without a GPU."""
    import tensorrt_rtx_bindings as trt

    used = {
        trt.Runtime: ["deserialize_cuda_engine"],
        trt.ICudaEngine: [
            "create_execution_context",
            "num_io_tensors",
            "get_tensor_name",
            "get_tensor_mode",
            "get_tensor_shape",
            "get_tensor_dtype",
        ],
        trt.IExecutionContext: ["set_tensor_address", "execute_async_v3"],
        trt.TensorIOMode: ["INPUT"],
        trt.IBuilderConfig: ["create_timing_cache", "set_timing_cache", "get_timing_cache"],
        trt.ITimingCache: ["serialize"],
    }
    for owner, names in used.items():
        for name in names:
            assert hasattr(owner, name), (owner, name)
    assert trt.nptype(trt.DataType.FLOAT) is np.float32
    session = (Path(build_engine.__file__).parent / "trt_session.py").read_text()
    for name in [name for owner in list(used)[:4] for name in used[owner]]:
        assert name in session
