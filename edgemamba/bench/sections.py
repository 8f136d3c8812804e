"""What is measured: inference of the exported network, one wide Mamba layer, a training step."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgemamba.bench.baselines import chunked_doubling, sequential
from edgemamba.bench.ports import PortedMamba, port
from edgemamba.bench.timing import Ratio, interleave, ratio
from edgemamba.models import Exported, build
from edgemamba.presets import find_target
from edgemamba.ssm import Mamba, use_form
from edgemamba.stages.onnx_passes import clean
from edgemamba.stages.tflite_graph import write as write_tflite
from edgemamba.stages.to_onnx import to_onnx
from edgemamba.stages.to_tflite import convert, to_tflite
from edgemamba.train.losses import LOSSES

Contestants = dict[str, Callable[[], object]]
PORT, OWN = "eager, usual chunked port", "eager, our training form"
OWN_LAST = "eager, our training form, channels-last"
LOOP = "eager, sequential loop, one call a branch"
ORT, LITERT = "ONNX Runtime", "LiteRT"


class _Sigmoid(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.net(x))


def _document(times: dict[str, list[float]], ratios: list[Ratio], facts: dict[str, Any]) -> dict[str, Any]:
    medians = {name: round(1e3 * float(np.median(values)), 3) for name, values in times.items()}
    return {
        "rounds": len(next(iter(times.values()))),
        "cpu_ms_median": medians,
        "ratios": [found.document() for found in ratios],
        "facts": facts,
    }


def _ort(data: bytes, feed: np.ndarray[Any, Any]) -> Callable[[], object]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: feed}
    return lambda: session.run(None, feeds)


def _litert(path: Path, feed: np.ndarray[Any, Any]) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run() -> object:
        interpreter.set_tensor(into, feed)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    return run


def _eager(model: nn.Module, x: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return model(x)

    return run


def inference(rounds: int) -> dict[str, Any]:
    """UL-VM-UNet at 256x256, batch 1: exported graphs against PyTorch eager."""
    torch.manual_seed(0)
    model = build("ul-vm-unet").eval()
    channels_last = copy.deepcopy(model)
    nn.Module.to(channels_last, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(1, 3, 256, 256)
    target = find_target("cpu")
    with tempfile.TemporaryDirectory() as folder:
        onnx_path, tflite_path = Path(folder, "model.onnx"), Path(folder, "model.tflite")
        onnx_facts = to_onnx(model, (256, 256), onnx_path, opset=target.opset, ir_version=target.ir_version)
        tflite_facts = to_tflite(model, (256, 256), tflite_path)
        contestants: Contestants = {
            ORT: _ort(onnx_path.read_bytes(), x.numpy()),
            LITERT: _litert(tflite_path, x.numpy()),
            OWN: _eager(Exported(model, "segmentation"), x),
            OWN_LAST: _eager(Exported(channels_last, "segmentation"), x.contiguous(memory_format=torch.channels_last)),
            PORT: _eager(_Sigmoid(port(model, chunked_doubling, batched=True)), x),
            LOOP: _eager(_Sigmoid(port(model, sequential, batched=False)), x),
        }
        _same(contestants)
        times = interleave(contestants, rounds)
    bars = [
        *((slow, ORT, bar) for slow, bar in ((PORT, 3.0), (OWN, 2.0), (OWN_LAST, 2.0), (LOOP, 13.0))),
        *((slow, LITERT, bar) for slow, bar in ((PORT, 5.0), (OWN, 2.8), (OWN_LAST, 2.8), (LOOP, 20.0))),
    ]
    facts = {
        "onnx": {"nodes": onnx_facts["nodes"], "bytes": onnx_facts["bytes"], "node_bar": 1500, "byte_bar": 500_000},
        "tflite": {"operators": tflite_facts["operators"], "bytes": tflite_facts["bytes"]},
    }
    return _document(times, [ratio(times, *bar) for bar in bars], facts)


def wide(d_model: int, length: int, groups: int, rounds: int) -> dict[str, Any]:
    """One wide Mamba block, (groups, length, d_model)."""
    torch.manual_seed(0)
    block = Mamba(d_model).eval()
    x = torch.randn(groups, length, d_model)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        with use_form(block, "onnx"):
            data = _export_block(block, x)
        path = Path(folder, "block.tflite")
        with use_form(block, "litert"):
            write_tflite(convert(block, tuple(x.shape)), path)
        contestants: Contestants = {
            ORT: _ort(data, x.numpy()),
            LITERT: _litert(path, x.numpy()),
            OWN: _eager(block, x),
            PORT: _eager(PortedMamba(block, chunked_doubling), x),
            "eager, sequential loop": _eager(PortedMamba(block, sequential), x),
        }
        _same(contestants)
        times = interleave(contestants, rounds)
        facts = {"d_inner": block.d_inner, "length": length, "groups": groups, "tflite_bytes": path.stat().st_size}
    ratios = [ratio(times, PORT, name, 5.0) for name in (ORT, LITERT)]
    ratios += [ratio(times, "eager, sequential loop", name) for name in (ORT, LITERT)]
    return _document(times, ratios, {**facts, "onnx_bytes": len(data)})


def _export_block(block: Mamba, x: Tensor) -> bytes:
    import io
    import warnings

    import onnx

    buffer: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(block, (x,), buffer, dynamo=False, opset_version=20, do_constant_folding=False)
    cleaned: bytes = clean(onnx.load_from_string(buffer.getvalue())).SerializeToString()
    return cleaned


def training(rounds: int, batch: int = 8) -> dict[str, Any]:
    """One training step of UL-VM-UNet at 256x256: forward, loss, backward, fused AdamW."""
    torch.manual_seed(0)
    own = build("ul-vm-unet")
    ported = port(own, chunked_doubling, batched=True)
    x = torch.rand(batch, 3, 256, 256)
    target = (torch.rand(batch, 1, 256, 256) < 0.05).float()
    loss = LOSSES["bce+batch-dice"]

    def step(model: nn.Module) -> Callable[[], object]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def run() -> object:
            optimizer.zero_grad(set_to_none=True)
            found = loss(model(x), target)
            found.backward()
            optimizer.step()
            return found

        return run

    contestants: Contestants = {OWN: step(own), PORT: step(ported)}
    times = interleave(contestants, rounds, warmup=1)
    return _document(times, [ratio(times, PORT, OWN, 8.0)], {"batch": batch})


def _same(contestants: Contestants) -> None:
    """Refuse to time contestants that do not compute the same thing."""
    values = {name: _array(run()) for name, run in contestants.items()}
    reference = next(iter(values.values()))
    for name, value in values.items():
        worst = float(np.abs(value - reference).max() / np.abs(reference).max())
        if not worst < 1e-3:
            raise AssertionError(f"{name} differs by {worst:.1e}")


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, Tensor):
        return value.numpy()
    return np.asarray(value[0] if isinstance(value, list) else value)
