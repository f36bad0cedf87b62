"""The way of the gradient through autograd's graph: which nodes every path from the loss to the first layer passes.

Order of calls is not the way of the gradient: what lies inside a residual branch, in an early head or in a second tower
is passed by some paths and not by others, and its δ says nothing of what reaches the layers below. The *trunk* are the
nodes that all paths pass, the dominators of the first layer's signal, found by counting paths from both ends: a node
is on the trunk where (paths from the loss to it) x (paths from it to the target) are all paths there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from torch.autograd.graph import Node

PRIME = (1 << 61) - 1
"""Paths are counted modulo this: there are 2^L of them through L residual branches."""

MOST_SOURCES = 8
"""First layers that are tried for the longest trunk; networks with more (tables of embeddings) have short trunks."""


_LINEAR = """
T Mm Addmm Bmm Baddbmm Convolution View UnsafeView ReshapeAlias Expand Transpose Permute Slice Select Squeeze Unsqueeze
Cat Stack Split Add Sub Mean Sum AvgPool2D AdaptiveAvgPool2D Embedding Alias Clone
"""
LINEAR = frozenset(f"{name}Backward{number}" for name in _LINEAR.split() for number in range(3))
"""Nodes that leave a network linear in its input: one that has no others is a single layer."""


@dataclass(frozen=True)
class Graph:
    """Everything that the loss depends on: ``order`` from the loss to the leaves, each node before what it is made of.

    ``uses`` counts the edges by which a node's outputs are taken up again. ``silent`` are edges, by a node and the
    place of its input, along which nothing but zeros came back: of states that are stacked, and of which one is read.
    ``parts`` is what each node is made of; autograd wraps its nodes anew whenever it is asked.
    """

    order: Sequence[Node]
    place: Mapping[Node, int]
    uses: Mapping[Node, int]
    parts: Mapping[Node, tuple[Node, ...]]
    silent: set[tuple[Node, int]] = field(default_factory=set)

    def below(self, node: Node) -> tuple[Node, ...]:
        """What a node is made of, but for what is `silent`."""
        if not self.silent:
            return self.parts[node]
        edges = enumerate(node.next_functions)
        return tuple(one for place, (one, _) in edges if one is not None and (node, place) not in self.silent)


@dataclass(frozen=True)
class Stage:
    """A stretch of the trunk that holds layers: ``point`` is the trunk's node whose gradient stands for them.

    ``layers`` are the layers' nodes in it, in the order in which the signal passes them; ``own`` where the point is the
    signal of the last of them itself.
    """

    point: Node
    layers: tuple[Node, ...]
    own: bool


def graph(loss: Node) -> Graph:
    """The graph of ``loss``, sorted without recursion: it is as deep as the network is."""
    finished: list[Node] = []
    uses: dict[Node, int] = {loss: 0}
    parts = {loss: _next(loss)}
    stack: list[tuple[Node, Iterator[Node]]] = [(loss, iter(parts[loss]))]
    while stack:
        node, rest = stack[-1]
        for below in rest:
            uses[below] = uses.get(below, 0) + 1
            if uses[below] == 1 and below is not loss:
                parts[below] = _next(below)
                stack.append((below, iter(parts[below])))
                break
        else:
            finished.append(node)
            stack.pop()
    order = finished[::-1]
    return Graph(order, {node: place for place, node in enumerate(order)}, uses, parts)


def _next(node: Node) -> tuple[Node, ...]:
    return tuple([below for below, _ in node.next_functions if below is not None])


def linear(graph: Graph, upto: int) -> bool:
    """Whether a network is linear in its input, by the nodes that were made before autograd came to ``upto``."""
    inner = (node for node in graph.order if graph.parts[node] and node._sequence_nr() < upto)
    return all(node.name() in LINEAR for node in inner)


def stages(graph: Graph, layers: Sequence[Node], inputs: Set[Node]) -> list[Stage]:
    """The trunk's stages from the first layer to the last; of several first layers those of the longest trunk.

    Args:
        graph: that of the loss.
        layers: the nodes of the layers' signals that lie in it, in the order of the calls.
        inputs: the leaves that are the batch; a first layer that is fed by one comes before those that are fed by
            constants (a table of positions), which may lie inside a branch.
    """
    known = set(layers)
    above, below, fed = _layers_above(graph, known), _leads(graph, known), _leads(graph, inputs)
    first = [node for node in layers if node not in below]
    sources = sorted([node for node in first if node in fed] or first, key=lambda node: -above[node])[:MOST_SOURCES]
    found = [_stages_to(graph, known, target) for target in sources]
    return max(found, key=len, default=[])


def between(graph: Graph, start: Node, end: Node) -> set[Node]:
    """The nodes by which the gradient at ``start`` goes on to ``end``, both left out; ``end`` alone where at once.

    Empty where it does not come there.
    """
    seen, stack = {start}, [start]
    while stack:
        for below in graph.parts[stack.pop()]:
            # What stands behind the end in the order leads to no place before it.
            if below not in seen and graph.place[below] <= graph.place[end]:
                seen.add(below)
                stack.append(below)
    leads = {end} & seen
    for node in sorted(seen - {start, end}, key=lambda node: -graph.place[node]):
        if not leads.isdisjoint(graph.parts[node]):
            leads.add(node)
    return leads - {end} or leads


def behind(nodes: Iterable[Node]) -> set[Node]:
    """The nodes themselves and everything that they are made of."""
    seen = set(nodes)
    stack = list(seen)
    while stack:
        for below in _next(stack.pop()):
            if below not in seen:
                seen.add(below)
                stack.append(below)
    return seen


def alone(graph: Graph, above: Node, below: Node) -> bool:
    """Whether ``above`` is all that takes up what ``below`` puts out, in one edge or in several (an rms norm)."""
    edges, seen, stack = 0, {above}, [above]
    while stack:
        for node in _next(stack.pop()):
            if node is below:
                edges += 1
            elif node not in seen and graph.place.get(node, 0) < graph.place.get(below, 0):
                seen.add(node)
                stack.append(node)
    return edges == graph.uses.get(below, edges)


def _layers_above(graph: Graph, layers: set[Node]) -> dict[Node, int]:
    """The most layers on any path from the loss down to each node, itself included."""
    most = dict.fromkeys(graph.order, 0)
    for node in graph.order:
        most[node] += node in layers
        for below in graph.parts[node]:
            most[below] = max(most[below], most[node])
    return most


def _leads(graph: Graph, ends: Set[Node]) -> set[Node]:
    """The nodes below which one of ``ends`` lies, itself left out."""
    found: set[Node] = set()
    reached = set(ends)
    for node in reversed(graph.order):
        if not reached.isdisjoint(graph.parts[node]):
            found.add(node)
            reached.add(node)
    return found


def narrows(graph: Graph, target: Node, above: Node, below: Node) -> bool:
    """Whether all paths from the loss to ``target`` meet in some node between ``above`` and ``below`` on the way."""
    ways, between = _ways(graph, target), range(graph.place[above] + 1, graph.place[below])
    return any(ways.all_by(graph.order[place]) for place in between)


@dataclass(frozen=True)
class Ways:
    """The paths from the loss to a target: how many there are from the loss to each node, and from it to the target."""

    order: Sequence[Node]
    from_loss: Mapping[Node, int]
    to_target: Mapping[Node, int]
    total: int

    def all_by(self, node: Node) -> bool:
        """Whether every one of the paths passes ``node``."""
        there = self.to_target.get(node, 0)
        return there > 0 and self.from_loss[node] * there % PRIME == self.total


def _ways(graph: Graph, target: Node) -> Ways:
    way = graph.order[: graph.place[target] + 1]
    parts = {node: graph.below(node) for node in way} if graph.silent else graph.parts
    to_target = {target: 1}
    for node in reversed(way[:-1]):
        ways = 0
        for below in parts[node]:
            if below in to_target:
                ways += to_target[below]
        if ways:
            to_target[node] = ways % PRIME
    # What does not lead to the target counts for nothing on the way to it.
    from_loss = dict.fromkeys(to_target, 0)
    from_loss[way[0]] = 1
    for node in way[:-1]:
        if node in from_loss:
            for below in parts[node]:
                if below in from_loss:
                    from_loss[below] = (from_loss[below] + from_loss[node]) % PRIME
    return Ways(way, from_loss, to_target, from_loss[target])


def _stages_to(graph: Graph, layers: set[Node], target: Node) -> list[Stage]:
    ways = _ways(graph, target)
    found: list[Stage] = []
    held: list[Node] = []
    for node in reversed(ways.order):
        if node not in ways.to_target:
            continue
        if node in layers:
            held.append(node)
        if held and ways.all_by(node):
            found.append(Stage(node, tuple(held), own=node is held[-1]))
            held = []
    return found
