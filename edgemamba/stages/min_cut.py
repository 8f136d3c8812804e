"""Smallest cut of a directed graph, for deciding which nodes go to which of two sides at the least cost."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable

INFINITE = 1 << 60


class FlowNetwork:
    """Directed edges with integer capacities."""

    def __init__(self) -> None:
        self._left: dict[Hashable, dict[Hashable, int]] = {}

    def add(self, tail: Hashable, head: Hashable, capacity: int) -> None:
        """Add capacity to the edge from ``tail`` to ``head``."""
        edges = self._left.setdefault(tail, {})
        edges[head] = edges.get(head, 0) + capacity
        self._left.setdefault(head, {}).setdefault(tail, 0)

    def source_side(self, source: Hashable, sink: Hashable) -> tuple[int, set[Hashable]]:
        """Value of the smallest cut between ``source`` and ``sink``, and the fewest nodes its source side
        can have.

        Uses up the capacities. Source: Ford and Fulkerson, augmenting along shortest paths (Edmonds and
        Karp).
        """
        self._left.setdefault(source, {})
        self._left.setdefault(sink, {})
        flow = 0
        while True:
            before = self._reach(source)
            if sink not in before:
                return flow, set(before)
            path = [sink]
            while path[-1] != source:
                path.append(before[path[-1]])
            path.reverse()
            steps = list(itertools.pairwise(path))
            room = min(self._left[tail][head] for tail, head in steps)
            for tail, head in steps:
                self._left[tail][head] -= room
                self._left[head][tail] += room
            flow += room

    def _reach(self, source: Hashable) -> dict[Hashable, Hashable]:
        """Nodes that still can be reached from ``source``, each with the one before it."""
        before: dict[Hashable, Hashable] = {source: source}
        queue = deque([source])
        while queue:
            tail = queue.popleft()
            for head, capacity in self._left[tail].items():
                if capacity and head not in before:
                    before[head] = tail
                    queue.append(head)
        return before
