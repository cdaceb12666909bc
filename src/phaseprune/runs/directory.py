"""The run directory: what stands in it, and whether a command may go on in it."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError
from phaseprune.runs.atomic import append_json_lines, read_json_lines, write_json

#: Packages whose versions a manifest records.
RECORDED = ("phaseprune", "torch", "transformers", "numpy", "tokenizers", "safetensors", "peft")
#: Parts of a manifest that must be equal for a run to go on, in the order they are compared (the
#: names by which the user called model and task are not: their fingerprints are).
IDENTITY = ("command", "model", "task", "prompt_format", "seed", "options")


@dataclass(frozen=True)
class RunDirectory:
    """Paths and state of one run."""

    path: Path

    @property
    def manifest_path(self) -> Path:  # noqa: D102
        return self.path / "manifest.json"

    @property
    def trace_path(self) -> Path:  # noqa: D102
        return self.path / "trace.json"

    @property
    def scores_path(self) -> Path:  # noqa: D102
        return self.path / "scores.parquet"

    @property
    def model_path(self) -> Path:  # noqa: D102
        return self.path / "model"

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest.

        Raises:
            UserError: there is none, or it is not readable.
        """
        try:
            return json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: not a run directory (it has no manifest.json); give the --out of a "
                "phaseprune command"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise UserError(f"{self.manifest_path}: cannot be read ({error})") from None

    def steps(self) -> list[dict[str, Any]]:
        """The finished pruning steps."""
        return read_json_lines(self.path / "steps.jsonl")

    def append_step(self, step: dict[str, Any]) -> None:
        """Append a finished step."""
        append_json_lines(self.path / "steps.jsonl", [step])

    def candidates(self) -> list[dict[str, Any]]:
        """All candidates scored so far."""
        return read_json_lines(self.path / "candidates.jsonl")

    def append_candidates(self, candidates: list[dict[str, Any]]) -> None:
        """Append the candidates of one step."""
        append_json_lines(self.path / "candidates.jsonl", candidates)

    def begin(self, identity: dict[str, Any], extra: dict[str, Any]) -> str:
        """Start, go on with, or recognise a run.

        Args:
            identity: the parts of the manifest named in ``IDENTITY``.
            extra: the other parts, recorded but not compared.

        Returns:
            ``"new"``, ``"resumed"`` or ``"finished"``.

        Raises:
            UserError: the directory holds another run (names the part that differs) or something
                that is no run at all.
        """
        if self.manifest_path.exists():
            manifest = self.manifest
            difference = _first_difference(manifest, identity)
            if difference:
                raise UserError(
                    f"{self.path} holds another run: {difference}; give another --out, or delete it"
                )
            if manifest["status"] == "finished":
                return "finished"
            write_json(self.manifest_path, manifest | {"status": "running"})
            return "resumed"
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"{self.path} exists and is not a run directory; give another --out")
        versions = {name: _version(name) for name in RECORDED}
        versions["python"] = sys.version.split()[0]
        write_json(
            self.manifest_path,
            identity | extra | {"versions": versions, "timings": {}, "status": "running",
                                "result": None},
        )
        return "new"

    @contextmanager
    def work(self) -> Iterator[None]:
        """Mark the run ``failed`` if the work inside raises; the same command goes on with it."""
        try:
            yield
        except BaseException:
            self.update(status="failed")
            raise

    def update(self, **parts: Any) -> None:
        """Replace parts of the manifest."""
        write_json(self.manifest_path, self.manifest | parts)

    def add_timings(self, **seconds: float) -> None:
        """Add seconds to the named timings; a resumed run's parts sum up."""
        timings = self.manifest["timings"]
        for name, value in seconds.items():
            timings[name] = round(timings.get(name, 0.0) + value, 3)
        self.update(timings=timings)


def default_run_path(command: str, model: str, task: str, words: Iterable[str]) -> Path:
    """Where a run goes without ``--out``: ``runs/COMMAND-MODEL-TASK-DIGEST``.

    The digest is of the words of the command line, so the same command finds its run again and
    another one does not get in its way.
    """
    names = [re.sub(r"[^\w.-]+", "-", Path(name).stem).strip("-") for name in (model, task)]
    digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:6]
    return Path("runs") / "-".join([command, *names, digest])


def _first_difference(manifest: dict[str, Any], identity: dict[str, Any]) -> str | None:
    """The first part in which two runs differ, in words; None if they are the same."""
    for part in IDENTITY:
        then, now = manifest.get(part), json.loads(json.dumps(identity.get(part)))
        if then == now:
            continue
        if isinstance(then, dict) and isinstance(now, dict):
            keys = [k for k in [*now, *then] if k != "name" and then.get(k) != now.get(k)]
            if not keys:
                continue
            key = keys[0]
            part, then, now = f"{part.removesuffix('s')} {key}", then.get(key), now.get(key)
        return f"its {part} was {_short(then)} and now is {_short(now)}"
    return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:24] + "…"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
