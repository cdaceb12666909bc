"""A question token by token: what a model is given, and what of it is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phaseprune.questions.encode import EncodedQuestion


@dataclass(frozen=True)
class OptionTokens:
    """The tokens of one option, as ids and as the text that each adds.

    Attributes:
        before: ids of the context, the whole of it.
        scored: ids of what is scored.
        before_pieces: text of the last tokens of the context.
        scored_pieces: text of each scored token.
    """

    before: tuple[int, ...]
    scored: tuple[int, ...]
    before_pieces: tuple[str, ...]
    scored_pieces: tuple[str, ...]


def option_tokens(question: EncodedQuestion, tokenizer, last: int = 8) -> list[OptionTokens]:
    """Each option's tokens, with the texts of its ``last`` context tokens and of its own."""
    shown = []
    for option, continuation in enumerate(question.continuations):
        first = question.first_scored(option)
        before, scored = question.context + continuation[:first], continuation[first:]
        texts = pieces(tokenizer, before[-last:] + scored)
        cut = len(texts) - len(scored)
        shown.append(OptionTokens(before, scored, tuple(texts[:cut]), tuple(texts[cut:])))
    return shown


def pieces(tokenizer, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to those before it.

    A token by itself may decode to less: SentencePiece drops a leading space, and one character
    may need several tokens, of which the last shows it.
    """
    texts, before = [], ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        if whole.endswith("\N{REPLACEMENT CHARACTER}") and end < len(ids):
            texts.append("")
            continue
        texts.append(whole[len(before) :])
        before = whole
    return texts
