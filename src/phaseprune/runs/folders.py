"""Folders of a run that holds several tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from phaseprune.errors import UserError


def task_folders(names: Sequence[str]) -> list[str]:
    """A folder name for each task.

    Raises:
        UserError: no task, or one that is named twice.
    """
    if not names:
        raise UserError("name at least one task with --task, as --task arc_easy,piqa")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--task names {twice} twice; name each task once")
    folders: list[str] = []
    for name in names:
        folder = base = re.sub(r"[^\w.-]+", "-", Path(name).stem).strip("-.") or "task"
        number = 1
        while folder in folders:
            number += 1
            folder = f"{base}-{number}"
        folders.append(folder)
    return folders
