"""Networks in the manner of public projects, from unmodified files: import, float64 reference, both formats."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor
from torch.overrides import TorchFunctionMode

from edgemamba.foreign.source import Request, open_module
from edgemamba.sources import ModuleSource
from edgemamba.ssm import use_form
from edgemamba.stages.onnx_groups import group_nodes
from edgemamba.stages.to_onnx import to_onnx
from edgemamba.stages.to_tflite import to_tflite

NETS = Path(__file__).parent / "nets"


@dataclasses.dataclass(frozen=True)
class Case:
    file: str
    name: str
    shape: tuple[int, int, int, int]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    exported: bool = True


SMALL = {"dims": [8, 16]}
CASES = {
    "vm-unet": Case("vm_unet.py", "VMUNet", (1, 3, 16, 24), {**SMALL, "d_state": 3}),
    "vmamba, oflex": Case("vmamba2/vmamba.py", "VSSM", (1, 3, 16, 24), {**SMALL, "forward_type": "v2"}),
    "vmamba, mamba": Case(
        "vmamba2/vmamba.py", "VSSM", (1, 3, 8, 16), {**SMALL, "forward_type": "v3", "d_state": 2}, False
    ),
    "vmamba, core": Case("vmamba2/vmamba.py", "VSSM", (1, 3, 8, 16), {**SMALL, "forward_type": "v4"}, False),
    "vim": Case("vim.py", "vim_tiny", (1, 3, 32, 32), {"embed_dim": 16, "d_state": 3}),
    "vim, layer norm": Case(
        "vim.py",
        "VisionMamba",
        (1, 3, 16, 16),
        {"img_size": 16, "depth": 1, "rms_norm": False, "fused_add_norm": False, "init_layer_scale": 0.5},
    ),
    "vim, one projection": Case("vim.py", "VisionMamba", (1, 3, 16, 16), {"img_size": 16, "bimamba_type": "v1"}, False),
    "u-mamba": Case("u_mamba.py", "UMambaEnc", (1, 3, 16, 24), {"deep_supervision": False, "d_state": 4}),
    "light m-unet": Case("light_m_unet.py", "LightMUNet", (1, 3, 8, 12)),
    "medmamba": Case("medmamba.py", "MedMamba", (1, 3, 16, 24), {"dims": [16, 32]}),
    "mambavision": Case("mamba_vision.py", "MambaVision", (1, 3, 22, 26)),
    "inner functions": Case("inner_fn.py", "Net", (1, 1, 8, 8)),
    "mamba 2": Case("mamba2.py", "Net", (1, 3, 20, 36)),
    "mamba 2, one chunk": Case("mamba2.py", "Net", (1, 3, 8, 12)),
}


def opened(case: Case, **more: Any) -> tuple[ModuleSource, list[str]]:
    return open_module(Request(NETS / case.file, case.name, case.kwargs, None, case.shape, **more))


class Wide(TorchFunctionMode):
    """What a network casts to float32 stays float64."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.float:
            return args[0]
        if function in (Tensor.to, Tensor.type) and torch.float32 in (*args[1:], *(kwargs or {}).values()):
            return args[0]
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def in_float64(network: torch.nn.Module) -> Iterator[None]:
    network.double()
    with use_form(network, "reference"), Wide():
        yield


def on_litert(path: Path, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(source["index"], image)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(result["index"]))


@pytest.mark.parametrize("name", CASES)
def test_a_published_network_reaches_both_formats(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    source, notes = opened(case)
    assert notes[0].startswith("edgemamba.compat provides") and "mamba" in notes[0] + name
    network = source.build()
    image = torch.rand(case.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(image).numpy()
        reference = source.build()
        with in_float64(reference):
            exact = reference(image.double())
    assert exact.dtype == torch.float64
    scale = float(exact.abs().max())
    np.testing.assert_allclose(expected, exact, rtol=0, atol=2e-6 * scale)
    if not case.exported:
        return
    size, channels = source.size, source.channels
    to_onnx(network, size, tmp_path / "a.onnx", opset=17, ir_version=8, task="tensor", channels=channels)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": image.numpy()})[0]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * scale)
    assert "scan" in set(group_nodes(onnx.load(tmp_path / "a.onnx")).values())

    facts = to_tflite(network, size, tmp_path / "a.tflite", task="tensor", channels=channels)
    assert not {"WHILE", "IF", "CUSTOM"} & set(facts["operator_counts"])
    found = on_litert(tmp_path / "a.tflite", image.numpy())
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=3e-6 * scale)


def test_networks_train(tmp_path: Path) -> None:
    """Gradients of a network with the raw kernels' backward, against those of its float64 form."""
    del tmp_path
    source, _ = opened(CASES["vmamba, oflex"])
    image = torch.rand(CASES["vmamba, oflex"].shape, generator=torch.Generator().manual_seed(0))
    found, exact = source.build(), source.build()
    found(image).square().sum().backward()
    with in_float64(exact):
        exact(image.double()).square().sum().backward()
    for (name, a), b in zip(found.named_parameters(), exact.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name
        np.testing.assert_allclose(a.grad, b.grad, rtol=1e-3, atol=2e-5 * float(b.grad.abs().max()), err_msg=name)


def test_one_of_several_outputs() -> None:
    case = Case("u_mamba.py", "UMambaEnc", (1, 3, 16, 16))
    source, notes = opened(case)
    assert "returns 2 tensors (full 1x2x16x16, aux.0 1x2x8x8): full is exported" in notes[-1]
    low, told = opened(case, output="aux.0")
    assert len(told) == len(notes) - 1
    image = torch.rand(case.shape)
    assert source.build()(image).shape == (1, 2, 16, 16) and low.build()(image).shape == (1, 2, 8, 8)
    assert source.fingerprint != low.fingerprint


def test_a_long_scan_of_four_directions_stays_small(tmp_path: Path) -> None:
    """56 x 56 tokens in four directions at once: unrolled by chunk, not by token."""
    case = Case("vmamba2/vmamba.py", "VSSM", (1, 3, 224, 224), {"depths": [1], "dims": [16]})
    network = opened(case)[0].build()
    facts = to_onnx(network, (224, 224), tmp_path / "a.onnx", opset=17, ir_version=8, task="tensor")
    assert facts["nodes"] < 500
    image = np.random.default_rng(0).random(case.shape, np.float32)
    found = onnxruntime.InferenceSession(tmp_path / "a.onnx").run(None, {"image": image})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, network(torch.from_numpy(image)), rtol=0, atol=2e-6)
