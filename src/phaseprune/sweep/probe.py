"""Whether a model runs packed rows exactly, tried out before any is run."""

from __future__ import annotations

import torch
from torch.utils import _pytree as pytree

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.verify import TOLERANCE
from phaseprune.errors import UserError
from phaseprune.sweep.rows import Shard, make_shard
from phaseprune.sweep.states import States, Walker

#: The trial: tokens that all four sequences have in common, that pairs have, and that each has
#: alone; and the tokens of a batch, so few that the common ones are a trunk in several.
ALL, PAIR, ALONE, BATCH = 40, 5, 4, 24
#: Practically no limit to the length of a sequence.
ANY_LENGTH = 2**31


@torch.no_grad()
def packed_length(decoder: Decoder) -> int:
    """The most tokens of a sequence that a model runs exactly in a packed row; 0 for none.

    Found out once and kept in the decoder, together with ``reads_alone``: on every block, two
    streams of packed rows (behind a trunk, with branches) must come to what they come to in plain
    rows. Where the configuration states a window of attention that the model's mask functions do
    not have, sequences are kept within it.
    """
    if decoder.packed_length is None:
        decoder.packed_length, decoder.reads_alone = 0, False
        try:
            decoder.packed_length, decoder.reads_alone = _trial(decoder)
        except (UserError, torch.OutOfMemoryError):  # says nothing of the family
            decoder.packed_length = None
            raise
        except Exception:  # noqa: BLE001 - a family that has no packed rows raises anything
            decoder.reads_alone = False
    return decoder.packed_length


def _trial(decoder: Decoder) -> tuple[int, bool]:
    packed, plain = (Walker(decoder, shard, 2 * BATCH) for shard in trial_shards(decoder))
    ours, theirs = (
        [torch.cat([state, state * 0.5]) for state in walker.embedded()]
        for walker in (packed, plain)
    )
    alone = True
    for block in range(len(decoder.blocks)):
        before = ours
        with decoder.resident(block, block + 1 if block + 1 < len(decoder.blocks) else None):
            ours, theirs = packed.run(block, before), plain.run(block, theirs)
            expected = _by_slot(plain, plain.at_reads(theirs))
            if not _equal(decoder, _by_slot(packed, packed.at_reads(ours)), expected):
                return 0, False
            if alone:
                decoder.reads_alone = True
                alone = _alone(packed, block, before, expected)
    return _longest(decoder, packed), alone


def trial_shards(decoder: Decoder) -> tuple[Shard, Shard]:
    """The trial's sequences in packed rows and in plain ones, with the same slots."""
    sequences = _sequences(decoder)
    packed, plain = (
        make_shard(sequences, BATCH, decoder.device, length) for length in (ANY_LENGTH, 0)
    )
    return packed, plain


def _sequences(decoder: Decoder) -> list[tuple[tuple[int, ...], list[tuple[int, int, int]]]]:
    """Four sequences of random tokens, each with something of its own to read at some places."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = decoder.model.get_input_embeddings().weight.shape[0]
    drawn = torch.randint(vocabulary, (ALL + 2 * PAIR + 4 * ALONE,), generator=generator).tolist()
    sequences = []
    for number in range(4):
        pair = drawn[ALL + PAIR * (number // 2) :][:PAIR]
        end = drawn[ALL + 2 * PAIR + ALONE * number :][:ALONE]
        tokens = (*drawn[:ALL], *pair, *end)
        places = range(ALL + PAIR - 1, len(tokens))
        scored = [(place, 0, number * len(tokens) + place) for place in places]
        sequences.append((tokens, scored))
    return sequences


def _by_slot(walker: Walker, states: States) -> torch.Tensor:
    """``[S, E, D]`` states at reads, in the order of what is scored there."""
    order = walker.shard.entry_slots.argsort()
    return torch.cat(states, dim=1)[:, walker.shard.entry_reads[order]]


def _equal(decoder: Decoder, found: torch.Tensor, expected: torch.Tensor) -> bool:
    most = TOLERANCE[decoder.dtype] * max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) <= most


def _alone(walker: Walker, block: int, states: States, expected: torch.Tensor) -> bool:
    try:
        found = _by_slot(walker, walker.run(block, states, reads=True))
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception:  # noqa: BLE001 - a family whose blocks cannot be left half-way raises anything
        return False
    return _equal(walker.decoder, found, expected)


def _longest(decoder: Decoder, walker: Walker) -> int:
    """The shortest window that the configuration states, where no mask function has one."""
    config = decoder.config.get_text_config(decoder=True)
    windows = [
        value
        for name, value in config.to_dict().items()
        if isinstance(value, int)
        and not isinstance(value, bool)
        and value > 0
        and ("window" in name or "attention_chunk" in name)
        and "layers" not in name
        and "pattern" not in name
    ]
    near, far = (torch.tensor(place, device=decoder.device) for place in (0, 2**30))
    for argument in pytree.tree_leaves([calls.arguments for calls in walker.calls]):
        function = getattr(argument, "function", None)
        if function is not None and not function(near, near, far, near):
            return ANY_LENGTH
    return min(windows, default=ANY_LENGTH)
