"""The lock of a run directory: one process works in it at a time.

The operating system holds it, so it is gone with its process however that ends; the file that it
is on says who has it, and is removed when the work ends.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from phaseprune.errors import UserError

#: The file in the run directory that is locked.
LOCK = ".lock"
#: Seconds in which a lock that another process has may come free: it is also taken for a moment to
#: clear leftovers.
MOMENT = 0.5
#: What a file system without locks answers.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@dataclass
class _Held:
    handle: BinaryIO
    owner: tuple[int, int]
    times: int = 1


#: Locks of this process by the real path of their directory.
_held: dict[str, _Held] = {}
_guard = threading.Lock()


@contextmanager
def locked(folder: Path, patience: float = MOMENT) -> Iterator[bool]:
    """Hold the lock of a directory, which is made if it is not there.

    Who holds it already (a command that works in its run again) holds it once more.

    Args:
        folder: the run directory.
        patience: seconds to wait for another process.

    Yields:
        Whether it was not held before.

    Raises:
        UserError: another process or thread holds it, or the directory cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(_unwritable(folder, error)) from None
    key = os.path.realpath(folder)
    first = _take(folder, key, patience)
    try:
        yield first
    finally:
        _let_go(folder, key)
        for path in made if first else ():
            with suppress(OSError):  # not empty, but where all was refused before it was written
                path.rmdir()


def _take(folder: Path, key: str, patience: float) -> bool:
    """Take the lock, or count it once more; gives whether it was taken."""
    owner = os.getpid(), threading.get_ident()
    until = time.monotonic() + patience
    while True:
        with _guard:
            held = _held.get(key)
            if held is not None and held.owner == owner:
                held.times += 1
                return False
            if held is None or held.owner[0] != owner[0]:  # else of another thread
                handle = _lock_file(folder)
                if handle is not None:
                    _held[key] = _Held(handle, owner)
                    return True
        if time.monotonic() >= until:
            raise UserError(_in_use(folder))
        time.sleep(0.05)


def _let_go(folder: Path, key: str) -> None:
    with _guard:
        held = _held[key]
        held.times -= 1
        if held.times:
            return
        del _held[key]
        with suppress(OSError):  # removed while it is held: see _lock_file
            (folder / LOCK).unlink()
        held.handle.close()


def _lock_file(folder: Path) -> BinaryIO | None:
    """The locked file; None where another process has it."""
    path = folder / LOCK
    try:
        handle = open(path, "a+b")  # noqa: SIM115 - stays open while the lock is held
    except FileNotFoundError:  # the directory went meanwhile
        folder.mkdir(parents=True, exist_ok=True)
        return None
    except OSError as error:
        raise UserError(_unwritable(folder, error)) from None
    try:
        _lock(handle)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            handle.close()
            return None
        print(
            f"note: the file system of {folder} has no locks; do not give this command twice at "
            "the same time",
            file=sys.stderr,
        )
    # Whoever had the lock removes its file: it counts only on the file that stands there now.
    try:
        current = os.path.samestat(os.fstat(handle.fileno()), os.stat(path))
    except OSError:
        current = False
    if not current:
        handle.close()
        return None
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with suppress(OSError):  # a full disk: the lock holds without it
        handle.truncate(0)
        handle.write(json.dumps(holder).encode() + b"\n")
        handle.flush()
    return handle


def _lock(handle: BinaryIO) -> None:
    """Lock an open file, or raise an ``OSError`` at once."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        handle.seek(1 << 30)  # behind the text, which others must be able to read
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _in_use(folder: Path) -> str:
    """Who works in a directory, and what to do."""
    try:
        told = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        who = f"process {told['pid']} on {told['host']} has worked in it since {told['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process works in it"
    return (
        f"{folder} is in use: {who}; wait for it to end, or stop it, and give the same command "
        "again, or give another --out"
    )


def _unwritable(folder: Path, error: OSError) -> str:
    return f"{folder} cannot be written ({error.strerror or error}); give another --out"
