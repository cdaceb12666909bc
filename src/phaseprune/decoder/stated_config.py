"""An export's ``config.json``: the source's own, edited, so that each program reads its dialect.

Files of the hub state things in other words than transformers' objects of today do (``rope_theta``
and ``rope_scaling`` for ``rope_parameters``, ``hybrid_override_pattern`` for a list of layer
types), and other programs read those words. What pruning changes is changed wherever the file says
it; everything else stays as it stands. Then the file is read as transformers reads it, and must
give the configuration that was proved; what is missing for that is added in transformers' words.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from phaseprune.decoder.per_block import LETTERS, cut_to_kept
from phaseprune.decoder.pruned_config import COUNTS, Original

#: What a file may say that does not say what the model computes, or that is settled elsewhere.
ASIDE = frozenset(
    (
        "architectures",
        "auto_map",
        "dtype",
        "model_type",
        "quantization_config",
        "torch_dtype",
        "transformers_version",
        "_name_or_path",
    )
)
DTYPE_KEYS = ("torch_dtype", "dtype")
#: What GPT-NeoX files call the base and the share of rotary embeddings.
_OTHER_ROPE_WORDS = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}


def edited_config(
    stated: Mapping[str, Any] | None,
    original: Original,
    config: Any,
    kept: Sequence[int],
    *,
    architecture: str,
    dtype: str,
) -> dict[str, Any]:
    """The content of an export's ``config.json``.

    Args:
        stated: of the source's; None where it has none of its own, as GGUF.
        original: the full model's configuration.
        config: the pruned one, proved to make the kept blocks.
        kept: original indices of the kept blocks.
        architecture: the model class, where the file names none.
        dtype: of the written weights.
    """
    wanted = _plain(config)
    for name in _said_twice(stated, original.part):
        if name in wanted:
            wanted[name] = wanted[original.part].get(name, wanted[name])
    if stated is None:
        edited = json.loads(json.dumps(config.to_diff_dict()))
    else:
        edited = _settled(_edited(stated, original, wanted, kept), config, wanted)
    edited.setdefault("model_type", config.model_type)
    if not edited.get("architectures"):
        edited["architectures"] = [architecture]
    edited |= _older_words(edited, original.part, config, wanted)
    if stated is not None:
        edited = _true_periods(edited, stated, original, config, wanted, kept)
    _state_dtype(edited, original.part, dtype)
    return edited


def text_part(stated: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """What a multimodal checkpoint's file says of its text model, with that model's type."""
    parts = {name: part for name, part in stated.items() if isinstance(part, dict)}
    found = [part for part in parts.values() if part.get("model_type") == model_type]
    part = found[0] if found else parts.get("text_config", {})
    dtypes = {key: stated[key] for key in DTYPE_KEYS if key in stated}
    return {**dtypes, **copy.deepcopy(part), "model_type": model_type}


def _edited(
    stated: Mapping[str, Any], original: Original, wanted: Mapping[str, Any], kept: Sequence[int]
) -> dict[str, Any]:
    """The file with everything that is per block cut, in the words in which it says it."""
    full, part = _plain(original.config), original.part
    names = original.config.get_text_config(decoder=True).attribute_map
    if part is None:
        return _edited_level(stated, full, wanted, names, original.blocks, kept)
    inner = stated.get(part)
    if isinstance(inner, dict):
        edited = _edited_level(inner, full[part], wanted[part], names, original.blocks, kept)
        said_twice = {name: edited[name] for name in _said_twice(stated, part)}
        return {**stated, **said_twice, part: edited}
    # An older file says at the top what transformers now has in a part.
    flat = {
        name: value
        for name, value in stated.items()
        if not (isinstance(value, dict) and name.endswith("_config"))
    }
    cut = _edited_level(flat, full[part], wanted[part], names, original.blocks, kept)
    return {**stated, **cut}


def _said_twice(stated: Mapping[str, Any] | None, part: str | None) -> list[str]:
    """What a file says alike of the part that the blocks belong to and at the top."""
    inner = (stated or {}).get(part)
    return [
        name
        for name in (inner if isinstance(inner, dict) else ())
        if name in stated and stated[name] == inner[name] and name not in ASIDE
    ]


def _edited_level(
    stated: Mapping[str, Any],
    full: Mapping[str, Any],
    wanted: Mapping[str, Any],
    names: Mapping[str, str],
    blocks: int,
    kept: Sequence[int],
) -> dict[str, Any]:
    edited = cut_to_kept(dict(stated), blocks, kept)
    for name, value in stated.items():
        ours = names.get(name, name)
        if ours in full and ours in wanted:
            if value == full[ours]:
                edited[name] = wanted[ours]
        elif value == blocks and COUNTS.fullmatch(name):
            edited[name] = len(kept)
    return edited


def _settled(edited: dict[str, Any], config: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The file with what transformers does not find in it under the words that it has."""
    for _ in range(3):
        read = _read_as(edited, config)
        if _same(read, wanted, edited):
            return edited
        edited = _completed(edited, read, wanted)
    aside = {name: value for name, value in edited.items() if name in ASIDE}
    return json.loads(json.dumps(config.to_diff_dict())) | aside


