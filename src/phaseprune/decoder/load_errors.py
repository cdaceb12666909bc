"""What transformers raises for a bad checkpoint, in one sentence."""

from __future__ import annotations

import logging
import re

import torch

from phaseprune.decoder.source import Source
from phaseprune.errors import UserError


class load_errors:  # noqa: N801 - a context manager
    """Turns what transformers raises for a bad checkpoint into one sentence."""

    def __init__(self, source: Source, what: str = "it cannot be loaded"):
        self.source, self.what = source, what

    def __enter__(self) -> None:
        self.logger = logging.getLogger("transformers")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)  # its report on missing weights is ours to make

    def __exit__(self, kind, error, traceback) -> None:
        self.logger.setLevel(self.level)
        expected = isinstance(error, Exception) and not isinstance(
            error, UserError | torch.OutOfMemoryError
        )
        if expected:  # readers of damaged files raise anything
            hint = (
                "; it needs the checkpoint's own code: add --trust-remote-code if you trust it"
                if "trust_remote_code" in str(error)
                else ""
            )
            raise UserError(
                f"{self.source.name}: {self.what} ({first_line(error)}){hint}"
            ) from error


def first_line(error: BaseException) -> str:
    """What an error says, on one line and not too long."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text[:240] or type(error).__name__
