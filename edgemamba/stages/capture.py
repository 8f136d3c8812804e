"""Any network as a flat list of a few operators: how networks of other projects reach both graph formats.

torch.export follows the forward pass with every size a number; what is written in place becomes values, contexts
(autocast, no_grad) and custom autograd functions disappear. Operators that ``KEPT`` does not name are taken apart into
those of torch's core set.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node

from edgemamba.errors import EdgemambaError, InputError, Unsupported
from edgemamba.models.located import located, place_name, summary
from edgemamba.stages.attention import take_apart

aten = torch.ops.aten

# Operators with a good counterpart in both formats: both ends know them, and taken apart they would be slower.
KEPT = (
    aten.linear.default,
    aten.matmul.default,
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv_transpose2d.input,
    aten.batch_norm.default,
    aten.layer_norm.default,
    aten.group_norm.default,
    aten.instance_norm.default,
    aten.silu.default,
    aten.softplus.default,
    aten.gelu.default,
    aten.hardswish.default,
    aten.leaky_relu.default,
    aten.prelu.default,
    aten.softmax.int,
    aten.max_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_bicubic2d.vec,
    aten.pixel_shuffle.default,
    aten.roll.default,
    aten.select_scatter.default,
    aten.rsub.Scalar,
)
# Tensors made in the shape of another one, and what they hold.
_FILLED: dict[Any, float] = {
    aten.full_like.default: 0,
    aten.zeros_like.default: 0,
    aten.ones_like.default: 1,
    aten.empty_like.default: 0,
}


def capture(module: nn.Module, shape: Sequence[int]) -> ExportedProgram:
    """The forward pass of ``module`` for one float32 input of ``shape``.

    Raises:
        InputError: the network does not take this input; its own message, and where in it.
        Unsupported: torch.export cannot follow it; what it stumbles on, and where.
    """
    example = torch.zeros(*shape)
    with torch.no_grad(), warnings.catch_warnings():
        # torch warns about itself here, and old code about its age.
        warnings.simplefilter("ignore")
        # A forward pass may count its calls; the graph starts where the network was.
        state = {name: buffer.clone() for name, buffer in module.named_buffers()}
        with located(module, _refused):
            module(example)
        for name, buffer in module.named_buffers():
            buffer.copy_(state[name])
        with located(module, _not_followed), contextlib.redirect_stderr(io.StringIO()):
            # Before it raises it prints the whole graph.
            program = torch.export.export(module, (example,), strict=False)
            table = torch.export.default_decompositions()
            for kept in KEPT:
                table.pop(kept, None)
            table[aten.scaled_dot_product_attention.default] = take_apart
            program = program.run_decompositions(table)
    _check_sizes(program)
    _tidy(program)
    return program


def _check_sizes(program: ExportedProgram) -> None:
    """Refuse tensors whose size is known only when the image is: x[x > 0], nonzero, unique."""
    for node in program.graph_module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and not all(isinstance(n, int) for n in value.shape):
            error = RuntimeError(f"the size of what {node.target} gives is data-dependent")
            raise _not_followed(error, place_of(node))


def _tidy(program: ExportedProgram) -> None:
    """Drop what computes nothing or is kept for a next call, and give memory that nobody has written yet a value."""
    graph = program.graph_module.graph
    result = next(node for node in graph.nodes if node.op == "output")
    specs = program.graph_signature.output_specs
    given = zip(result.args[0], specs, strict=True)  # type: ignore[arg-type]
    result.args = (tuple(value for value, spec in given if spec.kind is OutputKind.USER_OUTPUT),)
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target is aten.empty.memory_format:
            node.target = aten.zeros.default
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "memory_format"}
        elif node.target in _FILLED:
            _replace_like(graph, node)
        elif node.target is aten.copy.default:
            _replace_copy(graph, node)
        elif node.target is aten._native_batch_norm_legit_no_training.default:
            _restore_batch_norm(graph, node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _replace_like(graph: torch.fx.Graph, node: Node) -> None:
    """A tensor made in the shape of another one is a constant."""
    made = node.meta["val"]
    value = _FILLED[node.target] if len(node.args) < 2 else node.args[1]
    with graph.inserting_before(node):
        known = _call(graph, node, aten.full.default, ([int(n) for n in made.shape], value), {"dtype": made.dtype})
    node.replace_all_uses_with(known)
    graph.erase_node(node)


def _replace_copy(graph: torch.fx.Graph, node: Node) -> None:
    """What a copy into a tensor leaves there: the source, in the target's shape and type."""
    _, source = node.args[:2]
    assert isinstance(source, Node)
    had, has = source.meta["val"], node.meta["val"]
    with graph.inserting_before(node):
        value = source
        if had.dtype != has.dtype:
            value = _call(graph, node, aten._to_copy.default, (value,), {"dtype": has.dtype})
        if had.shape != has.shape:
            value = _call(graph, node, aten.expand.default, (value, list(has.shape)), {})
    node.replace_all_uses_with(value)
    graph.erase_node(node)


def _restore_batch_norm(graph: torch.fx.Graph, node: Node) -> None:
    """The normalisation that both formats fold into the convolution before it; its statistics are not needed."""
    for user in list(node.users):
        if user.args[1] == 0:
            with graph.inserting_before(user):
                args = (*node.args[:5], False, *node.args[5:7], False)
                user.replace_all_uses_with(_call(graph, user, aten.batch_norm.default, args, {}))
        graph.erase_node(user)
    graph.erase_node(node)


def _call(graph: torch.fx.Graph, like: Node, target: Any, args: Any, kwargs: dict[str, Any]) -> Node:
    made = graph.call_function(target, args, kwargs)
    made.meta = dict(like.meta)
    return made


def _refused(error: Exception, place: str) -> EdgemambaError:
    return InputError(
        f"the network cannot run on this input: {summary(error)}, in {place}",
        hint="give the size it was made for as --input 1x3xHxW, or fit its constructor's --kwargs to the size",
    )


def _not_followed(error: Exception, place: str) -> EdgemambaError:
    told = str(error)
    if "data-dependent" in told.lower() or "GuardOnDataDependent" in type(error).__name__ or ".item()" in told:
        return Unsupported(
            f"{place} decides by the value of a tensor, which a static graph cannot: {_line(told) or summary(error)}",
            hint="replace .item(), int(tensor), if tensor > 0, nonzero or boolean indexing there by tensor operations "
            "such as torch.where",
        )
    return Unsupported(
        f"torch.export cannot follow {place}: {summary(error)}",
        hint="write its forward pass with tensor operations that do not depend on values",
    )


def _line(told: str) -> str:
    """File, line and code that torch.export says the error comes from; empty where it does not."""
    found = re.search(r'The following call raised this error:\s+File "([^"]+)", line (\d+), in \w+\s+(.+)', told)
    return f"{found[3].strip()} ({Path(found[1]).name} line {found[2]})" if found else ""


def place_of(node: Node) -> str:
    """Module in which a node was made, such as encoder4.0.mamba (Mamba)."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "the network"
    path, kind = stack[-1]
    return place_name(path, kind if isinstance(kind, str) else kind.__name__)
