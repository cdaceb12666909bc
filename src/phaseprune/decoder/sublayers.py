"""The two halves of a block, found by what they do, left out, and run one after the other.

A block with halves adds twice to the hidden state: x -> h = x + A(x), then h -> h + M(h), where A
mixes tokens (attention, or what stands in its place) and M looks at each token alone (the MLP). In
each half one module is looked for whose output is what makes the addition: where it gives zeros the
half adds nothing. All of that is tried out on every block before it is relied on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import nn
from torch.func import functional_call

from phaseprune.decoder.blocks import (
    Calls,
    record_calls,
    replaced_blocks,
    replaced_forwards,
    run_block,
    skipped_blocks,
)
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.items import (
    Item,
    all_items,
    block_of_item,
    half_of_item,
    item_in_words,
    lone_halves,
    whole_blocks,
)
from phaseprune.decoder.verify import PROBE_ROWS, PROBE_TOKENS
from phaseprune.errors import UserError

#: Differences up to so many roundings of the largest value count as none.
ROUNDINGS = 64


@dataclass(frozen=True)
class Part:
    """The module of a block that makes the addition of one half.

    Attributes:
        path: its path in the block.
        length: 0 where it returns a tensor, else the length of the tuple it returns.
        width: values of a token in what it returns.
    """

    path: str
    length: int
    width: int

    def nothing(self, *args, **kwargs):
        """Stands in for the module's forward: zeros in the form of its output."""
        given = next(
            value
            for value in (*args, *kwargs.values())
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        )
        zeros = given.new_zeros(*given.shape[:-1], self.width)
        return (zeros, *[None] * (self.length - 1)) if self.length else zeros


#: For each block, the part of its attention and that of its MLP.
Halves = tuple[tuple[Part, Part], ...]


@contextmanager
def without(block: nn.Module, *parts: Part) -> Iterator[None]:
    """Let some parts of a block give zeros while the context lasts; their work is not done."""
    with replaced_forwards((block.get_submodule(part.path), part.nothing) for part in parts):
        yield


@contextmanager
def skipped_items(decoder: Decoder, halves: Halves | None, items: Sequence[Item]) -> Iterator[None]:
    """Run the model without some items (blocks, halves of blocks) while the context lasts.

    Its blocks are then run whole: one that does not attend cannot be left when its keys are known.
    ``halves`` may be None where the items are blocks.
    """
    lone, alone = lone_halves(items), decoder.reads_alone
    with ExitStack() as stack:
        stack.enter_context(skipped_blocks(decoder, set(whole_blocks(items))))
        for item in lone:
            block = block_of_item(item)
            stack.enter_context(without(decoder.blocks[block], part_of(halves, item)))
        decoder.reads_alone = alone and not lone
        try:
            yield
        finally:
            decoder.reads_alone = alone


def part_of(halves: Halves, item: str) -> Part:
    """The part that makes the addition of a half."""
    return halves[block_of_item(item)][half_of_item(item) == "mlp"]


class _Half(nn.Module):
    """A block without its other half. The block's own forward runs, in which that gives zeros."""

    def __init__(self, block: nn.Module, other: Part):
        super().__init__()
        self.block, self.other = block, other
        self.own = block.forward

    def forward(self, *args, **kwargs):
        with without(self.block, self.other):
            return self.own(*args, **kwargs)


def halved(decoder: Decoder, halves: Halves) -> Decoder:
    """A decoder whose blocks are the halves of another's, each called as its block is.

    Half 2i is the attention of block i, half 2i+1 its MLP, so that whatever walks over blocks walks
    over them. It is to be used within ``running_halves`` alone.

    Args:
        decoder: with all its weights in one memory.
        halves: from ``find_halves``.
    """
    modules = [
        _Half(block, other)
        for block, pair in zip(decoder.blocks, halves, strict=True)
        for other in reversed(pair)
    ]
    names = tuple(map(item_in_words, all_items("sublayer", len(decoder.blocks))))
    return replace(
        decoder,
        blocks=nn.ModuleList(modules),
        block_names=names,
        packed_length=None,
        reads_alone=False,
    )


