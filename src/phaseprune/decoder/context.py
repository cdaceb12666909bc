"""How many tokens a model takes: as lm-evaluation-harness finds it, and no more than it can."""

from __future__ import annotations

from typing import Any

#: lm-eval's own (``HFLM.max_length``), in its order, and what it takes where nothing is stated.
LM_EVAL_FIELDS = ("n_positions", "max_position_embeddings", "n_ctx")
LM_EVAL_DEFAULT = 2048
#: Fields of single families that lm-eval does not read: more than they state fails in some (MPT).
OWN_FIELDS = ("max_seq_len", "seq_length", "max_sequence_length", "model_max_length")
#: transformers' "no limit" of a tokenizer is a number of this size.
UNLIMITED = 10**29


def context_limit(config: Any, tokenizer: Any = None) -> int:
    """Tokens that a model is given at most, so that figures are those of lm-eval.

    lm-eval takes the first of ``n_positions``, ``max_position_embeddings`` and ``n_ctx`` of the
    configuration, else the tokenizer's ``model_max_length``, else 2048. A family's own field, which
    lm-eval does not know, can only lower that.

    Args:
        config: of transformers.
        tokenizer: of transformers; None where it is not known.
    """
    text = config.get_text_config(decoder=True)
    stated = _first(text, LM_EVAL_FIELDS)
    if stated is not None:
        return stated
    told = _length(getattr(tokenizer, "model_max_length", None))
    found = LM_EVAL_DEFAULT if told is None else told
    return min(found, _first(text, OWN_FIELDS) or found)


def _first(config: Any, fields: tuple[str, ...]) -> int | None:
    lengths = (_length(getattr(config, field, None)) for field in fields)
    return next((length for length in lengths if length is not None), None)


def _length(value: Any) -> int | None:
    """A length that limits anything; XLNet states -1, and tokenizers a huge number, for none."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if usable and 0 < value < UNLIMITED else None
