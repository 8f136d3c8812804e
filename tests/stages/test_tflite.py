"""The exported network as a board sees it: result, interface, size of the graph, and what may not be in the file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from tflite_run import names, run

from edgemamba.errors import InputError, Unsupported
from edgemamba.models import Exported, build
from edgemamba.registry import MODELS
from edgemamba.sources import TrainedSource
from edgemamba.stages import tflite_graph
from edgemamba.stages.calibration import ImageSet
from edgemamba.stages.to_tflite import to_tflite

SIZE = (64, 64)
# An upper limit on operators at 64x64 (1,408 and 34 when written): a graph that grows is slower and bigger.
LIMITS = {"ul-vm-unet": 1600, "unet": 40}


@pytest.fixture(scope="session")
def exported(source: TrainedSource, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("tflite") / "model.tflite"
    return path, to_tflite(source.build(), source.size, path)


def test_parity_with_pytorch(exported: tuple[Path, dict[str, Any]], source: TrainedSource, images: ImageSet) -> None:
    predict = source.reference()
    expected = np.concatenate([predict(image) for image in images])
    found = np.stack([run(exported[0], image)[0, 0] for image in images])
    assert expected.max() > 0.5 > expected.min()
    assert np.abs(found - expected).mean() <= 1e-6
    assert ((found >= 0.5) == (expected >= 0.5)).mean() >= 0.99999


def test_interface(exported: tuple[Path, dict[str, Any]]) -> None:
    interpreter = Interpreter(model_path=str(exported[0]))
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (source["name"], list(source["shape"]), source["dtype"]) == ("image", [1, 3, 64, 64], np.float32)
    assert (result["name"], list(result["shape"]), result["dtype"]) == ("probability", [1, 1, 64, 64], np.float32)
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    by_name = interpreter.get_signature_runner()(image=image)["probability"]
    np.testing.assert_array_equal(by_name, run(exported[0], image))


def test_builtin_operators_of_early_versions_only(exported: tuple[Path, dict[str, Any]]) -> None:
    model = tflite_graph.read(exported[0])
    assert not {"CUSTOM", "UNKNOWN", "WHILE", "IF"} & set(names(model))
    assert not [name for name in names(model) if name.startswith(("STABLEHLO", "Flex"))]
    assert all(code.version <= 5 and code.customCode is None for code in model.operatorCodes)
    assert max(len(tensor.shape) for tensor in model.subgraphs[0].tensors) <= 4


def test_nothing_of_the_build_machine(exported: tuple[Path, dict[str, Any]]) -> None:
    data = exported[0].read_bytes()
    for text in [str(Path.cwd()), str(Path.home()), "site-packages", "/tmp", ".py", "torch", "edgemamba"]:
        assert text.encode() not in data, text
    assert tflite_graph.read(exported[0]).metadata is None


def test_layers_are_named_and_nothing_else(exported: tuple[Path, dict[str, Any]], source: TrainedSource) -> None:
    graph = tflite_graph.read(exported[0]).subgraphs[0]
    named = {tflite_graph.tensor_name(tensor) for tensor in graph.tensors} - {""}
    assert {"image", "probability", "encoder4.0.mamba.in_proj", "decoder3.0.proj", "final"} <= named
    assert len(named) < 80
    paths = [name for name, _ in source.build().named_modules()]
    assert all(any(name.startswith(path) for path in paths if path) for name in named - {"image", "probability"})


def test_facts_are_what_the_runtime_sees(exported: tuple[Path, dict[str, Any]]) -> None:
    path, facts = exported
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    seen = Counter(details["op_name"] for details in interpreter._get_ops_details())
    assert seen.pop("DELEGATE") == facts["delegation"]["partitions"]
    assert dict(seen) == facts["operator_counts"]
    assert facts["operators"] == sum(seen.values()) < LIMITS["ul-vm-unet"]
    assert facts["bytes"] == path.stat().st_size < 500_000
    parameters = 4 * MODELS["ul-vm-unet"].parameters
    assert parameters < facts["weight_bytes"] < 1.2 * parameters
    assert facts["quantized_operators"] == {}


def test_the_same_network_gives_the_same_bytes(
    exported: tuple[Path, dict[str, Any]], source: TrainedSource, tmp_path: Path
) -> None:
    to_tflite(source.build(), source.size, tmp_path / "again.tflite")
    assert (tmp_path / "again.tflite").read_bytes() == exported[0].read_bytes()


@pytest.mark.parametrize("name", ["ul-vm-unet-v3", "ul-vm-unet-v6", "unet"])
def test_other_networks(name: str, tmp_path: Path) -> None:
    """Eight branches at another width, pyramid pooling beside step-by-step scans, and the baseline."""
    torch.manual_seed(0)
    model = build(name).eval()
    size = (64, 96)
    facts = to_tflite(model, size, tmp_path / "model.tflite")
    image = np.random.default_rng(0).random((1, 3, *size), np.float32)
    with torch.no_grad():
        expected = Exported(model, "segmentation")(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(run(tmp_path / "model.tflite", image), expected, atol=2e-5)
    if name == "unet":
        assert facts["operators"] <= LIMITS["unet"]
        assert facts["delegation"] == {"partitions": 1, "left_out": {}}


def test_size_the_network_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="ul-vm-unet cannot take 60x64"):
        to_tflite(build("ul-vm-unet"), (60, 64), tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "cannot read"),
        (b"\x08\x00\x00\x00ONNX" + b"\0" * 50, "is not a TFLite file"),
        (b"\xff\xff\0\0TFL3", "is damaged"),
    ],
)
def test_files_that_are_no_graph(data: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        tflite_graph.read(path)


def test_a_truncated_file_is_damaged(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(exported[0].read_bytes()[:4000])
    with pytest.raises(InputError, match="is damaged"):
        tflite_graph.read(path)
