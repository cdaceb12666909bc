"""Questions of the named benchmarks, from the hub or from a folder with copies of its data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError
from phaseprune.questions.benchmarks import Benchmark
from phaseprune.questions.question import Question
from phaseprune.questions.rows import Record


def read_split(
    name: str, entry: Benchmark, subjects: tuple[str, ...], split: str, data_dir: Path | None
) -> list[Question]:
    """The questions of one split.

    Args:
        name: what the user called the task.
        entry: its entry.
        subjects: only these subjects, where the entry has some.
        split: the split's name on the hub.
        data_dir: a folder with copies of data sets, ``DIR/OWNER/NAME`` laid out as on the hub;
            None for the hub.

    Raises:
        UserError: the data cannot be had, or a row is not as the entry says.
    """
    questions = []
    if entry.subjects and entry.subject_column is None:
        parts = [(subject, subject) for subject in subjects]
    else:
        parts = [(entry.configuration, None)]
    for configuration, subject in parts:
        place = f"{name}, {entry.hub}" + (f" ({configuration})" if configuration else "")
        rows = _rows(place, entry.hub, configuration, split, data_dir)
        for number, row in enumerate(rows):
            group = subject or (entry.subject_column and row.get(entry.subject_column))
            if group is not None and group not in subjects:
                continue
            where = f"{place}, {split}, row {number}"
            identity = str(row.get("id", number)) if subject is None else f"{subject}/{number}"
            questions.append(_question(entry, row, identity, group, where))
    if not questions:
        raise UserError(f"{name}: {entry.hub} has no questions in its split {split!r}")
    return questions


def _question(entry: Benchmark, row: dict, identity: str, group: Any, where: str) -> Question:
    """The question of a row, whose answer is read by itself: labels, or numbers from the first."""
    first = entry.schema.firsts[0]
    try:
        [item] = entry.schema.items(Record(row, where))
        if len(item.options.texts) < 2:
            raise item.record.refuse(f"it has {len(item.options.texts)} options")
        answer = item.answer(item.by_label(item.value, first), first)
    except UserError as error:
        raise UserError(
            f"{error.typed}; this split has questions without an answer, or its schema may have "
            "changed"
        ) from None
    return Question(identity, item.text, item.options.texts, answer, group, item.pairs)


def _rows(place: str, hub: str, configuration: str | None, split: str, data_dir: Path | None):
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{place}: named benchmarks need the package `datasets`; install it with "
            "pip install 'phaseprune[tasks]'"
        ) from None
    with _quiet(datasets):
        if data_dir is not None:
            files = _copies(place, Path(data_dir), hub, configuration, split)
            return datasets.load_dataset("parquet", data_files={split: files}, split=split)
        try:
            return _load(datasets, hub, configuration, split)
        except Exception as error:  # noqa: BLE001 - the hub's client raises anything
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
            raise UserError(
                f"{place}: cannot be loaded from the hub ({reason}); to work offline, load it once "
                "with a network and set HF_HUB_OFFLINE=1, or give a folder with a copy of it, "
                f"DIR/{hub}, with --data-dir DIR"
            ) from None


def _load(datasets, hub: str, configuration: str | None, split: str):
    """A split from the hub; of a data set that is a script, the hub's own conversion of it."""
    try:
        return datasets.load_dataset(hub, configuration, split=split)
    except RuntimeError as error:  # since datasets 4 no script is run
        if "scripts are no longer supported" not in str(error):
            raise
    files = f"{configuration or 'default'}/{split}/*.parquet"
    return datasets.load_dataset(
        hub, data_files={split: files}, revision="refs/convert/parquet", split=split
    )


def _copies(
    place: str, data_dir: Path, hub: str, configuration: str | None, split: str
) -> list[str]:
    """The parquet files of a split in a copy of a data set."""
    root = data_dir.expanduser() / hub
    folders = [root / configuration] if configuration else [root / "data", root / "default", root]
    for folder in folders:
        # The second is how the hub lays out its own conversions to parquet.
        for pattern in (f"{split}[-.]*parquet", f"{split}/*.parquet"):
            files = sorted(folder.glob(pattern))
            if files:
                return [str(file) for file in files]
    raise UserError(
        f"{place}: {root} has no parquet files of the split {split!r} (as "
        f"{configuration or 'data'}/{split}-00000-of-00001.parquet); copy the data set there as it "
        "is laid out on the hub"
    )


@contextmanager
def _quiet(datasets) -> Iterator[None]:
    """No progress bars of ``datasets``; its console belongs to us."""
    shown = datasets.is_progress_bar_enabled()
    before = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS")
    datasets.disable_progress_bars()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
        if before is None:
            del os.environ["HF_HUB_DISABLE_PROGRESS_BARS"]
