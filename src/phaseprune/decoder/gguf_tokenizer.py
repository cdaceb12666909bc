"""The tokenizer of a GGUF file, made to tokenise as llama.cpp does.

What llama.cpp takes where a key lacks is its own (``llama_vocab::impl::load``); transformers takes
something else of some: whether a text begins with BOS, whether a space is put before it, and how it
is split before pairs are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phaseprune.decoder.gguf_header import GgufHeader
from phaseprune.errors import UserError

PREFIX = "tokenizer.ggml."
#: Byte-level kinds that begin a text with BOS where ``add_bos_token`` lacks.
_BOS_BY_KIND = (
    "llama3",
    "llama-v3",
    "llama-bpe",
    "falcon3",
    "falcon-h1",
    "pixtral",
    "midm-2.0",
    "lfm2",
    "jina-v5-nano",
    "tekken",
    "chameleon",
)
#: Kinds that take a word which is a token whole, whatever the merges make of it.
_WHOLE_WORDS = (*_BOS_BY_KIND[:-1], "minicpm5", "youtu")
#: llama.cpp's own BOS where ``bos_token_id`` lacks, by the tokenizer's model.
_BOS_IDS = {"llama": 1, "gpt2": 11}
#: How byte-level kinds split that transformers' table does not have: as GPT-2, digits by
#: themselves first, as another kind of the table, or by patterns of their own.
_AS_GPT2 = (
    "gpt-2",
    "phi-2",
    "jina-es",
    "jina-de",
    "jina-v2-es",
    "jina-v2-de",
    "gigachat",
    "a.x-4.0",
    "mellum",
    "modern-bert",
    "exaone4",
    "mpt",
    "olmo",
    "jais",
    "trillion",
    "granite-docling",
)
_DIGITS_FIRST = (
    "starcoder",
    "refact",
    "command-r",
    "smollm",
    "codeshell",
    "exaone",
    "minerva-7b",
    "mellum2",
)
_AS_QWEN2 = ("stablelm2", "hunyuan", "solar-open", "grok-2")
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_PATTERNS = {
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"),
    "bloom": (_BLOOM,),
    "gpt3-finnish": (_BLOOM,),
    "poro-chat": (_BLOOM,),
    "viking": (_BLOOM, r"\p{N}"),
} | dict.fromkeys(_DIGITS_FIRST, (r"\p{N}", _GPT2))


def settle_tokenizer(tokenizer: Any, header: GgufHeader) -> None:
    """Have a tokenizer that transformers made of a file tokenise as llama.cpp does.

    Args:
        tokenizer: of transformers; changed.
        header: of the file.

    Raises:
        UserError: texts would be split otherwise, by the key.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    model = header.fields.get(f"{PREFIX}model")
    if core is None or model is None:
        return
    if model == "gpt2":
        _settle_split(core, header)
    elif model == "llama":
        _settle_space(tokenizer, core, header)
    _settle_bos(tokenizer, header, model)


def puts_bos(header: GgufHeader) -> bool:
    """Whether llama.cpp begins a text with BOS."""
    model = header.fields.get(f"{PREFIX}model")
    kind = header.fields.get(f"{PREFIX}pre", "")
    if model == "gemma4":
        return True
    stated = header.fields.get(f"{PREFIX}add_bos_token")
    if stated is not None:
        return bool(stated)
    return model in ("llama", "bert") or (model == "gpt2" and kind in _BOS_BY_KIND)


def bos_words(header: GgufHeader, tokenizer: Any) -> str:
    """In words, whether texts begin with BOS and what says so."""
    stated = header.fields.get(f"{PREFIX}add_bos_token")
    why = "as the file says" if stated is not None else "as llama.cpp does where the file is silent"
    put = puts_bos(header) and tokenizer.bos_token is not None
    return f"texts {'begin' if put else 'do not begin'} with BOS, {why}"


def _settle_bos(tokenizer: Any, header: GgufHeader, model: str) -> None:
    kind = header.fields.get(f"{PREFIX}pre", "")
    if tokenizer.bos_token is None and kind not in ("glm4", "chatglm-bpe"):
        number = _BOS_IDS.get(model)
        if number is not None and puts_bos(header) and number < len(tokenizer):
            tokenizer.bos_token = tokenizer.convert_ids_to_tokens(number)
    wanted = puts_bos(header) and tokenizer.bos_token is not None
    if bool(getattr(tokenizer, "add_bos_token", False)) != wanted or _begins(tokenizer) != wanted:
        tokenizer.add_bos_token = wanted
    if _begins(tokenizer) != wanted:
        raise UserError(
            f"{header.path.name}: texts {'begin' if wanted else 'do not begin'} with BOS in "
            f"llama.cpp ({PREFIX}add_bos_token), and this tokenizer cannot be told so; give the "
            "model's own checkpoint"
        )


def _begins(tokenizer: Any) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and tokenizer.bos_token is not None and ids[0] == tokenizer.bos_token_id


def _settle_split(core: Any, header: GgufHeader) -> None:
    """Have a byte-level tokenizer split as llama.cpp does for its kind."""
    from tokenizers import Regex, pre_tokenizers

    kind = header.fields.get(f"{PREFIX}pre", "default")
    if kind in _WHOLE_WORDS and hasattr(core.model, "ignore_merges"):
        core.model.ignore_merges = True
    known = _their_patterns()
    patterns: Sequence[str] | None = _PATTERNS.get(kind)
    if kind in _AS_QWEN2 and "qwen2" in known:
        patterns = (known["qwen2"],)
    if patterns is not None:
        splits = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns]
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_])
    elif kind not in (*known, *_AS_GPT2, "default", ""):
        raise UserError(
            f"{header.path.name}: {PREFIX}pre is {kind!r}, and neither transformers nor this "
            "splits texts in that way; give the model's own checkpoint, with its tokenizer"
        )


def _their_patterns() -> dict[str, str]:
    """Kinds whose patterns transformers has applied already."""
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:  # another release: its plain byte-level reading is what there is
        return {}
    return GGUF_PRE_TOKENIZER_SPLITS


def _settle_space(tokenizer: Any, core: Any, header: GgufHeader) -> None:
    """Have a SentencePiece tokenizer put a space before any text, or none, as the file says."""
    from tokenizers import normalizers

    wanted = bool(header.fields.get(f"{PREFIX}add_space_prefix", True))
    if wanted or _puts_space(tokenizer, "a"):
        before = [normalizers.Prepend("▁")] if wanted else []
        core.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
        core.pre_tokenizer = None
    if _puts_space(tokenizer, "a") != wanted:
        raise UserError(
            f"{header.path.name}: {PREFIX}add_space_prefix is {wanted}, and this tokenizer cannot "
            "be told so; give the model's own checkpoint, with its tokenizer"
        )


def _puts_space(tokenizer: Any, text: str) -> bool:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    return bool(pieces) and pieces[0].startswith("▁")
