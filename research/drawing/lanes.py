"""Where the nodes of an idea graph stand: the column is the order of arrival, the row is the lane (main, then threads).

A node's place depends on what came before it alone, so nodes that arrive never move one that is there; and it costs
O(n). Layered layouts take seconds for 2,000 nodes and rearrange all of them with every new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Node(NamedTuple):
    """`parents` are keys of earlier nodes, the one it was measured against first; others are ignored."""

    key: str
    lane: int  # 0 is main
    parents: tuple[str, ...] = ()


class Place(NamedTuple):
    column: int
    lane: int


class Edge(NamedTuple):
    parent: str
    child: str
    first: bool  # to the first parent; a combination has a second


@dataclass
class Lanes:
    places: dict[str, Place] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)

    def add(self, node: Node) -> Place:
        """Append one node; nothing else changes. A key that is there already keeps its place."""
        if node.key in self.places:
            return self.places[node.key]
        for number, parent in enumerate(node.parents):
            if parent in self.places:
                self.edges.append(Edge(parent, node.key, number == 0))
        place = self.places[node.key] = Place(len(self.places), node.lane)
        return place


def lay_out(nodes: Iterable[Node]) -> Lanes:
    """The places of nodes in the order given, and the edges between them."""
    lanes = Lanes()
    for node in nodes:
        lanes.add(node)
    return lanes
