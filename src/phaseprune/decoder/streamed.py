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
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from phaseprune.decoder.budget import LEAST_TOKENS, in_words, working_bytes
from phaseprune.decoder.checkpoint import loaded_files
from phaseprune.decoder.names import block_of
from phaseprune.decoder.placement import Loading, Placement, Report
from phaseprune.decoder.source import Source
from phaseprune.decoder.tensors import WeightReader
from phaseprune.errors import UserError

#: Tokens that a streamed model is let generate: each reads all blocks from disk.
FEW_TOKENS = 2


def streaming_problem(source: Source, config) -> str | None:
    """Why a model's blocks cannot be read one by one; None where they can."""
    if source.gguf_file:
        return "a .gguf file is de-quantised as a whole, so it cannot be read block by block"
    text = config.get_text_config(decoder=True)
    if any(getattr(c, "quantization_config", None) is not None for c in (config, text)):
        return "a quantised checkpoint cannot be read block by block"
    try:
        from transformers.core_model_loading import rename_source_key  # noqa: F401
    except ImportError:
        return "the installed transformers cannot load single blocks; update it"
    return None


class Streamed(Placement):
    """The blocks of a model whose weights are on disk.

    Attributes:
        name: what the user called the model.
        prefixes: the path of each block with a dot behind it.
        reader: of the checkpoint.
        stored: for each block, the stored tensors that it is made of.
        loading: transformers' settings for loading them.
        reads: the blocks in the order in which they were read.
        outside_bytes: of the weights outside the blocks.
    """

    refusals = {
        "gradients": "{name} is streamed and gives no gradients, which this method needs; load it "
        "with --no-stream, or choose another method",
        "halves": "{name}: --granularity runs halves of blocks, which needs all weights in one "
        "memory, and --stream spreads them; leave one of the two out",
        "merging": "{name}: blocks cannot be merged while they are read from disk one by one; load "
        "the model with --no-stream, or choose another method",
        "timing": "{name} is read from disk block by block, so that its speed would be the disk's; "
        "measure where it fits into memory (--no-stream)",
    }

    def __init__(
        self,
        name: str,
        model: nn.Module,
        blocks_path: str,
        reader: WeightReader,
        stored: Sequence[Sequence[str]],
        loading: Any,
    ):
        super().__init__(model, blocks_path)
        self.name, self.reader, self.stored, self.loading = name, reader, stored, loading
        self.prefixes = [f"{blocks_path}.{number}." for number in range(len(self.blocks))]
        self.reads: list[int] = []
        # Else transformers reads all of a block's tensors, by threads, before it casts one.
        os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")
        _give_memory_back()
        self._empty = [_weights(block) for block in self.blocks]
        self.outside_bytes = self._outside_bytes()
        self._held_bytes = self.outside_bytes + 2 * self.block_bytes + self._converted_bytes()
        self._checked: set[int] = set()
        self._in_use: tuple[int, int] | None = None
        self._ahead: tuple[int, Future] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="phaseprune-weights")
        self._forwards = [self._streamed(index) for index in range(len(self.blocks))]
        for block, forward in zip(self.blocks, self._forwards, strict=True):
            block.forward = forward

    @classmethod
    def load(cls, loading: Loading) -> tuple[Placement, Report]:
        """Load what stands outside the blocks; the blocks are read when they run.

        Raises:
            UserError: blocks that share weights, tensors that cannot be read, or a budget in which
                not even this has room.
        """
        made: list[Streamed] = []
        source, reader = loading.source, WeightReader(loaded_files(loading.source))

        def outside_alone(model: nn.Module, state, files, settings, *args, **kwargs):
            path = loading.find_blocks(model)
            by_block, outside = _assign(model, path, reader, settings)
            _refuse_sharing(source, model, path)
            on_device = replace(settings, device_map={"": loading.device})
            placement = cls(source.name, model, path, reader, by_block, on_device)
            placement._refuse_budget(loading.max_memory)
            made.append(placement)
            tensors = {name: reader.lazy(name) for name in outside}
            report = load_into(model, tensors, settings)
            inside = [n for n in report.missing_keys if n.startswith(tuple(placement.prefixes))]
            report.missing_keys.difference_update(inside)
            for name in inside:  # else they would be made and filled at random
                model.get_parameter_or_buffer(name)._is_hf_initialized = True
            return report, None

        with _loading_replaced(outside_alone):
            model, report = loading.from_pretrained()
        _move(model, loading.device)
        inside = tuple(made[0].prefixes)
        left = [n for n, t in _tensors(model) if t.is_meta and not n.startswith(inside)]
        if left:
            raise UserError(f"{source.name}: {left[0]} was not loaded; use --no-stream")
        model.eval().requires_grad_(False)
        return made[0], report

    @property
    def held_bytes(self) -> int:
        """Of what stands outside the blocks, two blocks, and what is being converted."""
        return self._held_bytes

    @property
    def bytes_to_come(self) -> int:
        """All that are held: blocks are read when they run."""
        return self._held_bytes

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
                self.on_read(block)
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

    def _working_bytes(self, dtype: torch.dtype) -> int:
        return working_bytes(self.blocks, LEAST_TOKENS, dtype.itemsize)

    def _refuse_budget(self, max_memory: int | None) -> None:
        if max_memory is None:
            return
        least = self.held_bytes + self._working_bytes(next(self.blocks[0].parameters()).dtype)
        if least > max_memory:
            raise UserError(
                f"{self.name}: --max-memory {in_words(max_memory)} is too little: what stands "
                f"outside the blocks, two blocks, and what they work with take {in_words(least)}; "
                "give at least that much, and more for many questions"
            )

    def refuse_comparing(self, name: str, dtype: torch.dtype, max_memory: int | None) -> None:
        """What stands outside the blocks is in memory twice while an export is compared."""
        if max_memory is None:
            return
        least = self.held_bytes + self.outside_bytes + self._working_bytes(dtype)
        if least > max_memory:
            raise UserError(
                f"{name}: comparing an export with the model takes {in_words(least)}, more than "
                f"--max-memory {in_words(max_memory)}; give at least that much"
            )

    def new_tokens(self, usual: int) -> int:
        """So few, whatever is usual."""
        return FEW_TOKENS

    def described(self, name: str) -> str:
        """That blocks are read when they run, and how much is in memory."""
        return (
            f"{name} is streamed: its {len(self.blocks)} blocks are read from disk when they run, "
            f"and at most {in_words(self.held_bytes)} of weights are in memory"
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


@contextmanager
def _loading_replaced(stand_in: Callable) -> Iterator[None]:
    """Have ``from_pretrained`` build a model and settle how to load it, and load by ``stand_in``.

    So that dtypes, names and buffers are settled as they are for any model.
    """
    from transformers import PreTrainedModel

    original = PreTrainedModel.__dict__["_load_pretrained_model"]
    PreTrainedModel._load_pretrained_model = staticmethod(stand_in)
    try:
        yield
    finally:
        PreTrainedModel._load_pretrained_model = original


def _assign(
    model: nn.Module, path: str, reader: WeightReader, loading: Any
) -> tuple[list[list[str]], list[str]]:
    """The stored tensors of each block, and those of none, by the names that loading gives them."""
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    mapping = loading.weight_mapping or []
    renamings = [change for change in mapping if isinstance(change, WeightRenaming)]
    converters = [change for change in mapping if isinstance(change, WeightConverter)]
    own = model.state_dict()
    base = model.base_model_prefix
    by_block: list[list[str]] = [[] for _ in model.get_submodule(path)]
    outside = []
    for name in reader.places:
        called = rename_source_key(name, renamings, converters, base, own)[0]
        if called not in own and name in own:
            called = name
        block = block_of(called, [path])
        if block is None or block >= len(by_block):
            outside.append(name)
        else:
            by_block[block].append(name)
    return by_block, outside


def _refuse_sharing(source: Source, model: nn.Module, path: str) -> None:
    prefixes = [f"{path}.{number}." for number in range(len(model.get_submodule(path)))]
    owners: dict[int, str] = {}
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    pairs = [*tied.items()]
    for name, parameter in model.named_parameters(remove_duplicate=False):
        pairs.append((name, owners.setdefault(id(parameter), name)))
    for one, other in pairs:
        places = [next((p for p in prefixes if n.startswith(p)), None) for n in (one, other)]
        if places[0] != places[1]:
            raise UserError(
                f"{source.name}: {one} and {other} are one weight, and not of one block, so blocks "
                "cannot be read one by one; use --no-stream"
            )


def _move(model: nn.Module, device: str) -> None:
    """Move what is not on the meta device; parameters stay the objects that others are tied to."""
    for parameter in model.parameters():
        if not parameter.is_meta:
            parameter.data = parameter.data.to(device)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta:
                module._buffers[name] = buffer.to(device)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
