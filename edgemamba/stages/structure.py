"""Which steps of a network do what, told from the graph alone: the same rules for ONNX and TFLite, and for networks
whose modules have any name.

head       the last layer with weights and what follows it
attention  layers whose result only ever opens or closes a gate (a sigmoid that scales something else)
norm       a mean, a square root and what is divided by it
scan       the recurrence: decays (an exponential that is not a softplus), step sizes with the layer they come from,
           and everything that depends on them or is made beside them, up to the next layer with weights
gate       what leads into the state space: its depthwise convolution and the activation behind it
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Literal

Role = Literal["head", "attention", "norm", "scan", "gate"]
# Kinds that rules look at. "mul" is any product of two tensors, "move" hands values on, the rest is "other".
Kind = Literal["exp", "log", "sigmoid", "mul", "add", "split", "mean", "root", "norm", "move", "other"]


@dataclasses.dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        kind: as far as the rules distinguish it.
        inputs: tensors it computes with; constants are left out.
        outputs: tensors it writes.
        weighted: whether it multiplies with a learnt matrix.
        depthwise: whether it is a convolution of single channels.
    """

    kind: Kind
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weighted: bool = False
    depthwise: bool = False


class Structure:
    """Roles of the steps of one graph.

    Args:
        steps: in an order in which they can run.
        output: the graph's output tensor.
    """

    def __init__(self, steps: Sequence[Step], output: str) -> None:
        self.steps = steps
        self.output = output
        self.writer = {name: i for i, step in enumerate(steps) for name in step.outputs}
        self.readers: dict[str, list[int]] = {}
        for i, step in enumerate(steps):
            for name in dict.fromkeys(step.inputs):
                self.readers.setdefault(name, []).append(i)

    def roles(self) -> dict[int, Role]:
        """Role by position; steps without one are absent. The first rule that fits decides."""
        scan, gate = self._scan()
        found: dict[int, Role] = {}
        rules: tuple[tuple[Role, set[int]], ...] = (
            ("head", self._head()),
            ("attention", self._attention()),
            ("norm", self._norms()),
            ("scan", scan),
            ("gate", gate),
        )
        for role, members in rules:
            for i in members:
                found.setdefault(i, role)
        return found

    def _after(self, i: int) -> list[int]:
        return [reader for name in self.steps[i].outputs for reader in self.readers.get(name, ())]

    def _before(self, i: int) -> list[int]:
        return [self.writer[name] for name in self.steps[i].inputs if name in self.writer]

    def _forward(self, starts: Iterable[int], through: set[int]) -> set[int]:
        """What depends on ``starts``, up to layers with weights; those in ``through`` are passed."""
        found: set[int] = set()
        todo = list(starts)
        while todo:
            for i in self._after(todo.pop()):
                if i not in found and (not self.steps[i].weighted or i in through):
                    found.add(i)
                    todo.append(i)
        return found

    def _backward(self, starts: Iterable[int]) -> tuple[set[int], set[int]]:
        """What ``starts`` depend on, up to layers with weights; and those layers."""
        between: set[int] = set()
        layers: set[int] = set()
        todo = list(starts)
        while todo:
            for i in self._before(todo.pop()):
                if self.steps[i].weighted:
                    layers.add(i)
                elif i not in between:
                    between.add(i)
                    todo.append(i)
        return between, layers

    def _head(self) -> set[int]:
        """Back from the output, as long as there is one way."""
        i = self.writer[self.output]
        found = {i}
        while not self.steps[i].weighted:
            before = set(self._before(i))
            if len(before) != 1:
                return {self.writer[self.output]}
            i = before.pop()
            found.add(i)
        return found

    def feeding(self) -> int | None:
        """The layer with weights whose result, through steps of one input only, the head reads; None without any."""
        head = [i for i in self._head() if self.steps[i].weighted]
        before = self._before(head[0]) if head else []
        while len(set(before)) == 1:
            if self.steps[before[0]].weighted:
                return before[0]
            before = self._before(before[0])
        return None

    def _attention(self) -> set[int]:
        found: set[int] = set()
        for i in reversed(range(len(self.steps))):
            if self.steps[i].weighted and self._only_gates(i, found):
                found.add(i)
        return found

    def _only_gates(self, start: int, gates: set[int]) -> bool:
        """Whether every way from ``start`` ends in a gate's sigmoid, or in a layer that leads to gates only."""
        seen: set[int] = set()
        todo, ends = [start], 0
        while todo:
            at = todo.pop()
            if self.output in self.steps[at].outputs:
                return False
            for i in self._after(at):
                if self.steps[i].weighted:
                    if i not in gates:
                        return False
                    ends += 1
                elif self.steps[i].kind == "sigmoid" and self._opens(i):
                    ends += 1
                elif i not in seen:
                    seen.add(i)
                    todo.append(i)
        return ends > 0

    def _opens(self, sigmoid: int) -> bool:
        """Whether a sigmoid, alone or together with others, does nothing but scale something else: not its own
        argument, and no output."""
        argument = self.steps[sigmoid].inputs[0]
        todo, seen, scales = [sigmoid], {sigmoid}, False
        while todo:
            at = todo.pop()
            if self.output in self.steps[at].outputs:
                return False
            for i in self._after(at):
                if i in self._gates:
                    if i not in seen:
                        seen.add(i)
                        todo.append(i)
                elif self.steps[i].kind != "mul" or self.steps[i].weighted or argument in self.steps[i].inputs:
                    return False
                else:
                    scales = True
        return scales

    @functools.cached_property
    def _gates(self) -> set[int]:
        """Sigmoids, and what is computed from nothing but them."""
        found: set[int] = set()
        for i, step in enumerate(self.steps):
            from_gates = step.inputs and all(self.writer.get(name) in found for name in step.inputs)
            if step.kind == "sigmoid" or (from_gates and not step.weighted):
                found.add(i)
        return found

    def _norms(self) -> set[int]:
        """Norm operators and norms that are written out, with their gain and shift."""
        found: set[int] = set()
        for i, step in enumerate(self.steps):
            if step.kind == "norm":
                found.add(i)
                self._gain(i, found)
            elif step.kind == "root":
                self._written_out(i, found)
        return found

    def _written_out(self, root: int, found: set[int]) -> None:
        chain, i = [root], root
        while self.steps[i].kind != "mean":
            before = self._before(i)
            if len(before) != 1 or (i != root and self.steps[i].kind not in ("add", "other")) or len(chain) > 4:
                return
            i = before[0]
            chain.append(i)
        # The square, and the difference from the mean, where there is one.
        for square in self._before(i):
            chain.append(square)
            for centred in self._before(square):
                means = [j for j in self._before(centred) if self.steps[j].kind == "mean"]
                chain += [centred, *means] if means else []
        for scaled in self._after(root):
            chain.append(scaled)
            if len(self._before(scaled)) == 1:
                # A reciprocal, which then scales.
                chain += self._after(scaled)
        found.update(chain)
        self._gain(chain[-1], found)

    def _gain(self, i: int, found: set[int]) -> None:
        """Follow the products and sums with constants behind a norm."""
        while True:
            after = self._after(i)
            if len(after) != 1 or self.steps[after[0]].weighted or len(self._before(after[0])) != 1:
                return
            if self.steps[after[0]].kind not in ("mul", "add", "move"):
                return
            i = after[0]
            found.add(i)

    def _scan(self) -> tuple[set[int], set[int]]:
        """Members of state spaces, and what leads into them."""
        decays = [i for i, step in enumerate(self.steps) if step.kind == "exp" and not self._in_softplus(i)]
        behind, _ = self._backward(decays)
        steps = [i for i in behind if self.steps[i].kind == "log"]
        if not steps:
            return set(), set()
        size_layers: set[int] = set()
        splits: set[int] = set()
        seen: set[int] = set(steps)
        todo = list(steps)
        while todo:
            for i in self._before(todo.pop()):
                if self.steps[i].weighted:
                    size_layers.add(i)
                elif self.steps[i].kind == "split":
                    splits.add(i)
                elif i not in seen:
                    seen.add(i)
                    todo.append(i)
        _, sources = self._backward([*size_layers, *splits])
        sources -= size_layers
        scan = self._forward([*sources, *size_layers], size_layers) | size_layers
        between, layers = self._backward(sources)
        depthwise = {i for i in layers if self.steps[i].depthwise}
        leading = self._forward(depthwise, set()) & between
        return scan, depthwise | leading

    def _in_softplus(self, i: int) -> bool:
        """Whether an exponential is the inner one of log(1 + exp(x))."""
        after = self._after(i)
        inner = [j for k in after for j in (self._after(k) if self.steps[k].kind == "add" else [k])]
        return bool(inner) and all(self.steps[j].kind == "log" for j in inner)
