"""Folders of a run that holds several tasks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError

#: The command of a run of ``prune`` with several tasks, as its manifest has it; the folders of its
#: tasks are runs of ``prune``.
PRUNE_TASKS = "prune --combine"
#: What stands in such a run beside the folders of its tasks.
TAKEN = ("model", "heal", "manifest.json", "steps.jsonl", "report.html")


def task_folders(names: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """A folder name for each task.

    Args:
        names: of the tasks.
        taken: names that other things in the run have.

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
        while folder in (*folders, *taken):
            number += 1
            folder = f"{base}-{number}"
        folders.append(folder)
    return folders


def refuse_several(path: str | Path, manifest: Mapping[str, Any], what: str) -> None:
    """Refuse a run of ``prune`` with several tasks where one task is wanted.

    Args:
        path: the run.
        manifest: its manifest.
        what: what needs one task.

    Raises:
        UserError: it is one; names the folders of its tasks.
    """
    if manifest.get("command") == PRUNE_TASKS:
        folders = ", ".join(str(Path(path) / folder) for folder in manifest["tasks"])
        raise UserError(f"{path} holds several tasks and {what} takes one; give one of {folders}")
