"""Patterns over the blocks (every sixth attends to all), and who takes them by position.

A configuration lists what each block is, and an export's list is that of the kept blocks. A program
that goes by a block's position instead computes something else as soon as the kept blocks no longer
follow the pattern from the first one on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phaseprune.decoder.gguf_keys import WIDE_SCALE
from phaseprune.decoder.per_block import NOT_PER_BLOCK, is_index_list
from phaseprune.decoder.pruned_config import Original

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


def find_pattern(original: Original) -> Pattern | None:
    """The pattern that a model's blocks follow; None where all are alike or there is none.

    Lists that llama.cpp takes by position count in any case, others if they repeat.
    """
    taken = LLAMA_CPP.get(original.config.model_type, ())
    lists = {
        name: kinds for name, kinds in _lists(original.values, original.blocks).items()
        if name in taken or _period(kinds) <= original.blocks // 2
    }  # fmt: skip
    if not lists:
        return None
    kinds = tuple(zip(*lists.values(), strict=True))
    return Pattern(tuple(lists), kinds, _period(kinds))


def patterns_of_llama_cpp(original: Original) -> list[str]:
    """The lists of a model, not all of one kind, that llama.cpp goes without."""
    lists = _lists(original.values, original.blocks)
    return [name for name in LLAMA_CPP.get(original.config.model_type, ()) if name in lists]


def llama_cpp_warnings(original: Original, kept: Sequence[int]) -> list[str]:
    """Why llama.cpp would make another model of an export, a sentence each."""
    family, blocks = original.config.model_type, original.blocks
    lists, found = _lists(original.values, blocks), []
    for field in patterns_of_llama_cpp(original):
        if Pattern((field,), tuple(lists[field]), 1).is_kept(kept):
            continue
        found.append(
            f"llama.cpp takes the {field} of {family} by position and not from the file, and "
            "these blocks do not follow the pattern: converted to GGUF, this model gives other "
            "logits (phaseprune prune --keep-period removes only what keeps it)"
        )
    scaled = WIDE_SCALE.get(family)
    if len(kept) != blocks and scaled in (blocks, len(kept)):
        found.append(
            f"llama.cpp scales the attention of {family} otherwise in a model of {scaled} blocks, "
            f"and here {blocks} become {len(kept)}: converted to GGUF, this model may give other "
            "logits"
        )
    return found


def _lists(values: Mapping[str, Any], blocks: int) -> dict[str, list[tuple[Any, ...]]]:
    """What each block is by the lists that say so, those in which all are alike left out."""
    found = {}
    for name, value in values.items():
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
