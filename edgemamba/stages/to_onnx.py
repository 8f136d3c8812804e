"""The export stage for ONNX Runtime and TensorRT: a trained network to one static graph of standard
operators."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemamba.errors import Unsupported, require
from edgemamba.files import write_bytes
from edgemamba.registry import OUTPUTS, Task

if TYPE_CHECKING:
    import onnx
    from torch import nn

# Loop, Scan and If run step by step in every runtime; the rest would not be static or not standard.
FORBIDDEN_OPERATORS = frozenset({"Loop", "Scan", "If", "SequenceConstruct", "Softplus", "NonZero", "Shape"})


def to_onnx(
    model: nn.Module,
    size: tuple[int, int],
    path: Path,
    *,
    opset: int,
    ir_version: int,
    negative_pads: bool = True,
    task: Task = "segmentation",
    channels: int = 3,
) -> dict[str, Any]:
    """Export ``model`` to ``path``: image (1, C, H, W) float32 in [0, 1] to what ``models.Exported`` gives.

    Args:
        model: gives logits; evaluation mode, float32.
        size: input height and width, pixels.
        opset: newest operator set the target loads.
        ir_version: newest file format the target loads.
        negative_pads: the target's runtime takes them (TensorRT does not).
        task: what becomes of the logits.
        channels: C.

    Returns:
        Facts of the graph (``onnx_graph.facts``).

    Raises:
        MissingDependency: onnx is not installed.
        Unsupported: the graph needs an operator the target must not get.
    """
    require("onnx", "onnx")
    from edgemamba.stages.onnx_graph import facts
    from edgemamba.stages.onnx_passes import clean

    graph = clean(_trace(model, (channels, *size), opset, task), negative_pads=negative_pads)
    graph.ir_version = min(graph.ir_version, ir_version)
    check_graph(graph, opset, ir_version)
    write_bytes(path, graph.SerializeToString(deterministic=True))
    return facts(graph)


def _trace(model: nn.Module, shape: tuple[int, int, int], opset: int, task: Task) -> onnx.ModelProto:
    from edgemamba.models import Exported
    from edgemamba.ssm import use_form

    exported = Exported(model, task).eval()
    with use_form(model, "litert" if task == "tensor" else "onnx"):
        return traced(exported, (1, *shape), opset, OUTPUTS[task], foreign=task == "tensor")


def traced(
    module: nn.Module, shape: Sequence[int], opset: int, output: str, *, foreign: bool = False
) -> onnx.ModelProto:
    """The exporter's own graph of ``module`` for one input of ``shape``.

    torch.onnx has two exporters. On UL-VM-UNet at 256x256 the TorchScript one takes a twentieth of the time
    of the default, gives the same operators, and writes module paths into the node names instead of stack
    traces. Networks of other projects branch on sizes and write in place, which it does not follow: they are
    captured first, and it is given the flat list of operators.

    Raises:
        InputError: a foreign network does not take this input.
        Unsupported: an operator has no counterpart.
    """
    import onnx
    import torch

    flat = None
    if foreign:
        from edgemamba.stages.capture import capture
        from edgemamba.stages.flat import Flat, settle

        module = flat = Flat(capture(module, shape)).eval()
    buffer: Any = io.BytesIO()
    # The exporter warns about its own age and about shapes that become constants, which is what we want.
    with _closed_stdout(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                (torch.zeros(*shape),),
                buffer,
                dynamo=False,
                opset_version=opset,
                # Our own pass folds, and keeps the parameters' names.
                do_constant_folding=False,
                input_names=["image"],
                output_names=[output],
            )
        except torch.onnx.OnnxExporterError as error:
            place = "the network" if flat is None else flat.place_of_operator(str(error))
            raise Unsupported(
                f"{place} cannot be exported to ONNX: {str(error).splitlines()[0]}",
                hint="write the layer with operations that have an ONNX counterpart",
            ) from None
    graph = onnx.load_from_string(buffer.getvalue())
    if flat is not None:
        settle(graph, flat.output_shape)
    return graph


@contextlib.contextmanager
def _closed_stdout() -> Iterator[None]:
    """Drop what native code writes to file descriptor 1: a failing export prints the whole graph there."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def check_graph(model: onnx.ModelProto, opset: int, ir_version: int) -> None:
    """Refuse a graph that breaks the rules every target relies on.

    Raises:
        Unsupported: a control-flow or custom operator, an opset or IR too new, a dynamic shape, an invalid
        graph.
    """
    import onnx

    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            raise Unsupported(
                f"the graph uses the operator domain {entry.domain!r}", hint="use standard operators only"
            )
        if entry.version > opset:
            raise Unsupported(f"the graph has opset {entry.version}, the target loads up to {opset}")
    if model.ir_version > ir_version:
        raise Unsupported(f"the graph has IR version {model.ir_version}, the target loads up to {ir_version}")
    forbidden = sorted({node.op_type for node in model.graph.node} & FORBIDDEN_OPERATORS)
    if forbidden:
        raise Unsupported(
            f"the graph holds {', '.join(forbidden)}", hint="write the layer with plain tensor operations"
        )
    for value in (*model.graph.input, *model.graph.output):
        if not all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim):
            raise Unsupported(f"{value.name} has no static shape")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Unsupported(f"the graph is not valid ONNX: {' '.join(str(error).split())[:300]}") from None
