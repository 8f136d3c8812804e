"""The smallest cut against every possible one."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edgemamba.stages.min_cut import FlowNetwork

EDGES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 4)).filter(lambda edge: edge[0] != edge[1]),
    max_size=16,
)


def cost(edges: list[tuple[int, int, int]], side: set[int]) -> int:
    return sum(capacity for tail, head, capacity in edges if tail in side and head not in side)


@settings(max_examples=200, deadline=None)
@given(edges=EDGES)
def test_cut_is_the_smallest_and_its_source_side_too(edges: list[tuple[int, int, int]]) -> None:
    network = FlowNetwork()
    for tail, head, capacity in edges:
        network.add(tail, head, capacity)
    value, side = network.source_side(0, 5)
    sides = [{0, *inner} for size in range(5) for inner in itertools.combinations(range(1, 5), size)]
    best = min(cost(edges, one) for one in sides)
    assert value == best == cost(edges, side)
    assert all(side <= one for one in sides if cost(edges, one) == best)
