"""Where a model's weights are, and how they come to where a block runs.

There are three placements: all weights on one device (``Resident``, here), blocks on disk
(``decoder.streamed``), and modules spread by a device map (``decoder.mapped``). Whatever runs a
model asks its placement, and need not know which of them it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from phaseprune.decoder.gguf_rope import check_rotations
from phaseprune.decoder.source import Source
from phaseprune.errors import UserError

#: A map as the user asked for it: ``map``, or the device (or ``disk``) by a module's path.
DeviceMap = str | Mapping[str, Any]
#: Work that not every placement can do.
Work = Literal["gradients", "halves", "merging", "timing"]
#: transformers' report on loading: ``missing_keys`` and the like.
Report = dict[str, Any]

_NOTHING = nullcontext()


@dataclass(frozen=True)
class Loading:
    """What is loaded into a placement, and how.

    Attributes:
        source: the files.
        device: where weights go; of a map, where most of the model runs.
        dtype: that weights are loaded in; None for the checkpoint's own.
        trust_remote_code: run the checkpoint's own code.
        find_blocks: gives the path of a model's blocks.
        max_memory: bytes that a run may take, weights included; None for what is free.
        device_map: as asked for; None without.
        config: the configuration as it was settled, of a GGUF file.
    """

    source: Source
    device: str
    dtype: torch.dtype | None
    trust_remote_code: bool
    find_blocks: Callable[[nn.Module], str]
    max_memory: int | None = None
    device_map: DeviceMap | None = None
    config: Any = None

    def from_pretrained(self, **more: Any) -> tuple[nn.Module, Report]:
        """The model as transformers loads it, and its report.

        Args:
            **more: further arguments of transformers' ``from_pretrained``.
        """
        from transformers import AutoModelForCausalLM

        gguf = {
            "gguf_file": self.source.gguf_file,
            "config": self.config,
            "ignore_mismatched_sizes": True,  # they are refused in ``Resident``, by their names
        }
        return AutoModelForCausalLM.from_pretrained(
            self.source.directory,
            dtype=self.dtype or "auto",
            trust_remote_code=self.trust_remote_code,
            output_loading_info=True,
            **(gguf if self.source.gguf_file else {"use_safetensors": True}),
            **more,
        )


class Placement(ABC):
    """Where the weights of a model are.

    Attributes:
        model: the model.
        blocks_path: the module path of its blocks,
        blocks: and those.
        on_read: called with a block when its weights have been read for the first time; never where
            they are in memory from the start.
    """

    #: Whether all weights stay in the memory of the one device that the model runs on.
    in_place: ClassVar[bool] = False
    #: Why the placement cannot do some work; ``{name}`` stands for the model.
    refusals: ClassVar[Mapping[Work, str]] = {}

    def __init__(self, model: nn.Module, blocks_path: str):
        self.model, self.blocks_path = model, blocks_path
        self.blocks: nn.ModuleList = model.get_submodule(blocks_path)
        self.on_read: Callable[[int], None] = lambda block: None

    @classmethod
    @abstractmethod
    def load(cls, loading: Loading) -> tuple[Placement, Report]:
        """Load a model into this placement.

        Raises:
            UserError: it cannot be placed so, or the budget is too small.
        """

    def reload(
        self,
        checkpoint: Path,
        kept: Sequence[int],
        dtype: torch.dtype,
        trust_remote_code: bool,
        max_memory: int | None,
    ) -> tuple[nn.Module, Report]:
        """An exported model, placed as this one is, beside this one.

        Args:
            checkpoint: the directory.
            kept: original indices of the blocks that it has.
            dtype: that it is loaded in.
            trust_remote_code: let the checkpoint's own code run.
            max_memory: as of ``Loading``, for both models.
        """
        placement, report = self.load(
            Loading(
                Source(str(checkpoint), checkpoint),
                str(self.device),
                dtype,
                trust_remote_code,
                lambda model: self.blocks_path,
                self._beside(max_memory),
                self._map_of(kept),
            )
        )
        return placement.model, report

    def _beside(self, max_memory: int | None) -> int | None:
        """The budget of a model that is loaded beside this one."""
        return max_memory

    def _map_of(self, kept: Sequence[int]) -> DeviceMap | None:
        """The device map of the model that has the kept blocks alone."""
        return None

    @property
    def device(self) -> torch.device:
        """Where tokens, states and logits are; blocks may run elsewhere."""
        return next(p for p in self.model.parameters() if not p.is_meta).device

    def block_device(self, block: int) -> torch.device:
        """Where a block runs."""
        return self.device

    @property
    @abstractmethod
    def held_bytes(self) -> int:
        """Of the weights that are in the device's memory at most."""

    @property
    def bytes_to_come(self) -> int:
        """Of those, what is not taken yet of the memory that is free."""
        return 0

    def resident(self, block: int, then: int | None = None) -> AbstractContextManager[None]:
        """Have a block's weights where it runs while the context lasts.

        Args:
            block: which.
            then: the block that will be asked for next, to be read meanwhile.
        """
        return _NOTHING

    def fetched(self, module: nn.Module, recurse: bool = True) -> AbstractContextManager[None]:
        """The same of the weights of any module outside the blocks, as the head.

        Args:
            module: of the model.
            recurse: also those of the modules in it.
        """
        return _NOTHING

    def require(self, work: Work, name: str) -> None:
        """Refuse work that weights placed so cannot do.

        Raises:
            UserError: says why, and what to do.
        """
        if work in self.refusals:
            raise UserError(self.refusals[work].format(name=name))

    def refuse_comparing(  # noqa: B027 - most need no such refusal
        self, name: str, dtype: torch.dtype, max_memory: int | None
    ) -> None:
        """Refuse a budget in which no export can be held against the model.

        Raises:
            UserError: says the least that would do.
        """

    def new_tokens(self, usual: int) -> int:
        """How many tokens to generate in a check."""
        return usual

    def described(self, name: str) -> str | None:
        """Where the weights are, for a person; None where nothing is to be said."""
        return None


class Resident(Placement):
    """All weights on one device."""

    in_place = True

    @classmethod
    def load(cls, loading: Loading) -> tuple[Placement, Report]:
        """Load all weights at once."""
        model, report = loading.from_pretrained()
        source = loading.source
        if source.gguf_file:
            for name, read, wanted in sorted(report["mismatched_keys"]):
                raise UserError(
                    f"{source.name}: transformers reads {name} from this file in the shape "
                    f"{list(read)}, and the model's is {list(wanted)}; give the model's own "
                    "safetensors checkpoint"
                )
            check_rotations(model, loading.config, source.gguf_header)
        model = model.to(loading.device).eval().requires_grad_(False)
        return cls(model, loading.find_blocks(model)), report

    @property
    def held_bytes(self) -> int:
        """Of all weights."""
        return sum(parameter.nbytes for parameter in self.model.parameters())


def distinct_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters, those that are tied once: offloading makes two of them."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    return {tied.get(name, name): parameter for name, parameter in model.named_parameters()}


def parameter_count(model: nn.Module) -> int:
    """How many values a model's weights have."""
    return sum(parameter.numel() for parameter in distinct_parameters(model).values())
