"""A captured program as a module that the ONNX exporter can trace: constants computed, scans unrolled, names kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from edgemamba.errors import Unsupported
from edgemamba.models.located import summary
from edgemamba.stages.capture import place_of
from edgemamba.stages.instead import INSTEAD

# Ends a scope's name.
_END = "@"
_SCANS = (torch.ops.edgemamba.two_pass.default, torch.ops.edgemamba.sequential.default)


class Flat(nn.Module):
    """Runs the graph of ``program`` node by node; parameters keep their paths.

    Attributes:
        output_shape: of the output.

    A node's scope is the path of the module it comes from; those of a scan have ``scan`` behind it.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self._nodes = list(program.graph_module.graph.nodes)
        self._paths: dict[Node, str] = {}
        self._source: Node | None = None
        known: dict[Node, Any] = {}
        origins: dict[Node, str] = {}
        specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        for node in self._nodes:
            if node.op == "placeholder" and specs[node.name].target is not None:
                target = str(specs[node.name].target)
                state = program.state_dict.get(target, program.constants.get(target))
                known[node], origins[node] = state.detach(), target if target in program.state_dict else ""
            elif node.op == "placeholder":
                self._source = node
            elif node.op == "call_function" and all(arg in known for arg in node.all_input_nodes):
                known[node] = _run(node, known.__getitem__)
                named = [origins[arg] for arg in node.all_input_nodes if origins.get(arg)]
                origins[node] = f"{named[0].partition('/')[0]}/{node.name}" if named else ""
        self._work = [node for node in self._nodes if node.op == "call_function" and node not in known]
        self._result = next(node for node in self._nodes if node.op == "output")
        (result,) = self._result.args[0]  # type: ignore[misc]
        self.output_shape = tuple(int(n) for n in result.meta["val"].shape)
        read = {arg for node in (*self._work, self._result) for arg in node.all_input_nodes}
        self._loose: dict[Node, Any] = {}
        for node in known:
            if node in read and isinstance(known[node], Tensor):
                self._hold(node, origins[node] or f"model.constants/{node.name}", known[node])
            elif node in read:
                self._loose[node] = known[node]

    def _hold(self, node: Node, path: str, value: Tensor) -> None:
        *parents, leaf = _split(path)
        owner: nn.Module = self
        for name in parents:
            if name not in owner._modules:
                owner.add_module(name, nn.Module())
            owner = owner.get_submodule(name)
        owner.register_buffer(leaf, value.contiguous())
        self._paths[node] = path

    def place_of_operator(self, message: str) -> str:
        """The operator that an exporter's message names, and the module that holds the first of its kind."""
        named = re.search(r"aten::(\w+)", message)
        nodes = [node for node in self._work if named and str(node.target).startswith(f"aten.{named[1]}.")]
        return f"{nodes[0].target} in {place_of(nodes[0])}" if nodes else "the network"

    def forward(self, image: Tensor) -> Any:
        """The network's output."""
        values: dict[Node, Any] = {**self._loose, self._source: image} if self._source else {**self._loose}
        for node, path in self._paths.items():
            owner: Any = self
            for name in _split(path)[:-1]:
                owner = owner._modules[name]
            values[node] = owner._buffers[_split(path)[-1]]
        state = torch._C._get_tracing_state()
        for node in self._work:
            scope = _scope(node)
            if state is not None:
                state.push_scope(f"Flat::{scope}{_END}")
            try:
                values[node] = _run(node, values.__getitem__)
            finally:
                if state is not None:
                    state.pop_scope()
        (result,) = _map(self._result.args[0], values.__getitem__)
        return result


def settle(model: Any, shape: Sequence[int]) -> None:
    """Give the output of an exported graph its shape, and take the exporter's count of repeated scopes out of the node
    names: here every node has one."""
    dims = model.graph.output[0].type.tensor_type.shape.dim
    del dims[:]
    for size in shape:
        dims.add().dim_value = size
    for node in model.graph.node:
        node.name = re.sub(f"{_END}(_\\d+)?(?=/|$)", "", node.name)


def _split(path: str) -> list[str]:
    stem, slash, rest = path.partition("/")
    parts = stem.split(".")
    return [*parts[:-1], parts[-1] + slash + rest]


def _scope(node: Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = (stack[-1][0] if stack else "").replace(".", "/")
    return f"{path}/scan" if node.target in _SCANS else path


def _run(node: Node, value_of: Callable[[Node], Any]) -> Any:
    target = INSTEAD.get(node.target, node.target)
    try:
        return target(*_map(node.args, value_of), **_map(node.kwargs, value_of))  # type: ignore[operator]
    except (RuntimeError, NotImplementedError) as error:
        raise Unsupported(
            f"{node.target} in {place_of(node)} cannot be exported: {summary(error)}",
            hint="write the layer with operations that have an ONNX counterpart",
        ) from error


def _map(argument: Any, value_of: Callable[[Node], Any]) -> Any:
    if isinstance(argument, Node):
        return value_of(argument)
    if isinstance(argument, list | tuple):
        return type(argument)(_map(item, value_of) for item in argument)
    if isinstance(argument, dict):
        return {key: _map(item, value_of) for key, item in argument.items()}
    return argument