def _completed(
    edited: Mapping[str, Any], read: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, Any]:
    completed = dict(edited)
    for name, value in wanted.items():
        if name in ASIDE or read.get(name) == value and name in read:
            continue
        parts = edited.get(name), read.get(name), value
        nested = name.endswith("_config") and all(isinstance(part, dict) for part in parts)
        completed[name] = _completed(*parts) if nested else value
    return completed


def _same(read: Mapping[str, Any], wanted: Mapping[str, Any], stated: Mapping[str, Any]) -> bool:
    """Whether a file (``stated``) was read as it should be.

    Words of the file that are not among transformers' own may stay in what it reads.
    """
    names = (read.keys() | wanted.keys()) - ASIDE - (stated.keys() - wanted.keys())
    if "rope_type" in wanted:  # older files say it as ``type``, and transformers keeps both
        names -= {"type"}
    for name in names:
        if name not in read or name not in wanted:
            return False
        if isinstance(read[name], dict) and isinstance(wanted[name], dict):
            part = stated.get(name)
            if not _same(read[name], wanted[name], part if isinstance(part, dict) else {}):
                return False
        elif read[name] != wanted[name]:
            return False
    return True


def _read_as(edited: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """What transformers makes of a file, in its own words; nothing where it refuses it."""
    try:
        return _plain(type(config).from_dict(copy.deepcopy(dict(edited))))
    except Exception:  # noqa: BLE001 - each family refuses in its own way
        return {}


def _plain(config: Any) -> dict[str, Any]:
    """All values of a configuration as a file has them."""
    return json.loads(config.to_json_string(use_diff=False))


def _older_words(
    edited: Mapping[str, Any], part: str | None, config: Any, wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """What to add so that programs that do not know ``rope_parameters`` read the same.

    The words are tried out: without ``rope_parameters`` they must say what it says.
    """
    nested = part is not None and isinstance(edited.get(part), dict)
    level = edited[part] if nested else edited
    rope = level.get("rope_parameters")
    if not isinstance(rope, dict) or level.keys() & {"rope_theta", "rope_scaling"}:
        return {}

    def put(level: Mapping[str, Any]) -> dict[str, Any]:
        return {**edited, part: level} if nested else dict(level)

    without = {name: value for name, value in level.items() if name != "rope_parameters"}
    for words in _rope_words(rope, "original_max_position_embeddings" in level):
        both = put({**level, **words})
        if all(_same(_read_as(one, config), wanted, one) for one in (put(without | words), both)):
            return both
    return {}


def _true_periods(
    edited: Mapping[str, Any],
    stated: Mapping[str, Any],
    original: Original,
    config: Any,
    wanted: Mapping[str, Any],
    kept: Sequence[int],
) -> dict[str, Any]:
    """The file with its periods true where a list beside them says what each block is.

    Such a period (Gemma 3's ``sliding_window_pattern``) is read by programs that do not know the
    list. It becomes that of the kept blocks, and goes where they have none. Which numbers are
    periods is tried out: without the list, transformers must make the list of the source by them.
    Letters (EXAONE's ``LLLG``) are written out, one a block, where the kept blocks do not follow.
    """
    part = original.part
    nested = part is not None and isinstance(edited.get(part), dict)
    level, before = (edited[part], stated[part]) if nested else (edited, stated)
    full, ours = (_plain(original.config), wanted)
    if part is not None:
        full, ours = full[part], wanted[part]

    def says(level: Mapping[str, Any], listed: str, name: str, period: int) -> Any:
        """The list that transformers makes of a file that has the period alone."""
        level = {key: value for key, value in level.items() if key != listed} | {name: period}
        read = _read_as({**edited, part: level} if nested else level, config)
        return (read.get(part, {}) if part is not None else read).get(listed)

    lists = [name for name, value in ours.items() if name in level and isinstance(value, list)]
    numbers = [
        (key, key.lstrip("_"), value)
        for key, value in level.items()
        if type(value) is int and before.get(key) == value
    ]
    found = dict(level)
    for listed, (key, name, value) in product(lists, numbers):
        if says(before, listed, name, value) != full[listed]:
            continue
        if says(before, listed, name, value + 1) in (full[listed], None):  # None: it is refused
            continue
        for period in (value, *range(1, len(ours[listed]) + 2)):
            if says(level, listed, name, period) == ours[listed]:
                found[key] = period
                break
        else:
            found.pop(key, None)
    for key, value in level.items() if lists else ():
        if isinstance(value, str) and LETTERS.search(key) and before.get(key) == value:
            found[key] = _letters_of(value, kept)
    return {**edited, part: found} if nested else found


def _letters_of(period: str, kept: Sequence[int]) -> str:
    """A period of letters as it is where the kept blocks follow it, else their letters."""
    if not period or any(letter.islower() for letter in period):  # a word
        return period
    letters = [period[block % len(period)] for block in kept]
    follow = all(letter == period[i % len(period)] for i, letter in enumerate(letters))
    return period if follow else "".join(letters)


def _rope_words(rope: Mapping[str, Any], length_beside: bool) -> Iterator[dict[str, Any]]:
    local = rope.get("sliding_attention")
    whole = rope.get("full_attention") if isinstance(rope.get("full_attention"), dict) else rope
    named = ("rope_theta", "partial_rotary_factor")
    words = {name: whole[name] for name in named if whole.get(name) is not None}
    if isinstance(local, dict) and "rope_theta" in local:
        words["rope_local_base_freq"] = local["rope_theta"]
    scaling = {name: value for name, value in whole.items() if name not in named}
    scaled = scaling.get("rope_type", "default") != "default"
    if scaling.get("rope_type") == "longrope":  # Phi 3 takes exactly this
        aside = {"rope_type"} | ({"original_max_position_embeddings"} if length_beside else set())
        named_so = {name: value for name, value in scaling.items() if name not in aside}
        scaling = {"type": "longrope", **named_so}
    words |= {"rope_scaling": scaling} if scaled else {}
    yield words
    yield {_OTHER_ROPE_WORDS.get(name, name): value for name, value in words.items()}


def _state_dtype(edited: dict[str, Any], part: str | None, dtype: str) -> None:
    """State the written dtype wherever the file states one, and under both names in a new file."""
    levels = [edited, edited.get(part)] if part else [edited]
    for level in levels:
        for key in DTYPE_KEYS if isinstance(level, dict) else ():
            if level.get(key) is not None:
                level[key] = dtype
    if str(edited.get("transformers_version") or 5).split(".")[0] >= "5":
        edited |= dict.fromkeys(DTYPE_KEYS, dtype)
    elif not any(edited.get(key) for key in DTYPE_KEYS):
        edited["torch_dtype"] = dtype
