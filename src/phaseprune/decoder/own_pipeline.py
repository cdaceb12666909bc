"""A few real prompts through the checkpoint's own pipeline, and through ours.

Its own is what plain transformers does: the tokenizer called on the text, and the model's forward
on all that the tokenizer gives. Ours: context and continuation tokenised as lm-eval does, and the
blocks run one by one on the tokens alone. Both must give the same tokens, or it is said where they
do not, and the same logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from phaseprune.decoder.blocks import record_calls, run_block
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.readout import read_logits
from phaseprune.decoder.verify import PROMPTS, TOLERANCE
from phaseprune.errors import UserError
from phaseprune.questions.encode import encode_pair


@dataclass(frozen=True)
class Pipeline:
    """What the comparison found.

    Attributes:
        prompts: how many were compared.
        begins_with: the special token that the tokenizer puts before a text; None for none.
        max_length: tokens that the model is given at most.
        difference: the largest one of the logits; None where only tokens were compared.
        remarks: what differs, a sentence each; empty where nothing does.
    """

    prompts: int
    begins_with: str | None
    max_length: int
    difference: float | None
    remarks: tuple[str, ...] = ()


def check_ids(name: str, tokenizer: Any, rows: int) -> None:
    """Refuse a tokenizer that makes ids which the embeddings have no row for.

    Special tokens (a picture's, padding) do not come from a question's text by themselves; a
    question that has one is refused when it is put.

    Args:
        name: what the user called the model.
        tokenizer: of transformers.
        rows: of the embeddings.

    Raises:
        UserError: names the ids.
    """
    beyond = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= rows)
    if not beyond:
        return
    special = set(tokenizer.all_special_ids) | {
        number
        for number, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
        if token.special
    }
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    plain = [(i, token) for i, token in beyond if i not in special or i in ends]
    if plain:
        (first, _), (last, token) = plain[0], plain[-1]
        raise UserError(
            f"{name}: the tokenizer makes ids up to {last} ({token!r}) and the embeddings have "
            f"{rows} rows, so {len(plain)} ids from {first} on have none; give the tokenizer that "
            "belongs to these weights, or a checkpoint with as many embeddings"
        )


@torch.no_grad()
def compare_pipelines(decoder: Decoder) -> Pipeline:
    """Run the prompts through both.

    Where blocks are not in memory the logits are not compared here: real prompts are among the rows
    of the load-time walk (``verify.check_readout``).

    Raises:
        UserError: logits differ, and what of the tokenizer's output makes them.
    """
    tokenizer = decoder.tokenizer
    rows = decoder.model.get_input_embeddings().weight.shape[0]
    remarks, differences = [], []
    begins = None
    for context, continuation in PROMPTS:
        theirs = list(tokenizer(context + continuation)["input_ids"])
        ours = [token for part in encode_pair(tokenizer, context, continuation) for token in part]
        if ours != theirs:
            remarks.append(_other_tokens(tokenizer, context + continuation, theirs, ours))
        if not theirs or max(theirs) >= rows:
            continue
        begins = begins or _special_start(tokenizer, theirs)
        if decoder.placement.in_place:
            differences.append(_difference(decoder, context + continuation, remarks))
    limit = decoder.position_limit
    if limit is not None and limit < decoder.stated_length:
        remarks.append(
            f"the model has positions for {limit} tokens and {decoder.stated_length} are stated; "
            f"inputs are cut to {limit}"
        )
    worst = max(differences, default=None)
    return Pipeline(len(PROMPTS), begins, decoder.max_length, worst, tuple(dict.fromkeys(remarks)))


def _special_start(tokenizer: Any, ids: list[int]) -> str | None:
    special = ids[0] in tokenizer.all_special_ids
    return tokenizer.convert_ids_to_tokens(ids[0]) if special else None


def _other_tokens(tokenizer: Any, text: str, theirs: list[int], ours: list[int]) -> str:
    """Where the tokens of context and continuation are not those of the whole text."""
    pairs = list(zip(theirs, ours, strict=False))
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    shown = [
        repr(tokenizer.convert_ids_to_tokens(ids[place])) if place < len(ids) else "nothing"
        for ids in (theirs, ours)
    ]
    return (
        f"of {text[:30]!r} … the whole text has {shown[0]} as token {place}, and context and "
        f"continuation put as lm-eval does have {shown[1]}"
    )


def _difference(decoder: Decoder, text: str, remarks: list[str]) -> float:
    """Largest difference of the logits of a text: the model's own forward, and ours."""
    encoded = decoder.tokenizer(text, return_tensors="pt")
    limit = decoder.stated_length  # cut on the left, as longer questions are
    given = {key: value[:, -limit:].to(decoder.device) for key, value in encoded.items()}
    tokens = given.pop("input_ids")
    with _positions_watched(decoder, tokens.shape[1]):
        theirs = _logits(decoder, tokens, given)
    calls = record_calls(decoder, tokens)
    hidden = calls.embedded
    for block in range(len(decoder.blocks)):
        hidden = run_block(decoder, block, hidden.clone(), calls)
    ours = read_logits(decoder, hidden[0])
    tolerance = TOLERANCE[decoder.dtype] * max(1.0, float(theirs.abs().max()))
    difference = float((ours - theirs).abs().max())
    if difference <= tolerance:
        return difference
    causes = [
        key
        for key in given
        if float((_logits(decoder, tokens, given | {key: None}) - theirs).abs().max()) > tolerance
    ]
    why = f": the tokenizer gives {', '.join(causes)}, which blocks alone lack" if causes else ""
    raise UserError(
        f"{decoder.name}: of a real prompt ({text[:30]!r} …) plain transformers gives other logits "
        f"than the blocks run one by one (max |difference| {difference:.3g}, allowed "
        f"{tolerance:.3g}){why}; give another checkpoint"
    )


def _logits(decoder: Decoder, tokens: torch.Tensor, given: dict[str, Any]) -> torch.Tensor:
    given = {key: value for key, value in given.items() if value is not None}
    return decoder.model(input_ids=tokens, use_cache=False, **given).logits[0].float()


@contextmanager
def _positions_watched(decoder: Decoder, tokens: int) -> Iterator[None]:
    """Find out how many positions a model has a table of, while it runs so many tokens."""

    def look(module: nn.Embedding, args: tuple) -> None:
        places = args[0] if args else None
        if not isinstance(places, torch.Tensor) or places.numel() != tokens:
            return
        flat = places.flatten()
        if torch.equal(flat - flat[0], torch.arange(tokens, device=flat.device)):
            limit = module.num_embeddings - int(flat[0])
            decoder.position_limit = min(limit, decoder.position_limit or limit)

    words = decoder.model.get_input_embeddings()
    handles = [
        module.register_forward_pre_hook(look)
        for module in decoder.model.modules()
        if isinstance(module, nn.Embedding) and module is not words
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
