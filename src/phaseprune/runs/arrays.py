"""Arrays by name in one safetensors file, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from phaseprune.errors import UserError
from phaseprune.runs.atomic import write_with


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays; the same ones give the same bytes."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_with(path, lambda temporary: save_file(whole, temporary))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what ``write_arrays`` wrote.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete it and give the same command again"
        ) from None
