"""What is checked when a decoder is loaded, before any work is done with it.

Replaying blocks one by one is right only where the hidden state is all that one block gives to the
next. A model that calls a block twice, or hands on something else that blocks computed (keys and
values, chosen positions, earlier states), is noticed by watching one of its own forwards, also
where a short probe would not feel it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch

from phaseprune.decoder.blocks import (
    Calls,
    record_calls,
    replaced_blocks,
    run_block,
    skipped_blocks,
    split_call,
)
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.readout import read_logits
from phaseprune.errors import UserError

#: Largest |difference| allowed, as a share of the largest |logit|, by the bits of the dtype.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
PROBE_ROWS, PROBE_TOKENS = 2, 12
#: Real prompts: context and continuation. The longest has its label where questions have it.
PROMPTS = (
    ("The capital of France is", " Paris"),
    ("Question: What is the colour of the sky on a clear day?\nAnswer:", " blue"),
    ("Which of these is a fruit?\nA. stone\nB. apple\nC. river\nD. cloud\nAnswer:", " B"),
)
#: Norms square what they are given: weights larger than this overflow (float16's own largest value
#: is far below, and is met by looking at what blocks give).
LARGEST_WEIGHT = 1e19
#: What to do where the blocks that were found are not what is wanted.
OTHER_BLOCKS = "if its blocks are another list, name it with --blocks PATH"


def check_weights(decoder: Decoder) -> None:
    """Refuse weights that are not finite; streamed ones are looked at when they are read.

    Raises:
        UserError: names the block (or the module outside the blocks) and the tensor.
    """
    for path, module in decoder.model.named_modules():
        with decoder.placement.fetched(module, recurse=False):
            own = module.named_parameters(path, recurse=False)
            _refuse_not_finite(decoder, ((n, p) for n, p in own if not p.is_meta))


def check_block_weights(decoder: Decoder, block: int) -> None:
    """The same of one block."""
    path = f"{decoder.blocks_path}.{block}"
    _refuse_not_finite(decoder, decoder.blocks[block].named_parameters(path))


def _refuse_not_finite(decoder: Decoder, named: Iterable[tuple[str, torch.Tensor]]) -> None:
    prefix = decoder.blocks_path + "."
    for name, tensor in named:
        problem = _problem(decoder, name, tensor) if tensor.is_floating_point() else None
        if problem is not None:
            inside = name.startswith(prefix)
            place = f"block {name[len(prefix) :].split('.')[0]}" if inside else "outside the blocks"
            raise UserError(f"{decoder.name}: {place} {problem}")


def _problem(decoder: Decoder, name: str, tensor: torch.Tensor) -> str | None:
    """What is wrong with a weight's values: not finite, or too large to compute with."""
    if tensor.dtype.itemsize < 2 or not tensor.numel():
        return None
    least, most = map(float, torch.aminmax(tensor))  # NaN where one is; makes no copy
    largest = max(-least, most)
    in_dtype = str(tensor.dtype).removeprefix("torch.")
    if not math.isfinite(largest):
        if tensor.dtype == torch.float16:
            todo = "float16 holds no more than 65504: use --dtype=bfloat16 or float32"
        else:
            todo = "the checkpoint is damaged, so fetch it again"
        return f"has NaN or infinite weights ({name}) in {in_dtype}; {todo}"
    if largest > LARGEST_WEIGHT:
        return (
            f"has a weight of {largest:.3g} ({name}), whose square is too large for {in_dtype}; "
            "the checkpoint is damaged, so fetch it again"
        )
    return None


