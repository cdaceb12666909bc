"""Writing files so that a reader, or a killed process, never sees half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_once(path, temporary, write)
    except FileNotFoundError:
        # A page is written without the lock of its run, so a command that begins in the run at this
        # very moment takes the temporary file for a leftover.
        _write_once(path, temporary, write)


def _write_once(path: Path, temporary: Path, write: Callable[[Path], None]) -> None:
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


def read_json(path: Path) -> Any:
    """Read what ``write_json`` wrote.

    Raises:
        UserError: it is not there or cannot be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def append_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Append one JSON line a value in a single flushed write.

    A torn last line (a process died while it wrote) is cut off first.
    """
    lines = "".join(json.dumps(value, allow_nan=False) + "\n" for value in values)
    with open(path, "ab+") as handle:
        handle.seek(0)
        handle.truncate(len(_whole_lines(handle.read())))
        handle.write(lines.encode())
        handle.flush()
        os.fsync(handle.fileno())


def read_json_lines(path: Path) -> list[Any]:
    """Read JSON lines; a torn last line is passed over, and the file is left as it is."""
    path = Path(path)
    if not path.exists():
        return []
    values = []
    for number, line in enumerate(_whole_lines(path.read_bytes()).splitlines(), start=1):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise UserError(
                f"{path}, line {number} is damaged ({error}); remove the lines from there on and "
                "give the same command again"
            ) from None
    return values


def _whole_lines(raw: bytes) -> bytes:
    return raw[: raw.rfind(b"\n") + 1]
