"""Models larger than memory: blocks are read from their files when they are needed.

What stands outside the blocks is loaded as ever. A block is read into its modules, runs, and gives
its memory back; meanwhile the next one is read by a thread. So no more than two are in memory.
The tensors of a block go through transformers' own loading (names, merged experts, dtypes), so that
it is what loading the whole model would have made of it.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from phaseprune.decoder.weight_reader import WeightReader
from phaseprune.errors import UserError


@dataclass
class BlockStream:
    """The blocks of a model whose weights are on disk.

    Attributes:
        name: what the user called the model.
        model: it, with the weights of its blocks on the meta device.
        blocks: its blocks.
        prefixes: the path of each block with a dot behind it.
        reader: of the checkpoint.
        stored: for each block, the stored tensors that it is made of.
        loading: transformers' settings for loading them.
        check: called with a block when it has been read for the first time.
        reads: the blocks in the order in which they were read.
        outside_bytes: of the weights outside the blocks.
        held_bytes: the most that weights take: those, two blocks, and what is being converted.
    """

    name: str
    model: nn.Module = field(repr=False)
    blocks: Sequence[nn.Module] = field(repr=False)
    prefixes: Sequence[str]
    reader: WeightReader = field(repr=False)
    stored: Sequence[Sequence[str]] = field(repr=False)
    loading: Any = field(repr=False)
    check: Callable[[int], None] = field(default=lambda block: None, repr=False)
    reads: list[int] = field(default_factory=list, repr=False)
    outside_bytes: int = field(default=0, init=False)
    held_bytes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        # Else transformers reads all of a block's tensors, by threads, before it casts one.
        os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")
        _give_memory_back()
        self._empty = [_weights(block) for block in self.blocks]
        self.outside_bytes = self._outside_bytes()
        self.held_bytes = self.outside_bytes + 2 * self.block_bytes + self._converted_bytes()
        self._checked: set[int] = set()
        self._in_use: tuple[int, int] | None = None
        self._ahead: tuple[int, Future] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="phaseprune-weights")
        self._forwards = [self._streamed(index) for index in range(len(self.blocks))]
        for block, forward in zip(self.blocks, self._forwards, strict=True):
            block.forward = forward

    @property
    def block_bytes(self) -> int:
        """Of the largest block."""
        return max(sum(t.nbytes for t in empty.values()) for empty in self._empty)

    def _outside_bytes(self) -> int:
        inside = {id(tensor) for empty in self._empty for tensor in empty.values()}
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return sum(
            t.nbytes for name, t in tensors.items() if id(t) not in inside and name not in tied
        )

    def _converted_bytes(self) -> int:
        """Beside a block's weights while they are read: one as stored, where it is changed."""
        most = 0
        for empty, stored, prefix in zip(self._empty, self.stored, self.prefixes, strict=True):
            sizes = {prefix + name: tensor.nbytes for name, tensor in empty.items()}
            same = all(sizes.get(n) == self.reader.places[n].nbytes for n in stored)
            most = max(most, 0 if same else 2 * max(sizes.values(), default=0))
        return most

    @contextmanager
    def resident(self, block: int, then: int | None = None) -> Iterator[None]:
        """Have a block's weights in memory, and ``then`` read meanwhile."""
        if self._in_use is not None and self._in_use[0] == block:
            self._in_use = block, self._in_use[1] + 1
        else:
            assert self._in_use is None, "a block was called inside another one"
            self._fetch(block)
            self._in_use = block, 1
            if then is not None:
                self._ahead = then, self._thread.submit(self._read, then)
        outermost = self._in_use[1] == 1
        try:
            yield
        except BaseException:
            if outermost:
                self._let_go()
            raise
        finally:
            if outermost:
                self._in_use = None
                self._release(block)
            else:
                self._in_use = block, self._in_use[1] - 1

    def _fetch(self, block: int) -> None:
        if self._ahead is not None and self._ahead[0] == block:
            future, self._ahead = self._ahead[1], None
            return future.result()
        self._let_go()
        self._read(block)

    def _let_go(self) -> None:
        """Give up the block that was read ahead."""
        if self._ahead is not None:
            (block, future), self._ahead = self._ahead, None
            if future.exception() is None:
                self._release(block)

    def _read(self, block: int) -> None:
        try:
            self._load(block)
            if block not in self._checked:
                self.check(block)
                self._checked.add(block)
        except BaseException:
            self._release(block)
            raise

    def _load(self, block: int) -> None:
        """Fill a block's modules; every weight and buffer, or not at all."""
        self.reads.append(block)
        tensors = {name: self.reader.lazy(name) for name in self.stored[block]}
        try:
            report = load_into(self.model, tensors, self.loading)
        except OSError as error:
            raise UserError(
                f"{self.name}: block {block} cannot be read ({error}); the same command goes on "
                "where it was once the file is whole again"
            ) from error
        prefix = self.prefixes[block]
        empty = [prefix + n for n, t in _weights(self.blocks[block]).items() if t.is_meta]
        other = [name for name, *_ in report.mismatched_keys] + [*report.conversion_errors]
        if empty or other:
            what = "has in another shape" if other else "lacks"
            wrong = other or empty
            raise UserError(
                f"{self.name}: the checkpoint {what} {len(wrong)} of the weights of block {block}, "
                f"the first {wrong[0]}; give a complete checkpoint"
            )
        self.blocks[block].requires_grad_(False)

    def _release(self, block: int) -> None:
        for name, empty in self._empty[block].items():
            path, _, own = name.rpartition(".")
            module = self.blocks[block].get_submodule(path)
            kind = module._parameters if own in module._parameters else module._buffers
            kind[own] = empty

    def _streamed(self, index: int) -> Callable:
        """The forward of a block, to be called wherever: it has its weights while it runs."""
        forward = self.blocks[index].forward

        @functools.wraps(forward)
        def streamed(*args, **kwargs):
            with self.resident(index, self._following(index)):
                return forward(*args, **kwargs)

        return streamed

    def _following(self, block: int) -> int | None:
        """The next block that a forward of the whole model would run: none that is replaced."""
        later = range(block + 1, len(self.blocks))
        return next(
            (n for n in later if self.blocks[n].__dict__.get("forward") is self._forwards[n]), None
        )


def _give_memory_back() -> None:
    """Have what is freed given back to the system at once, where the C library is glibc.

    Left to itself it keeps freed tensors of up to 32 MB in its heap, with holes between others that
    no weight fits into: half as much again as two blocks, measured.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(-3, 2**20)  # M_MMAP_THRESHOLD


def load_into(model: nn.Module, tensors: Mapping[str, Any], loading: Any) -> Any:
    """Let transformers load some stored tensors into a model, without its progress bar."""
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return convert_and_load_state_dict_in_model(model, dict(tensors), loading)[0]
    finally:
        if shown:
            logging.enable_progress_bar()


def _weights(block: nn.Module) -> dict[str, torch.Tensor]:
    """A block's parameters and stored buffers."""
    return dict(block.state_dict(keep_vars=True))
