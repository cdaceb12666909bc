"""Patterns over the blocks (every sixth attends to all), and who takes them by position.

A configuration lists what each block is, and an export's list is that of the kept blocks. A program
that goes by a block's position instead computes something else as soon as the kept blocks no longer
follow the pattern from the first one on. And some of what no key of a GGUF file says, llama.cpp
knows by the number of blocks. All this is told from the configuration alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phaseprune.decoder.gguf_keys import WIDE_SCALE
from phaseprune.decoder.per_block import NOT_PER_BLOCK, is_index_list, values_of_blocks

#: The sources of llama.cpp that ``LLAMA_CPP`` was read from.
LLAMA_CPP_SOURCES = "llama.cpp 0c1e57098 (llama-cpp-python 0.3.36)"
#: model_type -> the lists that llama.cpp goes without: its converter does not write them, and the
#: program has the pattern in ``src/models`` (``load_swa_pattern``, ``n_no_rope_layer_step``).
#: Families that are not here have no pattern, or llama.cpp reads a list.
LLAMA_CPP: Mapping[str, tuple[str, ...]] = {
    "afmoe": ("layer_types",),
    "cohere2": ("layer_types",),
    "gemma2": ("layer_types",),
    "gemma3": ("layer_types",),
    "gemma3_text": ("layer_types",),
    "gpt_oss": ("layer_types",),
    "laguna": ("layer_types",),
    "llama4": ("layer_types", "no_rope_layers", "moe_layers"),
    "llama4_text": ("layer_types", "no_rope_layers", "moe_layers"),
    "smollm3": ("no_rope_layers", "layer_types"),
}
_SCALE = "scales the attention of {} otherwise", "it may give other logits"
_RANK = "takes the queries of {} to be of full rank", "it may refuse to load"
#: model_type -> the numbers of blocks by which llama.cpp knows a model of that family (the 27B of
#: Gemma, EXAONE 4 32B, DeepSeek V2 Lite), what it does in these alone, and what may come of it.
BY_COUNT: Mapping[str, tuple[tuple[int, ...], str, str]] = {
    **{family: ((blocks,), *_SCALE) for family, blocks in WIDE_SCALE.items()},
    "exaone4": ((64,), "has a sliding window in blocks of {}", "it gives other logits"),
    "deepseek_v2": ((26, 27), *_RANK),
    "deepseek_v3": ((26, 27), *_RANK),
}


@dataclass(frozen=True)
class Pattern:
    """Lists that say what each block is.

    Attributes:
        fields: the lists' names in the configuration.
        kinds: what each block is, by all of them.
        period: of how many blocks the pattern consists.
    """

    fields: tuple[str, ...]
    kinds: tuple[tuple[Any, ...], ...]
    period: int

    def is_kept(self, kept: Sequence[int]) -> bool:
        """Whether the kept blocks follow the pattern from the first one on."""
        return all(self.kinds[b] == self.kinds[place] for place, b in enumerate(kept))

    def missing(self, live: Sequence[int], protect: frozenset[int] = frozenset()) -> int | None:
        """How many blocks must still go for the rest to follow the pattern; None if none can.

        Args:
            live: blocks that are there, in order.
            protect: those that never go.
        """
        lengths = {0}  # that what is kept of the blocks so far may have
        for block in live:
            longer = {n + 1 for n in lengths if self.kinds[n] == self.kinds[block]}
            lengths = longer if block in protect else lengths | longer
        best = max(lengths, default=0)
        return len(live) - best if best else None

    def may_go(
        self, live: Sequence[int], free: Sequence[int], left: int, protect: frozenset[int]
    ) -> list[int]:
        """The blocks that may go next, so that the pattern is whole again soon.

        The first block of a period may be any from which the pattern can be whole again with the
        removal of one period at most; each one after it must bring that nearer.

        Args:
            live: blocks that are there, in order.
            free: those of them that may go at all.
            left: how many may go yet, this one counted.
            protect: blocks that never go.
        """
        now = self.missing(live, protect)
        most = min(left, now or self.period) - 1
        found = []
        for block in free:
            then = self.missing([b for b in live if b != block], protect)
            if then is not None and then <= most:
                found.append(block)
        return found


def find_pattern(config: Any, blocks: int) -> Pattern | None:
    """The pattern that a model's blocks follow; None where all are alike or there is none.

    Lists that llama.cpp takes by position count in any case, others if they repeat.

    Args:
        config: of transformers.
        blocks: how many the model has.
    """
    taken = LLAMA_CPP.get(config.model_type, ())
    lists = {
        name: kinds
        for name, kinds in _lists(config, blocks).items()
        if name in taken or _period(kinds) <= blocks // 2
    }
    if not lists:
        return None
    kinds = tuple(zip(*lists.values(), strict=True))
    return Pattern(tuple(lists), kinds, _period(kinds))


def position_words(config: Any, blocks: int) -> str | None:
    """What llama.cpp takes otherwise of some exports of a model, a sentence; None of most models.

    Args:
        config: of transformers.
        blocks: how many the model has.
    """
    family, lists = config.model_type, _lists(config, blocks)
    if fields := [name for name in LLAMA_CPP.get(family, ()) if name in lists]:
        return (
            f"llama.cpp takes the {' and '.join(fields)} of {family} by position: --keep-period "
            "removes only what it can run"
        )
    counts, does, then = BY_COUNT.get(family, ((), "", ""))
    if blocks in counts:
        return (
            f"llama.cpp {does.format(family)} in a model of {_words(counts)} blocks alone; of an "
            f"export, {then}"
        )
    return None


def llama_cpp_warnings(config: Any, blocks: int, kept: Sequence[int]) -> list[str]:
    """Why llama.cpp would make another model of an export, a sentence each.

    Args:
        config: of the full model, of transformers.
        blocks: how many it has.
        kept: original indices, in order.
    """
    family, lists, found = config.model_type, _lists(config, blocks), []
    for field in LLAMA_CPP.get(family, ()):
        if field not in lists or Pattern((field,), tuple(lists[field]), 1).is_kept(kept):
            continue
        found.append(
            f"llama.cpp takes the {field} of {family} by position and not from the file, and "
            "these blocks do not follow the pattern: converted to GGUF, this model gives other "
            "logits (phaseprune prune --keep-period removes only what keeps it)"
        )
    counts, does, then = BY_COUNT.get(family, ((), "", ""))
    if (blocks in counts) != (len(kept) in counts):
        found.append(
            f"llama.cpp {does.format(family)} in a model of {_words(counts)} blocks alone, and "
            f"here {blocks} become {len(kept)}: converted to GGUF, {then}"
        )
    return found


def _words(counts: Sequence[int]) -> str:
    return " or ".join(map(str, counts))


def _lists(config: Any, blocks: int) -> dict[str, list[tuple[Any, ...]]]:
    """What each block is by the lists that say so, those in which all are alike left out."""
    found = {}
    for name, value in values_of_blocks(config).items():
        if not isinstance(value, list | tuple) or not value or NOT_PER_BLOCK.search(name):
            continue
        if is_index_list(name, value, blocks) and len(value) < blocks:
            value = [block in value for block in range(blocks)]
        kinds = all(isinstance(item, str | bool | int) for item in value)
        if kinds and len(value) == blocks and len(set(value)) > 1:
            found[name] = [(item,) for item in value]
    return found


def _period(kinds: Sequence[Any]) -> int:
    """The least number of blocks after which the list repeats itself; its length where it never."""
    return next(n for n in range(1, len(kinds) + 1) if kinds[n:] == kinds[: len(kinds) - n])
