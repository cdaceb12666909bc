"""Sequences that begin alike, merged into a forest, and the forest cut into units.

A unit is a run of tokens that attend to each other by a small dense mask: a question with its
options. What many units begin with (few-shot examples, a passage) is their trunk, in units of its
own before them, so that it is computed once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

#: Tokens of a shared beginning that must be saved for it to become a trunk.
WORTH_SHARING = 32

#: What is scored of a sequence: (position of the token before it, target token, slot to add to).
Scored = tuple[int, int, int]


@dataclass
class Node:
    """Tokens that all sequences through it have in common, what is scored there, what follows."""

    tokens: tuple[int, ...] = ()
    scored: list[Scored] = field(default_factory=list)
    children: dict[int, Node] = field(default_factory=dict)

    def size(self) -> int:
        """Tokens of the node and of all below it."""
        return len(self.tokens) + sum(child.size() for child in self.children.values())

    def cut(self, length: int) -> None:
        """Keep the first ``length`` tokens and give the others to an only child."""
        rest = Node(
            self.tokens[length:],
            [(p - length, target, slot) for p, target, slot in self.scored if p >= length],
            self.children,
        )
        self.tokens, self.children = self.tokens[:length], {rest.tokens[0]: rest}
        self.scored = [entry for entry in self.scored if entry[0] < length]


@dataclass(frozen=True)
class Unit:
    """Tokens that are laid out together.

    Attributes:
        tokens: in an order in which each stands behind all that it sees.
        positions: each token's in its sequences.
        parents: number (inside the unit) of the token before each; -1 where that is in the trunk,
            or where there is none.
        scored: what is scored, by number inside the unit.
        trunk: numbers of the units before it, outermost first.
    """

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    parents: tuple[int, ...]
    scored: tuple[Scored, ...]
    trunk: tuple[int, ...]

    def visible(self) -> np.ndarray:
        """``[T, T]`` whether a token (row) sees another: itself and those before it."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for number, parent in enumerate(self.parents):
            if parent >= 0:
                seen[number] |= seen[parent]
        return seen


def merge(sequences: Iterable[tuple[Sequence[int], Sequence[Scored]]]) -> Node:
    """The forest of some sequences, under a root without tokens."""
    root = Node()
    for tokens, scored in sequences:
        path, starts, at, node = [], [], 0, root
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                child = node.children[tokens[at]] = Node(tuple(tokens[at:]))
            else:
                shared = common(child.tokens, tokens, at)
                if shared < len(child.tokens):
                    child.cut(shared)
            path.append(child)
            starts.append(at)
            at, node = at + len(child.tokens), child
        for position, target, slot in scored:
            place = bisect_right(starts, position) - 1
            path[place].scored.append((position - starts[place], target, slot))
    return root


def common(known: Sequence[int], tokens: Sequence[int], at: int = 0) -> int:
    """How many tokens ``known`` begins with that also stand in ``tokens`` from ``at``."""
    most = min(len(known), len(tokens) - at)
    for count in range(most):
        if known[count] != tokens[at + count]:
            return count
    return most


def cut(root: Node, most: int) -> list[Unit]:
    """The units of a forest, each behind its trunk.

    Args:
        root: from ``merge``; it is taken apart.
        most: tokens in a unit.
    """
    units: list[Unit] = []

    def visit(node: Node, position: int, trunk: tuple[int, ...]) -> None:
        if node.tokens and node.size() <= most:
            units.append(_unit(node, position, trunk))
            return
        if node.children and len(node.tokens) * (len(node.children) - 1) < WORTH_SHARING:
            _hand_down(node)
        if len(node.tokens) > most:
            node.cut(most)
        if node.tokens:
            units.append(_unit(Node(node.tokens, node.scored), position, trunk))
            trunk += (len(units) - 1,)
            position += len(node.tokens)
        for child in sorted(node.children.values(), key=Node.size, reverse=True):
            visit(child, position, trunk)

    visit(root, 0, ())
    return units


def _hand_down(node: Node) -> None:
    """Give a node's tokens to each of its children; what is scored there to the first alone."""
    for number, child in enumerate(node.children.values()):
        child.scored = [(p + len(node.tokens), target, slot) for p, target, slot in child.scored]
        child.scored += [] if number else node.scored
        child.tokens = node.tokens + child.tokens
    node.tokens, node.scored = (), []


def _unit(root: Node, position: int, trunk: tuple[int, ...]) -> Unit:
    tokens: list[int] = []
    positions: list[int] = []
    parents: list[int] = []
    scored: list[Scored] = []
    waiting = [(root, position, -1)]
    while waiting:
        node, position, parent = waiting.pop()
        start = len(tokens)
        scored += [(start + place, target, slot) for place, target, slot in node.scored]
        tokens += node.tokens
        positions += range(position, position + len(node.tokens))
        parents += [parent, *range(start, len(tokens) - 1)][: len(node.tokens)]
        end = len(tokens) - 1 if node.tokens else parent
        waiting += [
            (child, position + len(node.tokens), end)
            for child in reversed(node.children.values())
        ]
    return Unit(tuple(tokens), tuple(positions), tuple(parents), tuple(scored), trunk)
