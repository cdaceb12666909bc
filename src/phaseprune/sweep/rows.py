"""Token rows: what has to be run so that every option of every question can be scored.

Where the model runs packed rows exactly, sequences that begin alike are merged into a forest, and a
row has no padding (``decoder.packed``). The forest is cut into units: runs of tokens that attend to
each other by a small dense mask, as a question with its options. What many units begin with
(few-shot examples, a passage) is their trunk, in units of its own before them, so that it is
computed once. Elsewhere a plain row is the context and one option; equal rows are run once, and
rows are sorted by length and padded on the right, which a causal model cannot see.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from phaseprune.decoder.packed import Asking, Group, Packing
from phaseprune.questions.encode import EncodedQuestion

PAD = 0
#: The most tokens that attend to each other by a dense mask of their own.
UNIT_TOKENS = 256
#: Tokens of a shared beginning that must be saved for it to become a trunk.
WORTH_SHARING = 32
#: A unit joins a group if it has at least this share of the tokens of the group's longest.
ALIKE = 0.75

#: What is scored of a sequence: (position of the token before it, target token, slot to add to).
Scored = tuple[int, int, int]
#: Tokens of a sequence, and what is scored of it.
Sequence_ = tuple[tuple[int, ...], list[Scored]]


@dataclass(frozen=True)
class Batch:
    """Tokens that are run together.

    Attributes:
        packing: the packed row; None for plain rows.
        input_ids: ``[R, T]`` token ids, of plain rows padded on the right; R = 1 where packed.
        reads: ``[N]`` the places whose hidden state is read, counted through all rows.
        tokens: how many, without padding.
    """

    packing: Packing | None
    input_ids: torch.Tensor
    reads: torch.Tensor
    tokens: int


@dataclass(frozen=True)
class Shard:
    """Batches that are walked together, what is read off them, and where it is added.

    Attributes:
        batches: a trunk stands before what needs it.
        entry_reads: ``[E]`` which read an entry looks at, counted through all batches,
        entry_targets: ``[E]`` the token that it scores there,
        entry_slots: ``[E]`` and the flat (question, option) slot that it adds to.
    """

    batches: tuple[Batch, ...]
    entry_reads: torch.Tensor
    entry_targets: torch.Tensor
    entry_slots: torch.Tensor

    @property
    def reads(self) -> int:
        """How many states are read off a stream."""
        return sum(len(batch.reads) for batch in self.batches)


@dataclass(frozen=True)
class Rows:
    """All rows of a task.

    Attributes:
        shards: walked one after the other; nothing is shared between them.
        options: ``[Q]`` number of options.
        repeats: how often each question is put, ``[Q]``; the sums of its scores are divided by it.
    """

    shards: tuple[Shard, ...]
    options: np.ndarray
    repeats: np.ndarray

    @property
    def batches(self) -> list[Batch]:
        """The batches of all shards."""
        return [batch for shard in self.shards for batch in shard.batches]

    @property
    def tokens(self) -> int:
        """Tokens that are run, without padding."""
        return sum(batch.tokens for batch in self.batches)

    @property
    def padded_tokens(self) -> int:
        """And with it."""
        return sum(batch.input_ids.numel() for batch in self.batches)

    @property
    def rows(self) -> int:
        """How many rows they stand in."""
        return sum(len(batch.input_ids) for batch in self.batches)

    @property
    def largest_shard(self) -> int:
        """Tokens of the largest shard, with padding."""
        return max(sum(batch.input_ids.numel() for batch in s.batches) for s in self.shards)

    @property
    def shape(self) -> tuple[int, int]:
        """Questions and the largest number of options, (Q, K)."""
        return len(self.options), int(self.options.max())

    @property
    def absent(self) -> np.ndarray:
        """``[Q, K]`` mask of the options that a question does not have."""
        return np.arange(self.shape[1]) >= self.options[:, None]

    def scores(self, sums: torch.Tensor) -> np.ndarray:
        """``[S, Q, K]`` option scores from ``[S, Q * K]`` sums, ``-inf`` where absent."""
        scores = sums.numpy().reshape(-1, *self.shape) / self.repeats[:, None]
        scores[:, self.absent] = -np.inf
        return scores


def make_rows(
    questions: Sequence[EncodedQuestion],
    batch_tokens: int,
    device: torch.device | str = "cpu",
    packed_length: int = 0,
    orders: Sequence[tuple[int, Sequence[int]]] | None = None,
    shard_tokens: int | None = None,
) -> Rows:
    """Lay out the rows of a task.

    Args:
        questions: the encoded questions.
        batch_tokens: the most tokens (with padding) in a batch, unless a single row has more.
        device: where the tensors go.
        packed_length: the most tokens of a sequence in a packed row (``Decoder.packed_length``);
            longer ones, or all for 0, get a plain row.
        orders: for each entry of ``questions``, which question it puts and the positions at which
            that question has its options; None where each is its own in its own order.
        shard_tokens: the most tokens in a shard, unless a single question has more; None for one
            shard of all.
    """
    if orders is None:
        orders = [(n, range(len(q.continuations))) for n, q in enumerate(questions)]
    width = max(len(q.continuations) for q in questions)
    put = [
        list(option_sequences(question, [number * width + option for option in order]))
        for question, (number, order) in zip(questions, orders, strict=True)
    ]
    options = np.zeros(1 + max(number for number, _ in orders), dtype=int)
    for question, (number, _) in zip(questions, orders, strict=True):
        options[number] = len(question.continuations)
    repeats = np.bincount([number for number, _ in orders])
    return lay_out(put, options, repeats, batch_tokens, device, packed_length, shard_tokens)


def lay_out(
    put: Sequence[list[Sequence_]],
    options: np.ndarray,
    repeats: np.ndarray,
    batch_tokens: int,
    device: torch.device | str,
    packed_length: int,
    shard_tokens: int | None = None,
) -> Rows:
    """Rows of the sequences of each question; other arguments as of ``Rows`` and ``make_rows``."""
    shards = [
        make_shard(sequences, batch_tokens, device, packed_length)
        for sequences in _shards(put, shard_tokens)
    ]
    return Rows(tuple(shards), options, repeats)


def option_sequences(question: EncodedQuestion, slots: Sequence[int]) -> Iterator[Sequence_]:
    """One an option: the context and all of its tokens but the last, which is only predicted."""
    last = len(question.context) - 1
    for option, continuation in enumerate(question.continuations):
        scored = [
            (last + i, target, slots[option])
            for i, target in enumerate(continuation)
            if i >= question.first_scored(option)
        ]
        yield question.context + continuation[:-1], scored


def _shards(put: Sequence[list[Sequence_]], most: int | None) -> Iterator[list[Sequence_]]:
    """Sequences of neighbouring questions, of at most so many tokens.

    Tokens that a sequence shares with the one before it are not counted again.
    """
    shard: list[Sequence_] = []
    size, before = 0, ()
    for sequences in put:
        length, last = 0, before
        for tokens, _ in sequences:
            length += len(tokens) - _common(last, tokens)
            last = tokens
        if shard and most is not None and size + length > most:
            yield shard
            shard, size = [], 0
            length += _common(before, sequences[0][0])
        shard, before = shard + sequences, last
        size += length
    yield shard


def make_shard(
    sequences: Iterable[Sequence_], batch_tokens: int, device, packed_length: int
) -> Shard:
    """Lay out sequences that are walked together; arguments as of ``make_rows``."""
    packed: list[Sequence_] = []
    plain: dict[tuple[int, ...], list[Scored]] = {}
    for tokens, scored in sequences:
        if len(tokens) <= packed_length:
            packed.append((tokens, scored))
        else:
            plain.setdefault(tokens, []).extend(scored)
    batches, entries, reads = [], [], 0
    for packing, input_ids, length, scored in (
        *_packed(packed, batch_tokens, device),
        *_padded(plain, batch_tokens, device),
    ):
        places = sorted({place for place, _, _ in scored})
        number = {place: reads + read for read, place in enumerate(places)}
        entries += [(number[place], target, slot) for place, target, slot in scored]
        reads += len(places)
        places = torch.tensor(places, dtype=torch.long, device=device)
        batches.append(Batch(packing, input_ids, places, length))
    return Shard(
        tuple(batches), *(torch.tensor(e, device=device) for e in zip(*entries, strict=True))
    )


def _packed(sequences: Sequence[Sequence_], batch_tokens: int, device):
    """Packing, tokens, their number and what is scored, of each packed row."""
    if not sequences:
        return
    units = _cut(_forest(sequences), min(UNIT_TOKENS, batch_tokens))
    first, size = 0, 0
    for number, unit in enumerate((*units, None)):
        if unit is None or (size and size + len(unit.tokens) > batch_tokens):
            packing, scored = _pack(units, first, number, device)
            yield packing, packing.tokens, size, scored
            first, size = number, 0
        size += len(unit.tokens) if unit else 0


def _padded(plain: Mapping[tuple[int, ...], list[Scored]], batch_tokens: int, device):
    """The same of plain rows, longest first; what is scored by the place through all rows."""
    rows = sorted(plain.items(), key=lambda row: -len(row[0]))
    while rows:
        longest = len(rows[0][0])
        count = max(1, batch_tokens // longest)
        filled = [tokens + (PAD,) * (longest - len(tokens)) for tokens, _ in rows[:count]]
        scored = [
            (number * longest + position, target, slot)
            for number, (_, entries) in enumerate(rows[:count])
            for position, target, slot in entries
        ]
        length = sum(len(tokens) for tokens, _ in rows[:count])
        yield None, torch.tensor(filled, device=device), length, scored
        rows = rows[count:]


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


def _forest(sequences: Iterable[tuple[Sequence[int], Sequence[Scored]]]) -> Node:
    """The forest of some sequences, under a root without tokens."""
    root = Node()
    for tokens, scored in sequences:
        path, starts, at, node = [], [], 0, root
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                child = node.children[tokens[at]] = Node(tuple(tokens[at:]))
            else:
                shared = _common(child.tokens, tokens, at)
                if shared < len(child.tokens):
                    child.cut(shared)
            path.append(child)
            starts.append(at)
            at, node = at + len(child.tokens), child
        for position, target, slot in scored:
            place = bisect_right(starts, position) - 1
            path[place].scored.append((position - starts[place], target, slot))
    return root


def _common(known: Sequence[int], tokens: Sequence[int], at: int = 0) -> int:
    """How many tokens ``known`` begins with that also stand in ``tokens`` from ``at``."""
    most = min(len(known), len(tokens) - at)
    for count in range(most):
        if known[count] != tokens[at + count]:
            return count
    return most


def _cut(root: Node, most: int) -> list[Unit]:
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
            (child, position + len(node.tokens), end) for child in reversed(node.children.values())
        ]
    return Unit(tuple(tokens), tuple(positions), tuple(parents), tuple(scored), trunk)


def _pack(
    units: Sequence[Unit], first: int, last: int, device: torch.device | str
) -> tuple[Packing, list[Scored]]:
    """The packed row of the units ``first`` to ``last`` (excluded) of a forest.

    Args:
        units: all units; a trunk may stand in an earlier row.
        first: number of the first unit of the row.
        last: number behind the last.
        device: where the tensors go.

    Returns:
        The row, and what is scored in it by the number of the token in the row.
    """

    def tensor(values) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values), device=device)

    starts, scored = {}, []
    tokens: list[int] = []
    positions: list[int] = []
    for number in range(first, last):
        unit = units[number]
        starts[number] = len(tokens)
        scored += [(len(tokens) + place, target, slot) for place, target, slot in unit.scored]
        tokens += unit.tokens
        positions += unit.positions
    reads = sorted({place for place, _, _ in scored})
    alike = list(_alike(units, first, last))
    trunks = {trunk for unit in units for trunk in unit.trunk}
    packing = Packing(
        tokens=tensor([tokens]),
        positions=tensor([positions]),
        reads=tensor(np.array(reads, dtype=np.int64)),
        groups=tuple(_group(units, numbers, starts, tensor) for numbers in alike),
        everyone=_asking(units, alike, starts, range(len(tokens)), tensor),
        readers=_asking(units, alike, starts, reads, tensor),
        kept=tuple(
            (number, start, start + len(units[number].tokens))
            for number, start in starts.items()
            if number in trunks
        ),
    )
    return packing, scored


def _alike(units: Sequence[Unit], first: int, last: int) -> Iterator[list[int]]:
    """Neighbouring units with the same trunk and of similar length."""
    group: list[int] = []
    for number in range(first, last):
        if group:
            longest = max(len(units[n].tokens) for n in (*group, number))
            shortest = min(len(units[n].tokens) for n in (*group, number))
            same = units[group[0]].trunk == units[number].trunk
            if not same or shortest < ALIKE * longest:
                yield group
                group = []
        group.append(number)
    yield group


def _group(units: Sequence[Unit], numbers: Sequence[int], starts, tensor) -> Group:
    longest = max(len(units[number].tokens) for number in numbers)
    trunk = units[numbers[0]].trunk
    before = [position for number in trunk for position in units[number].positions]
    index = np.zeros((len(numbers), longest), dtype=np.int64)
    positions = np.zeros((len(numbers), len(before) + longest), dtype=np.int64)
    positions[:, : len(before)] = before
    for row, number in enumerate(numbers):
        length = len(units[number].tokens)
        index[row, :length] = range(starts[number], starts[number] + length)
        positions[row, len(before) : len(before) + length] = units[number].positions
    return Group(tensor(index.ravel()), len(numbers), trunk, tensor(positions))


def _asking(
    units: Sequence[Unit], alike: Sequence[list[int]], starts, asking: Sequence[int], tensor
) -> Asking:
    """The layout of some tokens of the row, ``asking`` in order, as those that attend."""
    number_of = {token: number for number, token in enumerate(asking)}
    order = np.zeros(len(asking), dtype=np.int64)
    index, visible, positions, places = [], [], [], 0
    for numbers in alike:
        longest = max(len(units[number].tokens) for number in numbers)
        before = sum(len(units[number].tokens) for number in units[numbers[0]].trunk)
        inside = [
            [t for t in range(len(units[n].tokens)) if starts[n] + t in number_of] for n in numbers
        ]
        most = max(map(len, inside))
        asked = np.zeros((len(numbers), most), dtype=np.int64)
        seen = np.zeros((len(numbers), most, before + longest), dtype=bool)
        at = np.zeros((len(numbers), most), dtype=np.int64)
        for row, (number, chosen) in enumerate(zip(numbers, inside, strict=True)):
            unit, count = units[number], len(chosen)
            if not count:
                continue
            asked[row, :count] = [number_of[starts[number] + t] for t in chosen]
            order[asked[row, :count]] = places + row * most + np.arange(count)
            seen[row, :count, :before] = True
            seen[row, :count, before : before + len(unit.tokens)] = unit.visible()[chosen]
            at[row, :count] = np.array(unit.positions)[chosen]
        places += len(numbers) * most
        index.append(tensor(asked.ravel()))
        visible.append(tensor(seen))
        positions.append(tensor(at))
    return Asking(tuple(index), tuple(visible), tuple(positions), tensor(order))