def look_on(
    decoder: Decoder, prompts: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, Watched]:
    """Run the model on random tokens, and find out how its blocks are called and what they return.

    Args:
        decoder: the model.
        prompts: ``[R, PROBE_TOKENS]`` further rows.

    Returns:
        ``[R, T]`` tokens, the same with other last ones, and what the model did with the first.

    Raises:
        UserError: it calls its blocks in another way than one after the other, or gives NaN.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = decoder.model.get_input_embeddings().weight.shape[0]
    shape = (PROBE_ROWS, PROBE_TOKENS)
    tokens = torch.randint(vocabulary, shape, generator=generator).to(decoder.device)
    if prompts is not None:
        tokens = torch.cat([tokens, prompts.to(tokens)])
    watched = watch(decoder, tokens)
    check_calls(decoder, watched, tokens)
    decoder.output_length = watched.lengths[0]
    if not torch.isfinite(watched.logits).all():
        raise UserError(_overflow_words(decoder, watched))
    altered = tokens.clone()
    altered[:, -1] = (altered[:, -1] + 1) % vocabulary
    return tokens, altered, watched


def _overflow_words(decoder: Decoder, watched: Watched) -> str:
    """Where values of the model's own forward stop to be finite, and what to do."""
    if not torch.isfinite(watched.given[0][0]).all():
        place = "the embeddings give"
    elif all(watched.finite):
        place = "what stands behind the last block (norm or head) gives"
    else:
        place = f"block {watched.finite.index(False)} of {decoder.blocks_path} gives"
    return f"{decoder.name}: {place} infinite or NaN values {_in_dtype(decoder)}"


def _in_dtype(decoder: Decoder) -> str:
    name = str(decoder.dtype).removeprefix("torch.")
    if decoder.dtype == torch.float16:
        return "in float16, which holds no more than 65504; use --dtype=bfloat16 or float32"
    return f"in {name} on a few tokens; its weights are damaged, so fetch the checkpoint again"


