"""What a killed process leaves in a run directory, told from what is somebody's own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from phaseprune.runs.lock import LOCK

#: Every file that a command writes into a run directory. A temporary one of another name
#: (``runs.atomic``) is not ours.
FILES = frozenset(
    {
        "manifest.json",
        "trace.json",
        "scores.parquet",
        "scores_logit.parquet",
        "lens.safetensors",
        "steps.jsonl",
        "candidates.jsonl",
        "plan.json",
        "perturbation.json",
        "ablation.json",
        "similarity.json",
        "compare.json",
        "rankings.jsonl",
        "guards.jsonl",
        "state.pt",
        "measured.safetensors",
        "heal.json",
        "ladder.json",
        "paper.json",
        "claims.md",
        "report.html",
        "check.json",
    }
)
#: Folders of measured parts, whose files are named by numbers.
PARTS = ("parts", "minibatches")
#: How the folder is called in which healing keeps the pruned model that it trains, while it does.
SCRATCH = ".heal-scratch-"
#: Where an export into the run is written until it is proved.
PARTIAL = ".model.partial"

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")
_PART = re.compile(r"\d+\.(npz|safetensors)")


def leftovers(folder: Path) -> Iterator[Path]:
    """What processes that are gone left in a run directory.

    Only while its lock is held: else these may be files that a living process is about to rename.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name == PARTIAL or path.name.startswith(SCRATCH):
            if path.is_dir():
                yield path
        elif path.name in PARTS and path.is_dir():
            yield from (one for one in path.iterdir() if _is_temporary(one, _PART.fullmatch))
        elif _is_temporary(path, FILES.__contains__):
            yield path


def clear_leftovers(folder: Path) -> None:
    """Remove them."""
    for path in list(leftovers(folder)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def strangers(folder: Path) -> list[str]:
    """Names of what else stands in a directory beside the lock and leftovers, in order."""
    gone = {path.name for path in leftovers(folder)}
    return sorted(path.name for path in folder.iterdir() if path.name not in {LOCK, *gone})


def _is_temporary(path: Path, known) -> bool:
    found = _TEMPORARY.fullmatch(path.name)
    return bool(found and known(found["name"]) and path.is_file())