@contextmanager
def running_halves(view: Decoder) -> Iterator[Decoder]:
    """Let the model's blocks call the halves of ``halved``, one after the other."""
    pairs = list(zip(view.blocks[::2], view.blocks[1::2], strict=True))
    model = replace(view, blocks=nn.ModuleList(first.block for first, _ in pairs))
    with replaced_blocks(model, lambda index: _in_turn(view, *pairs[index])):
        yield view


def _in_turn(view: Decoder, first: nn.Module, second: nn.Module):
    def forward(*args, **kwargs):
        between = first(*args, **kwargs)
        between = between[0] if isinstance(between, tuple | list) else between
        if args:
            return second(between, *args[1:], **kwargs)
        return second(**{**kwargs, view.input_name: between})

    return forward


@torch.no_grad()
def find_halves(decoder: Decoder) -> Halves:
    """The halves of every block, tried out on random tokens.

    Of every block it is demanded, up to rounding: without both parts it is the identity; the block
    without its MLP and then the block without its attention are together the block; the MLP does
    not look at other tokens and the attention does; and with all weights of a part at zero the
    block does what it does without that part (that is what an export writes).

    Raises:
        UserError: weights that are not all in place, or a block that has no such halves.
    """
    decoder.placement.require("halves", decoder.name)
    generator = torch.Generator().manual_seed(0)
    vocabulary = decoder.model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(vocabulary, (PROBE_ROWS, PROBE_TOKENS), generator=generator)
    calls = record_calls(decoder, tokens.to(decoder.device))
    shared = _shared_parameters(decoder)
    hidden, probes, known = calls.embedded, [], {}
    for block in range(len(decoder.blocks)):
        probes.append(_Probe(decoder, block, hidden.clone(), calls))
        hidden = probes[-1].whole
        if probes[-1].among(known) is None:
            known |= dict.fromkeys(filter(None, [probes[-1].search()]))
    found = []
    for block, probe in enumerate(probes):
        pair = probe.among(known)  # only now, as a half that adds nothing is found by others
        problem = probe.problem(pair) if pair else probe.why()
        problem = problem or _tied(decoder, block, pair, shared)
        if problem:
            raise UserError(
                f"{decoder.name}: --granularity needs blocks that first add attention and then an "
                f"MLP to the hidden state, and block {block} of {decoder.blocks_path} "
                f"({type(probe.module).__name__}) {problem}; leave --granularity out to remove "
                "whole blocks"
            )
        found.append(pair)
    return tuple(found)