@torch.no_grad()
def check_readout(decoder: Decoder) -> float:
    """Demand that replaying the blocks and reading out at L gives the model's own logits.

    Also finds out how the blocks return their output, and demands that skipping single blocks in
    replayed streams is what skipping them in the model is.

    Returns:
        The largest absolute difference of the logits on random tokens, and where blocks are fetched
        to run also on the beginnings of real prompts (elsewhere ``own_pipeline`` runs those whole).

    Raises:
        UserError: the logits differ, a later token changes an earlier logit, or the blocks hand on
            more than the hidden state.
    """
    if not decoder.placement.in_place:
        return _check_fetched(decoder)
    tokens, altered, watched = look_on(decoder)
    expected = watched.logits
    tolerance = TOLERANCE[decoder.dtype] * max(1.0, float(expected.abs().max()))
    changed = decoder.model(input_ids=altered, use_cache=False).logits.float() - expected
    _refuse_acausal(decoder, changed, tolerance)
    calls = _record_independent(decoder, watched, tokens)
    skips = sorted({0, len(decoder.blocks) // 2, len(decoder.blocks) - 1})
    *streams, hidden = _try_alone(decoder, lambda: _streams(decoder, calls, skips))
    difference = _try_alone(decoder, lambda: readout_difference(decoder, hidden, expected))
    _refuse_readout(decoder, difference, tolerance)
    for block, stream in zip(skips, streams, strict=True):
        _check_skip(decoder, tokens, block, stream)
    return difference


def _refuse_acausal(decoder: Decoder, changed: torch.Tensor, tolerance: float) -> None:
    """Refuse a model whose logits change (by ``changed``) before the token that was altered."""
    if float(changed[:, :-1].abs().max()) > tolerance:
        raise UserError(
            f"{decoder.name}: a later token changes what the model says before it, so this is an "
            "encoder, not a causal decoder; give a decoder such as Llama or Qwen"
        )


def _record_independent(decoder: Decoder, watched: Watched, tokens: torch.Tensor) -> Calls:
    """How the model calls its blocks, which is refused where they hand on more than the state."""
    calls = _try_alone(decoder, lambda: record_calls(decoder, tokens))
    more = handed_on(decoder, watched, calls)
    if more:
        raise UserError(
            f"{decoder.name}: the {decoder.family} architecture hands on more than the hidden "
            f"state: block {more[0]} of {decoder.blocks_path} is given {more[1]}, which earlier "
            "blocks computed, so skipping one would change what others work with; prune a model "
            "whose blocks are independent"
        )
    return calls


def _refuse_readout(decoder: Decoder, difference: float, tolerance: float) -> None:
    """Refuse a model whose readout at L is not its own logits."""
    if not difference <= tolerance:
        raise UserError(
            f"{decoder.name}: the readout after the last block of {decoder.blocks_path} differs "
            f"from the model's own logits (max |difference| {difference:.2g}, allowed "
            f"{tolerance:.2g}), so this {decoder.family} architecture cannot be traced; "
            f"{OTHER_BLOCKS}"
        )


def check_calls(decoder: Decoder, watched: Watched, tokens: torch.Tensor) -> None:
    """Demand that a model calls its blocks so that skipping one has a meaning.

    Raises:
        UserError: blocks called twice or not in order, or a hidden state that is not one a token.
    """
    where = f"{decoder.name}: the {decoder.family} architecture"
    count = len(decoder.blocks)
    if watched.order != list(range(count)):
        called = ", ".join(map(str, watched.order[:8])) or "none"
        raise UserError(
            f"{where} does not call each of the {count} blocks of {decoder.blocks_path} once and "
            f"in order (but {called} …), so skipping one has no clear meaning; {OTHER_BLOCKS}"
        )
    wrong = [shape for shape in watched.shapes if shape[:2] != tuple(tokens.shape)]
    if wrong:
        raise UserError(
            f"{where} hands a state of shape {list(wrong[0])} from block to block for "
            f"{list(tokens.shape)} tokens in {decoder.blocks_path}, and not one state a token, "
            f"which cannot be read out; {OTHER_BLOCKS}"
        )
    if len(set(watched.lengths)) > 1:
        raise UserError(
            f"{where} has blocks in {decoder.blocks_path} that return their state in different "
            f"forms; {OTHER_BLOCKS}"
        )


def _try_alone(decoder: Decoder, run: Callable[[], Any]) -> Any:
    """What ``run`` gives, which runs blocks one by one; an error of theirs is a refusal."""
    what = f"{decoder.name}: the blocks of {decoder.blocks_path} cannot be run one by one"
    so = f", so this {decoder.family} architecture cannot be traced; {OTHER_BLOCKS}"
    with refused(what, so):
        return run()


def _check_skip(decoder: Decoder, tokens: torch.Tensor, block: int, stream: torch.Tensor) -> None:
    """A stream replayed beside others without a block against the model that skips it."""
    what = (
        f"{decoder.name}: this {decoder.family} model cannot run without block {block} of "
        f"{decoder.blocks_path}"
    )
    with refused(what, ", so its blocks cannot be pruned"), skipped_blocks(decoder, {block}):
        expected = decoder.model(input_ids=tokens, use_cache=False).logits.float()
    _refuse_other_skip(decoder, block, stream, expected)


def _refuse_other_skip(
    decoder: Decoder, block: int, stream: torch.Tensor, expected: torch.Tensor
) -> None:
    """Refuse a model whose replayed stream without a block is not its own forward without it."""
    if not (torch.isfinite(stream).all() and torch.isfinite(expected).all()):
        raise UserError(
            f"{decoder.name}: without block {block} of {decoder.blocks_path} the others give "
            f"infinite or NaN values {_in_dtype(decoder)}"
        )
    tolerance = TOLERANCE[decoder.dtype] * max(1.0, float(expected.abs().max()))
    difference = readout_difference(decoder, stream, expected)
    if not difference <= tolerance:
        raise UserError(
            f"{decoder.name}: skipping block {block} of {decoder.blocks_path} in a stream of its "
            f"own differs from the model that skips it (max |difference| {difference:.2g}, allowed "
            f"{tolerance:.2g}), so blocks of this {decoder.family} architecture depend on each "
            "other by more than the hidden state, and it cannot be pruned"
        )


def readout_difference(decoder: Decoder, hidden: torch.Tensor, expected: torch.Tensor) -> float:
    """Max |difference| of the readout of ``[R, T, D]`` states, whole and by rows, from logits."""
    flat = hidden.flatten(0, 1)
    read = read_logits(decoder, flat)
    difference = float((read - expected.reshape(len(flat), -1)).abs().max())
    step = max(1, read.shape[-1] // 7)
    rows = torch.arange(0, read.shape[-1], step, device=decoder.device)
    by_rows = read_logits(decoder, flat, rows)
    return max(difference, float((by_rows - read[:, rows]).abs().max()))


def _streams(decoder: Decoder, calls: Calls, skips: Sequence[int]) -> list[torch.Tensor]:
    """``[R, T, D]`` last states: of streams without each block of ``skips``, and the whole model's.

    They run side by side, block by block, as a sweep runs them.
    """
    base, streams = calls.embedded, []
    for index in range(len(decoder.blocks)):
        streams = [run_block(decoder, index, stream, calls) for stream in streams]
        if index in skips:
            streams.append(base)
        base = run_block(decoder, index, base.clone(), calls)
    return [*streams, base]


def _check_fetched(decoder: Decoder) -> float:
    """The same where blocks are fetched to run, in two walks over them.

    One is a forward of the model's own that is looked on at. In the other every comparison is a few
    rows of one more forward; the replayed streams run beside it, block by block, while a block's
    weights are in memory.
    """
    tokens, altered, watched = look_on(decoder, _prompt_rows(decoder))
    calls = _record_independent(decoder, watched, tokens)
    skips = sorted({0, len(decoder.blocks) // 2, len(decoder.blocks) - 1})

    logits, (whole, *streams) = _try_alone(
        decoder, lambda: _side_by_side(decoder, calls, tokens, altered, skips)
    )
    expected, changed, *skipped = logits.split(len(tokens))
    tolerance = TOLERANCE[decoder.dtype] * max(1.0, float(expected.abs().max()))
    _refuse_acausal(decoder, changed - expected, tolerance)
    difference = max(readout_difference(decoder, whole, own) for own in (expected, watched.logits))
    _refuse_readout(decoder, difference, tolerance)
    for block, stream, own in zip(skips, streams, skipped, strict=True):
        _refuse_other_skip(decoder, block, stream, own)
    return difference


def _prompt_rows(decoder: Decoder) -> torch.Tensor:
    """``[R, PROBE_TOKENS]`` beginnings of those real prompts that are long enough."""
    found = [decoder.tokenizer(context + answer)["input_ids"] for context, answer in PROMPTS]
    rows = [ids[:PROBE_TOKENS] for ids in found if len(ids) >= PROBE_TOKENS]
    return torch.tensor(rows, dtype=torch.long).reshape(-1, PROBE_TOKENS)


def _side_by_side(
    decoder: Decoder, calls: Calls, tokens: torch.Tensor, altered: torch.Tensor, skips: list[int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The model's own forward, and replayed streams beside it.

    Returns:
        Float32 logits of the tokens, of the altered ones, and of the tokens without each block of
        ``skips``; and the last states of the replayed streams: of all blocks, and without each.
    """
    rows = len(tokens)
    streams = [calls.embedded]
    last = len(decoder.blocks) - 1

    def beside(index: int) -> Callable:
        forward = decoder.blocks[index].forward

        def hidden_of(output):
            return output[0] if isinstance(output, tuple | list) else output

        def both(*args, **kwargs):
            given, _, _ = split_call(decoder, args, kwargs)
            given = given.clone()  # blocks may write into what they are given
            rest, named = calls.arguments[index]
            with decoder.resident(index, index + 1 if index < last else None):
                born = [streams[0].clone()] if index in skips else []
                streams[:] = [hidden_of(forward(s.clone(), *rest, **named)) for s in streams] + born
                out = hidden_of(forward(*args, **kwargs)).clone()
            if index in skips:
                first = rows * (2 + skips.index(index))
                out[first : first + rows] = given[first : first + rows]
            return decoder.block_output(out)

        return both

    together = torch.cat([tokens, altered, *[tokens] * len(skips)])
    with replaced_blocks(decoder, beside):
        logits = decoder.model(input_ids=together, use_cache=False).logits.float()
    return logits, [stream.to(decoder.device) for stream in streams]


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
