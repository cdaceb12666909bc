"""Hidden states of several streams over a shard of rows, and running a block on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch

from phaseprune.decoder.blocks import Calls, record_calls, run_block
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.packed import record_packed, run_packed, run_packed_reads
from phaseprune.errors import UserError
from phaseprune.sweep.rows import Batch, Shard

#: States of all streams: for each batch ``[S, N, D]`` where packed, else ``[S, R, T, D]``.
States = list[torch.Tensor]


@dataclass
class Walker:
    """A shard of rows, ready to be run through blocks.

    ``together`` is the most tokens that a block is given at once, over all streams; less once
    memory has run out. ``live`` are the blocks that will be run, in order, so that a streamed one
    can be read ahead. ``matmul_dtype`` is that of matrix products, None for the model's own.
    """

    decoder: Decoder
    shard: Shard
    together: int
    live: Sequence[int] = ()
    matmul_dtype: torch.dtype | None = None
    calls: list[Calls] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls = [self._record(batch) for batch in self.shard.batches]

    def _record(self, batch: Batch) -> Calls:
        if batch.packing is None:
            return record_calls(self.decoder, batch.input_ids)
        return record_packed(self.decoder, batch.packing)

    def embedded(self) -> States:
        """One stream at readout 0."""
        return [
            calls.embedded[None] if batch.packing is None else calls.embedded
            for batch, calls in zip(self.shard.batches, self.calls, strict=True)
        ]

    @torch.no_grad()
    def run(
        self,
        block: int,
        states: States,
        *,
        room: int = 0,
        reads: bool = False,
        progress: Callable[[int], None] = lambda streams: None,
    ) -> States:
        """Run a block on all streams.

        Args:
            block: original index.
            states: the streams.
            room: how many more streams to leave room for behind them, uninitialised.
            reads: give the states at the reads alone, ``[S, N, D]`` of each batch.
            progress: told how many streams of a batch are done.
        """
        streams = len(states[0])
        out: States = []
        for batch, hidden in zip(self.shard.batches, states, strict=True):
            a_token = hidden.shape[2 if batch.packing else 3 :]
            shape = (len(batch.reads), *a_token) if reads else hidden.shape[1:]
            out.append(hidden.new_empty(streams + room, *shape))
        following = next((other for other in self.live if other > block), None)
        decoder = self.decoder
        with decoder.resident(block, following), matmuls_in(decoder, self.matmul_dtype):
            first = 0
            while first < streams:
                part = slice(first, min(first + self._each(), streams))
                if self._run_part(block, states, part, out, reads, progress):
                    first = part.stop
        return out

    def _each(self) -> int:
        """How many streams a block is given at once."""
        return max(1, self.together // self._largest_batch())

    def _largest_batch(self) -> int:
        return max(batch.input_ids.numel() for batch in self.shard.batches)

    def _run_part(self, block: int, states: States, part: slice, out: States, reads, progress):
        """Run some streams; where memory runs out, say so, to have fewer of them run at once.

        Raises:
            UserError: a single stream is too much.
        """
        trunk: dict = {}
        count, done = part.stop - part.start, 0
        try:
            for number in range(len(self.shard.batches)):
                # A copy: some blocks write into what they are given, and states may be kept.
                hidden = states[number][part].clone()
                out[number][part] = self._run_batch(block, hidden, number, trunk, reads)
                progress(count)
                done += count
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            progress(-done)
        else:
            return True
        if count == 1:
            raise UserError(
                f"{self.decoder.name}: {self.decoder.called(block)} does not get the memory for "
                "one stream of questions; give a smaller --max-memory, so that fewer are run at "
                "once"
            )
        trunk.clear()
        self.together = count // 2 * self._largest_batch()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False

    def _run_batch(self, block: int, hidden: torch.Tensor, number: int, trunk, reads: bool):
        batch, calls = self.shard.batches[number], self.calls[number]
        if batch.packing is not None:
            if reads and self.decoder.reads_alone:
                return run_packed_reads(self.decoder, block, hidden, calls, batch.packing, trunk)
            out = run_packed(self.decoder, block, hidden, calls, batch.packing, trunk)
        else:
            out = torch.stack([run_block(self.decoder, block, one, calls) for one in hidden])
        return at_reads(batch, out) if reads else out

    def at_reads(self, states: States) -> States:
        """``[S, N, D]`` states at the reads of each batch."""
        pairs = zip(self.shard.batches, states, strict=True)
        return [at_reads(batch, hidden) for batch, hidden in pairs]


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def at_reads(batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    """``[S, N, D]`` states at a batch's reads."""
    return by_token(batch, hidden).index_select(1, batch.reads)


def by_token(batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    """``[S, T, D]`` states of a batch's tokens, counted through its rows."""
    return hidden if batch.packing else hidden.flatten(1, 2)


def matmuls_in(decoder: Decoder, dtype: torch.dtype | None) -> AbstractContextManager:
    """Have matrix products in another dtype, where reduced precision will do; None: the model's.

    Hidden states, sums and softmax stay in the model's dtype; the products' inputs are rounded.
    """
    if dtype is None:
        return nullcontext()
    return torch.autocast(decoder.device.type, dtype)
