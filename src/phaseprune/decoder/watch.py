"""What a model does with its blocks, watched in one of its own forwards.

Replaying blocks one by one is right only where the hidden state is all that one block gives to the
next. A model that calls a block twice, or hands on something else that blocks computed (keys and
values, chosen positions, earlier states), is noticed here, also where a short probe would not feel
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch

from phaseprune.decoder.blocks import Calls, split_call
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError


@dataclass
class Watched:
    """One forward of the model's own.

    Attributes:
        logits: what it gave, ``[R, T, V]`` float32.
        order: the blocks in the order in which they were called.
        given: of each call, the hidden state and the arguments beside it.
        lengths: of each call, 0 where a tensor was returned, else the length of the tuple.
        shapes: of each call, the shape of the hidden state that it returned.
        finite: of each call, whether that was finite.
    """

    logits: torch.Tensor | None = None
    order: list[int] = field(default_factory=list)
    given: list[tuple[torch.Tensor, tuple, dict[str, Any]]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    finite: list[bool] = field(default_factory=list)


@contextmanager
def refused(what: str, so: str) -> Iterator[None]:
    """Turn an error of a family's own code into a refusal: what fails (the error), so what."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - code of any family
        raise UserError(f"{what} ({type(error).__name__}: {first_words(error)}){so}") from error


@torch.no_grad()
def watch(decoder: Decoder, tokens: torch.Tensor) -> Watched:
    """Run the model on ``[R, T]`` tokens and look on.

    Raises:
        UserError: its own forward fails.
    """
    watched = Watched()

    def hook(index: int):
        def look(module, args, kwargs, output):
            several = isinstance(output, tuple | list)
            watched.order.append(index)
            watched.given.append(split_call(decoder, args, kwargs))
            watched.lengths.append(len(output) if several else 0)
            state = output[0] if several else output
            watched.shapes.append(tuple(getattr(state, "shape", ())))
            numbers = isinstance(state, torch.Tensor)
            watched.finite.append(not numbers or bool(torch.isfinite(state).all()))

        return look

    handles = [
        block.register_forward_hook(hook(index), with_kwargs=True)
        for index, block in enumerate(decoder.blocks)
    ]
    what = f"{decoder.name}: the model itself fails on a few random tokens"
    try:
        with refused(what, "; mend its configuration or give another checkpoint"):
            watched.logits = decoder.model(input_ids=tokens, use_cache=False).logits.float()
    finally:
        for handle in handles:
            handle.remove()
    return watched


@torch.no_grad()
def handed_on(decoder: Decoder, watched: Watched, calls: Calls) -> tuple[int, str] | None:
    """The first block, and its argument, to which other blocks hand on more than the hidden state.

    Such an argument is another one when all blocks are the identity, and the block returns
    something else with it.

    Args:
        decoder: the model.
        watched: its own forward.
        calls: recorded on the same tokens with all blocks the identity.
    """
    for index, block in enumerate(decoder.blocks):
        hidden, rest, named = watched.given[index]
        still_rest, still_named = calls.arguments[index]
        before = dict(enumerate(still_rest, start=1)) | still_named
        for name, value in (dict(enumerate(rest, start=1)) | named).items():
            if _equal(value, before.get(name)):
                continue
            # Copies, since blocks may write into what they are given.
            others = [_filled(before.get(name)), _filled(value, 0), _filled(value, 1)]
            if any(_changes(block, hidden, rest, named, name, other) for other in others):
                return index, _called(block, name)
    return None


def first_words(error: BaseException) -> str:
    """What an error says, short and on one line."""
    return " ".join(str(error).split())[:160]


def _called(block, name: int | str) -> str:
    """What a block calls an argument, which may be given by its place."""
    names = list(signature(block.forward).parameters)
    return names[name] if isinstance(name, int) and name < len(names) else str(name)


def _changes(block, hidden, rest: tuple, named: dict, name: int | str, other: Any) -> bool:
    """Whether a block returns something else where one of its arguments is another."""

    def run(rest: tuple, named: dict) -> torch.Tensor:
        output = block(hidden.clone(), *rest, **named)
        return output[0] if isinstance(output, tuple | list) else output

    try:
        usual = run(rest, named)
        if isinstance(name, int):
            return not torch.equal(run((*rest[: name - 1], other, *rest[name:]), named), usual)
        return not torch.equal(run(rest, named | {name: other}), usual)
    except (UserError, torch.OutOfMemoryError):  # a streamed block that cannot be read
        raise
    except Exception:  # noqa: BLE001 - it cannot do with the other: it looks at it
        return True


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other.to(one.device))
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and _equal(list(one.items()), list(other.items()))
    if isinstance(one, tuple | list):
        same = isinstance(other, tuple | list) and len(one) == len(other)
        return same and all(_equal(*pair) for pair in zip(one, other, strict=True))
    return type(one) is type(other)


def _filled(value: Any, filling: int | None = None) -> Any:
    """A copy of containers, with the tensors in them filled with a value, or as they are."""
    if isinstance(value, torch.Tensor):
        return value if filling is None else torch.full_like(value, filling)
    if isinstance(value, Mapping):
        return {key: _filled(part, filling) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_filled(part, filling) for part in value)
    return value

