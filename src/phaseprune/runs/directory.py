"""The run directory: what stands in it, and whether a command may go on in it."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError
from phaseprune.runs.atomic import append_json_lines, read_json_lines, write_json
from phaseprune.runs.leftovers import clear_leftovers, strangers
from phaseprune.runs.lock import MOMENT, locked

#: Packages whose versions a manifest records.
RECORDED = ("phaseprune", "torch", "transformers", "numpy", "tokenizers", "safetensors", "peft")
#: Parts of a manifest that must be equal for a run to go on, in the order they are compared (the
#: names by which the user called model and task are not: their fingerprints are).
IDENTITY = ("command", "model", "task", "prompt_format", "seed", "options")
#: Seconds for which a command that may add to a finished run waits for another that looks at it.
ADDING = 30.0
#: What another fingerprint of a model means, in words.
MODEL_PARTS = {
    "fingerprint": "its weights differ",
    "tokenizer": "its tokenizer differs",
    "chat_template": "its chat template differs",
}


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

    @contextmanager
    def lock(self, patience: float = MOMENT) -> Iterator[None]:
        """Be the one process that works in the directory; what killed ones left is removed.

        Args:
            patience: seconds to wait for another process.

        Raises:
            UserError: another process works in it; says which.
        """
        with locked(self.path, patience) as first:
            if first:
                clear_leftovers(self.path)
            yield

    @contextmanager
    def lock_unless_finished(self) -> Iterator[None]:
        """Hold the lock through a whole command that also exports; not to read a finished run."""
        if not self.manifest_path.exists():
            self._refuse_others()
        elif self.manifest.get("status") == "finished":
            yield
            return
        with self.lock():
            yield

    @contextmanager
    def open(
        self, identity: dict[str, Any], extra: dict[str, Any], *, adds: bool = False
    ) -> Iterator[str]:
        """Start, go on with, or recognise a run, and hold its lock while the work inside goes on.

        If the work raises, a running run is marked ``failed``; the same command goes on with it.

        Args:
            identity: the parts of the manifest named in ``IDENTITY``.
            extra: the other parts, recorded but not compared.
            adds: whether the work may write to a finished run too. Else that is only read, which no
                other process hinders.

        Yields:
            ``"new"``, ``"resumed"`` or ``"finished"``.

        Raises:
            UserError: the directory holds another run (names the part that differs) or something
                that is no run at all, or another process works in it.
        """
        state = self.state(identity)
        if state == "finished" and not adds:
            with suppress(UserError), self.lock(patience=0):
                pass  # clears what a killed process left, if nobody else is at work
            yield state
            return
        with self.lock(ADDING if state == "finished" else MOMENT):
            state = self.state(identity)  # again: another process may just have ended
            if state == "new":
                self._write_manifest(identity, extra)
            elif state == "resumed":
                manifest = self.manifest
                # One of an older version says less of the model; from here on it says all.
                told = {"model": identity.get("model", {}) | manifest["model"]}
                write_json(self.manifest_path, manifest | told | {"status": "running"})
            try:
                yield state
            except BaseException:
                with suppress(UserError, OSError):  # the error itself matters more
                    if self.manifest["status"] == "running":
                        self.update(status="failed")
                raise

    def state(self, identity: dict[str, Any]) -> str:
        """Whether a run is ``"new"``, ``"resumed"`` or ``"finished"`` if it is opened now.

        Raises:
            UserError: as of ``open``.
        """
        if self.manifest_path.exists():
            manifest = self.manifest
            difference = _first_difference(manifest, identity)
            if difference:
                raise UserError(
                    f"{self.path} holds another run: {difference}; give another --out, or delete it"
                )
            return "finished" if manifest["status"] == "finished" else "resumed"
        self._refuse_others()
        return "new"

    def _refuse_others(self) -> None:
        """Refuse a path without a manifest that holds anything else."""
        if not self.path.exists():
            return
        holds = ""
        if self.path.is_dir():
            others = strangers(self.path)
            if not others:
                return
            holds = f" (it holds {others[0]})"
        raise UserError(f"{self.path} exists and is not a run directory{holds}; give another --out")

    def _write_manifest(self, identity: dict[str, Any], extra: dict[str, Any]) -> None:
        versions = {name: _version(name) for name in RECORDED}
        versions["python"] = sys.version.split()[0]
        write_json(
            self.manifest_path,
            identity
            | extra
            | {"versions": versions, "timings": {}, "status": "running", "result": None},
        )

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


def model_difference(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first part in which two models differ, in words; None if they are the same.

    Manifests of older versions know fewer parts, and what only one side knows does not differ. Nor
    does the name by which a model was called.
    """
    for key in now:
        if key == "name" or key not in then or then[key] == now[key]:
            continue
        if key in MODEL_PARTS:
            was, now_is = (str(mark)[:12] if mark else "none" for mark in (then[key], now[key]))
            return f"{MODEL_PARTS[key]} (fingerprint {now_is}, was {was})"
        return f"its model {key} was {_short(then[key])} and now is {_short(now[key])}"
    return None


def _first_difference(manifest: dict[str, Any], identity: dict[str, Any]) -> str | None:
    """The first part in which two runs differ, in words; None if they are the same."""
    for part in IDENTITY:
        then, now = manifest.get(part), json.loads(json.dumps(identity.get(part)))
        if then == now:
            continue
        if isinstance(then, dict) and isinstance(now, dict):
            if part == "model":
                if difference := model_difference(then, now):
                    return difference
                continue
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
