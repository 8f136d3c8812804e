"""Export stage: a network to one .tflite graph of builtin operators, written from its torch.export graph.

torch.export gives a flat list of operators with static shapes. Each is lowered by its function in
``tflite_ops``; whatever depends on weights alone is computed by torch on the way. Nothing of the build
machine gets into the file, and the same network gives the same bytes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from edgemamba.errors import Unsupported
from edgemamba.models import Exported
from edgemamba.registry import OUTPUTS, ModelInfo, Task
from edgemamba.ssm import use_form
from edgemamba.stages import tflite_graph
from edgemamba.stages import tflite_layout as layout
from edgemamba.stages.capture import capture, place_of
from edgemamba.stages.tflite_layout import Laid
from edgemamba.stages.tflite_lowerings import LOWERINGS
from edgemamba.stages.tflite_writer import GraphWriter, Value

INPUT = "image"
_IGNORED = (torch.ops.aten._assert_tensor_metadata.default,)
_RELU = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


def to_tflite(
    model: nn.Module, size: tuple[int, int], path: Path, *, task: Task = "segmentation", channels: int = 3
) -> dict[str, Any]:
    """Write what ``models.Exported`` makes of ``model`` as float32 .tflite.

    Args:
        model: in evaluation mode, on the CPU.
        size: input height and width, pixels.
        path: the .tflite to write; input ``image`` (1, C, H, W), the output as ``models.Exported`` gives it.
        task: what becomes of the logits.
        channels: C.

    Returns:
        What ``tflite_graph.facts`` says, and how LiteRT splits the graph (``tflite_graph.delegation``).

    Raises:
        Unsupported: the network cannot take this size, or an operator has no lowering; says which and where.
    """
    info = getattr(model, "info", None)
    if isinstance(info, ModelInfo):
        info.check_size(*size)
    exported = Exported(model, task).eval()
    with use_form(exported, "litert"):
        data = convert(exported, (1, channels, *size), OUTPUTS[task], foreign=task == "tensor")
    tflite_graph.write(data, path)
    return {**tflite_graph.facts(data, path.stat().st_size), "delegation": tflite_graph.delegation(path)}


def convert(
    module: nn.Module, shape: Sequence[int], output: str = OUTPUTS["segmentation"], *, foreign: bool = False
) -> Any:
    """Object form of a .tflite graph of ``module`` for one input of ``shape`` and one ``output`` of that name.

    Args:
        foreign: the module may hold any operator: those without a lowering are taken apart (``capture``).

    Raises:
        InputError: a foreign network does not take this input.
        Unsupported: torch.export cannot follow the module, or an operator has no lowering.
    """
    with torch.no_grad():
        model = Lowering(capture(module, shape) if foreign else _followed(module, shape), output).run()
    tflite_graph.compact(model)
    tflite_graph.check_builtin(model)
    return model


def _followed(module: nn.Module, shape: Sequence[int]) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(module, (torch.zeros(*shape),), strict=False)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise Unsupported(
            f"torch.export cannot follow the network: {reason}",
            hint="write its forward without branches on tensor values",
        ) from None


class Lowering:
    """One walk over an exported graph.

    Attributes:
        writer: the TFLite graph in the making.
    """

    def __init__(self, exported: torch.export.ExportedProgram, output: str) -> None:
        self.exported = exported
        self.output = output
        self.writer = GraphWriter()
        self._results: dict[Node, Any] = {}
        self._origins: dict[Node, str] = {}
        self._relu = self.writer.schema.ActivationFunctionType.RELU

    def run(self) -> Any:
        """Lower every node and close the graph."""
        constants = self._constants()
        for node in self.exported.graph_module.graph.nodes:
            if node in self._results or node.target in _IGNORED:
                continue
            if node.op == "placeholder":
                if node.name in constants:
                    self._results[node], origin = constants[node.name]
                    if origin:
                        self._origins[node] = origin
                else:
                    source = self.writer.input(self.shape(node))
                    self._results[node] = layout.plain(source)
            elif node.op == "output":
                (result,) = self._resolve(node.args[0])
                outputs = {self.output: self.stored(result, range(len(self.dims(result))))}
            elif node.op == "call_function":
                self._results.setdefault(node, self._call(node))
            else:
                raise Unsupported(f"{node.op} {node.target} has no TFLite lowering", hint=_HINT)
        return self.writer.finish({INPUT: source}, outputs)

    def shape(self, node: Node) -> tuple[int, ...]:
        """Static shape of a node's tensor."""
        return tuple(int(n) for n in node.meta["val"].shape)

    def dims(self, x: Laid | Tensor) -> tuple[int, ...]:
        """Shape of an argument as torch sees it."""
        return tuple(x.shape)

    def stored(self, x: Laid | Tensor, order: Sequence[int]) -> Value:
        """An argument stored with its axes in ``order``; a constant is permuted now."""
        if isinstance(x, Tensor):
            return self.writer.constant(x.permute(*order).float().numpy())
        return layout.arrange(self.writer, x, order).value

    def binary(self, name: str, a: Any, b: Any) -> Laid:
        """An operator on two arguments, at least one of them in the graph, broadcast as torch does.

        The result is stored like the larger of them.
        """
        operands = [x if isinstance(x, Laid) else _number(x) for x in (a, b)]
        if not name.startswith("LOGICAL"):
            operands = [self._as_float(x) for x in operands]
        rank = max(len(self.dims(x)) for x in operands)
        laid = [layout.align(x, rank) for x in operands if isinstance(x, Laid)]
        order = max(laid, key=lambda x: torch.Size(x.shape).numel()).order
        values = [self._broadcastable(x, rank, order) for x in operands]
        return Laid(layout.elementwise(self.writer, name, *values), order)

    def name(self, value: Value, node: Node) -> None:
        """Name a product after the weights in it, so that a quantizer can be told which layers to take.

        A product with a constant matrix that is no weight is named after its module and "matrix".
        """
        known = [self._origins[arg] for arg in node.all_input_nodes if arg in self._origins]
        stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        name = known[0].removesuffix(".weight") if known else ".".join([*stack[-1:], "matrix"])
        self.writer.name(value, name.removeprefix("model."))

    def follow(self, node: Node, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None, int, list[Node]]:
        """What comes right after a convolution and can be part of it: batch normalisation, then ReLU.

        Returns:
            Weights and bias with the normalisation in them, the fused activation, and the nodes that this
            covers.
        """
        covered, user = [node], _only_user(node)
        if user is not None and user.target is torch.ops.aten.batch_norm.default:
            gamma, beta, mean, variance = (self._resolve(arg) for arg in user.args[1:5])
            scale = (1.0 if gamma is None else gamma) / torch.sqrt(variance + user.args[7])
            weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
            bias = (0.0 if beta is None else beta) + ((0.0 if bias is None else bias) - mean) * scale
            covered.append(user)
            user = _only_user(user)
        if user is not None and user.target in _RELU:
            return weight, bias, self._relu, [*covered, user]
        return weight, bias, 0, covered

    def done(self, nodes: Sequence[Node], result: Laid) -> Laid:
        """One result for several nodes that became one operator."""
        self._results.update(dict.fromkeys(nodes, result))
        return result

    def _as_float(self, x: Laid | Tensor) -> Laid | Tensor:
        """Truth values count as 0 and 1."""
        if isinstance(x, Tensor):
            return x.float()
        if self.writer.graph.tensors[x.value.index].type != tflite_graph.BOOL:
            return x
        return Laid(self.writer.operator("CAST", [x.value], [*x.value.shape]), x.order)

    def _broadcastable(self, x: Laid | Tensor, rank: int, order: Sequence[int]) -> Value:
        if isinstance(x, Tensor):
            whole = x.reshape((1,) * (rank - x.dim()) + tuple(x.shape)).permute(*order)
            while whole.dim() and whole.shape[0] == 1:
                whole = whole[0]
            return self.writer.constant(whole.numpy())
        aligned = layout.align(x, rank)
        if aligned.order == tuple(order):
            return aligned.value
        return layout.arrange(self.writer, layout.reshape(self.writer, x, aligned.shape), order).value

    def _call(self, node: Node) -> Any:
        arguments, options = self._resolve(node.args), self._resolve(node.kwargs)
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        if not _in_graph(arguments) and not _in_graph(options):
            sources = [arg for arg in node.all_input_nodes if arg in self._origins]
            if len(sources) == 1:
                self._origins[node] = self._origins[sources[0]]
            return node.target(*arguments, **options)  # type: ignore[operator]
        if node.target not in LOWERINGS:
            raise Unsupported(f"{node.target} in {place_of(node)} has no TFLite lowering", hint=_HINT)
        try:
            return LOWERINGS[node.target](self, node, *arguments, **options)
        except Unsupported as error:
            raise Unsupported(f"{error.message}, in {place_of(node)}", hint=error.hint) from None

    def _resolve(self, argument: Any) -> Any:
        if isinstance(argument, Node):
            return self._results[argument]
        if isinstance(argument, list | tuple):
            return type(argument)(self._resolve(item) for item in argument)
        if isinstance(argument, dict):
            return {key: self._resolve(item) for key, item in argument.items()}
        return argument

    def _constants(self) -> dict[str, tuple[Tensor, str]]:
        """Placeholder: content, and name in the state dict ("" for a constant that is not in it)."""
        found = {}
        for spec in self.exported.graph_signature.input_specs:
            if spec.target is not None:
                state = self.exported.state_dict.get(spec.target, self.exported.constants.get(spec.target))
                lifted = spec.kind is torch.export.graph_signature.InputKind.CONSTANT_TENSOR
                found[spec.arg.name] = (state.detach(), "" if lifted else spec.target)
        return found


_HINT = "export to ONNX (--format onnx), or add a lowering to edgemamba/stages/tflite_lowerings.py"


def _number(x: Any) -> Tensor:
    x = torch.as_tensor(x)
    return x if x.dtype == torch.bool else x.float()


def _in_graph(argument: Any) -> bool:
    if isinstance(argument, list | tuple):
        return any(_in_graph(item) for item in argument)
    if isinstance(argument, dict):
        return any(_in_graph(item) for item in argument.values())
    return isinstance(argument, Laid)


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
