"""Writing files so that a reader, or a killed process, never sees half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused, as it is never a figure."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def append_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Append one JSON line a value in a single flushed write."""
    text = "".join(json.dumps(value, allow_nan=False) + "\n" for value in values)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def read_json_lines(path: Path) -> list[Any]:
    """Read JSON lines; a torn last line (the process died in the write) is cut off the file."""
    path = Path(path)
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        write_with(path, lambda temporary: temporary.write_bytes(whole))
    return [json.loads(line) for line in whole.splitlines()]