class _Probe:
    """One block on one hidden state, with and without some of its parts."""

    def __init__(self, decoder: Decoder, block: int, hidden: torch.Tensor, calls: Calls):
        self.module = decoder.blocks[block]
        self.hidden = hidden
        self._run = lambda state: run_block(decoder, block, state.clone(), calls)
        self._calls, self._decoder, self._block = calls, decoder, block
        self.parts: list[Part] = []
        self.whole = self._watched()
        size = float(torch.maximum(self.whole.abs().max(), hidden.abs().max()))
        self.tolerance = ROUNDINGS * torch.finfo(hidden.dtype).eps * max(size, 1e-30)

    def _watched(self) -> torch.Tensor:
        """The block's output; takes down its modules, those of most parameters first."""
        order: list[Part] = []

        def hook(path: str) -> Callable:
            def note(module, args, output):
                first = output[0] if isinstance(output, tuple | list) else output
                if isinstance(first, torch.Tensor):
                    length = len(output) if isinstance(output, tuple | list) else 0
                    order.append(Part(path, length, first.shape[-1]))

            return note

        hooks = [
            child.register_forward_hook(hook(name)) for name, child in self.module.named_children()
        ]
        try:
            whole = self._run(self.hidden)
        finally:
            for each in hooks:
                each.remove()
        once = [part for part in order if order.count(part) == 1]
        sizes = {p.path: _size(self.module.get_submodule(p.path)) for p in once}
        # Of a half's modules of equal size the later makes the addition (OPT's fc1 and fc2).
        last_first = reversed([part for part in once if sizes[part.path]])
        self.parts = sorted(last_first, key=lambda part: -sizes[part.path])
        self._called = [part.path for part in once]
        return whole

    def without(self, *parts: Part, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """The block's output where these parts give zeros."""
        with without(self.module, *parts):
            return self._run(self.hidden if hidden is None else hidden)

    def same(self, found: torch.Tensor, expected: torch.Tensor) -> bool:
        """Whether two states are equal but for rounding."""
        return float((found - expected).abs().max()) <= self.tolerance

    def search(self) -> tuple[Part, Part] | None:
        """The parts of both halves; None where there are none."""
        pairs = [
            sorted(pair, key=lambda part: self._called.index(part.path))
            for pair in combinations(self.parts, 2)
        ]
        return next((tuple(pair) for pair in pairs if self._tried(self._halves, *pair)), None)

    def among(self, known: Iterable[tuple[Part, Part]]) -> tuple[Part, Part] | None:
        """The parts of other blocks that are the parts of this one too; None where none are."""
        names = dict(self.module.named_children())
        pairs = [pair for pair in known if all(part.path in names for part in pair)]
        return next((pair for pair in pairs if self._tried(self.composes, *pair)), None)

    def _halves(self, attention: Part, mlp: Part) -> bool:
        adds = not any(self.same(self.without(part), self.hidden) for part in (attention, mlp))
        return adds and self.composes(attention, mlp) and self._mixes(attention, mlp)

    @staticmethod
    def _tried(holds: Callable[[Part, Part], bool], attention: Part, mlp: Part) -> bool:
        try:
            return holds(attention, mlp)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # noqa: BLE001 - zeros for a module that is no part raise anything
            return False

    def composes(self, attention: Part, mlp: Part) -> bool:
        """Whether the block is the one half and then the other, and nothing without both."""
        both = self.without(attention, hidden=self.without(mlp))
        return self.same(self.without(attention, mlp), self.hidden) and self.same(both, self.whole)

    def _mixes(self, attention: Part, mlp: Part) -> bool:
        """Whether attention, and not the MLP, looks at the token before."""
        other = self.hidden.clone()
        other[:, -2] = -other[:, -2].flip(-1)

        def changes(part: Part) -> bool:
            last = (self.without(part, hidden=state)[:, -1] for state in (self.hidden, other))
            return not self.same(*last)

        return changes(mlp) and not changes(attention)

    def problem(self, pair: Sequence[Part]) -> str | None:
        """What is wrong with halves whose weights are set to zero; None if they add nothing."""
        rest, named = self._calls.arguments[self._block]
        for part in pair:
            inside = self.module.get_submodule(part.path).named_parameters(part.path)
            zeros = {name: torch.zeros_like(weight) for name, weight in inside}
            output = functional_call(self.module, zeros, (self.hidden.clone(), *rest), dict(named))
            output = output[0] if isinstance(output, tuple | list) else output
            if not self.same(output, self.without(part)):  # also where it is NaN
                return f"still adds something where the weights of its {part.path} are zero"
        return None

    def why(self) -> str:
        """Why no halves were found."""
        for first, second in combinations(self.parts, 2):
            try:
                alone = [self.without(part) - self.hidden for part in (first, second)]
                nothing = self.same(self.without(first, second), self.hidden)
            except Exception:  # noqa: BLE001, S112 - as in _tried
                continue
            added = nothing and not any(self.same(a, torch.zeros_like(a)) for a in alone)
            if added and self.same(self.hidden + sum(alone), self.whole):
                return "runs both side by side on the same hidden state"
        return "has no two modules without which exactly one of the two is not added"


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _shared_parameters(decoder: Decoder) -> dict[int, list[str]]:
    """The names of each parameter of the model."""
    names: dict[int, list[str]] = {}
    for name, parameter in decoder.model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def _tied(
    decoder: Decoder, block: int, pair: Sequence[Part], shared: dict[int, list[str]]
) -> str | None:
    """What a half shares with the rest of the model, so that it cannot be zero by itself."""
    for part in pair:
        prefix = f"{decoder.blocks_path}.{block}.{part.path}."
        for parameter in decoder.blocks[block].get_submodule(part.path).parameters():
            other = [name for name in shared[id(parameter)] if not name.startswith(prefix)]
            if other:
                return f"shares weights of its {part.path} with {other[0]}"
    return None
