"""``lm_eval:NAME``: multiple-choice tasks of lm-evaluation-harness itself.

Documents, contexts, examples and options come from lm-eval; we only score what it would score. So
any such task of its registry, or of a folder of YAML files, works as it does there.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.errors import UserError, near_matches
from phaseprune.questions.question import Prompt, Question

PREFIX = "lm_eval:"
#: lm-eval's own default for drawing examples; our ``--seed`` is added, so 0 draws as lm-eval does.
FEWSHOT_SEED = 1234


def refuse(name: str, given: Mapping[str, Any]) -> None:
    """Refuse options that would change what lm-eval's task itself says.

    Raises:
        UserError: one of them is given.
    """
    for option, value in given.items():
        if value:
            raise UserError(
                f"--{option} does not go with {name}, whose prompts and options are lm-eval's own; "
                "leave it out, or use a benchmark that `phaseprune tasks` lists"
            )


def read_task(
    name: str,
    folder: str | Path | None,
    limit: int | None,
    shots: int | None,
    seed: int,
    chat: bool = False,
) -> tuple[tuple[Question, ...], Prompt]:
    """The questions of a task or of all tasks of a group, with their contexts ready.

    Args:
        name: ``lm_eval:NAME``, a task, group or tag.
        folder: a folder of YAML files besides the registry's.
        limit: only the first so many documents of each task.
        shots: examples before each question; None for the YAML's own number. A YAML's 0 stays.
        seed: of the examples.
        chat: take the contexts as chat messages, with a turn an example.

    Raises:
        UserError: lm-eval is not installed, knows no such task, or the task is not multiple choice
            or cannot be loaded.
    """
    wanted = name.removeprefix(PREFIX)
    with _lm_eval_quietly():
        tasks = _load(name, wanted, folder)
        for label, task in tasks.items():
            _check(label, task)
        used = {label: _set_shots(task, shots) for label, task in tasks.items()}
        if shots and not any(used.values()):
            raise UserError(
                f"{name}: --shots={shots} has no effect, the task's YAML fixes 0 examples; leave "
                "it out"
            )
        questions: list[Question] = []
        for label, task in tasks.items():
            task.set_fewshot_seed(FEWSHOT_SEED + seed)
            try:
                task.build_all_requests(
                    limit=limit,
                    rank=0,
                    world_size=1,
                    apply_chat_template=chat,
                    fewshot_as_multiturn=chat,
                    chat_template=_messages if chat else None,
                )
            except (ValueError, AssertionError, KeyError) as error:
                raise UserError(f"{PREFIX}{label}: lm-eval cannot build it: {error}") from None
            questions += _questions(label, task, len(tasks) > 1)
    counts = "/".join(str(count) for count in sorted(set(used.values())))
    drawn = f" by seed {FEWSHOT_SEED + seed}" if any(used.values()) else ""
    prompt = Prompt(f"lm_eval {_version()}, {counts} shots{drawn}", delimiter="", messages=chat)
    return tuple(questions), prompt


def _messages(turns: list[dict], add_generation_prompt: bool) -> str:
    """What lm-eval takes for a chat template: the model's own comes with the tokenizer, later."""
    return json.dumps(turns)


def _load(name: str, wanted: str, folder: str | Path | None) -> dict[str, Any]:
    """Tasks by name."""
    from lm_eval.tasks import TaskManager

    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"--lm-eval-path {folder}: there is no such folder of YAML files")
    path = None if folder is None else str(folder)
    # Indexing the whole registry takes seconds; a folder that has the task is enough by itself.
    manager = TaskManager(include_path=path, include_defaults=False) if path else None
    if manager is None or wanted not in manager.all_tasks:
        manager = TaskManager(include_path=path)
    if wanted not in manager.all_tasks:
        raise UserError(
            f"{name}: lm-eval knows no task, group or tag {wanted!r}."
            + near_matches(wanted, manager.all_tasks)
        )
    try:
        return manager.load([wanted])["tasks"]
    except Exception as error:  # noqa: BLE001 - a task's own code and the hub raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise UserError(
            f"{name}: lm-eval cannot load it ({reason}); a data set of the hub needs a network "
            "once, after which HF_HUB_OFFLINE=1 works from the cache"
        ) from None


def _check(label: str, task: Any) -> None:
    kind = getattr(task, "OUTPUT_TYPE", None)
    if kind != "multiple_choice":
        raise UserError(
            f"{PREFIX}{label} is not multiple choice: its output type is {kind}, and phaseprune "
            "needs options to choose from"
        )


def _set_shots(task: Any, shots: int | None) -> int:
    """Set the number of examples as lm-eval's evaluator does; gives the number in force."""
    own = task.get_config("num_fewshot")
    count = own if shots is None or own == 0 else shots
    task.set_config("num_fewshot", count or 0)
    return count or 0


def _questions(label: str, task: Any, several: bool) -> Iterator[Question]:
    """The questions of one task from its built requests."""
    requests: dict[int, list[Any]] = {}
    for instance in task.instances:
        requests.setdefault(instance.doc_id, []).append(instance)
    for number, instances in requests.items():
        where = f"{PREFIX}{label}, document {number}"
        document = instances[0].doc
        choices = tuple(map(str, task.doc_to_choice(document)))
        # Behind the options' own requests may stand others, of the mutual-information metric.
        arguments = [instance.args for instance in instances[: len(choices)]]
        if any(len(pair) != 2 for pair in arguments):
            raise UserError(f"{where}: it has more than text (images, sound); that is not handled")
        pairs = tuple((str(context), str(ending)) for context, ending in arguments)
        yield Question(
            id=f"{label}/{number}" if several else str(number),
            text="\n".join(choices) if task.multiple_input else str(task.doc_to_text(document)),
            choices=choices,
            answer=_gold(task, document, choices, where),
            group=label if several else None,
            pairs=pairs,
        )


def _gold(task: Any, document: Any, choices: tuple[str, ...], where: str) -> int:
    """The right option; a task with options in the context says it in place of the text."""
    gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    if isinstance(gold, list) and len(gold) == 1:
        gold = gold[0]
    if isinstance(gold, str):
        gold = choices.index(gold) if gold in choices else -1
    if not isinstance(gold, int) or not 0 <= gold < len(choices) or len(choices) < 2:
        raise UserError(
            f"{where}: its right answer is {gold!r} among {len(choices)} options, and phaseprune "
            "needs exactly one of at least 2"
        )
    return gold


def _version() -> str:
    from importlib.metadata import version

    return version("lm_eval")


@contextlib.contextmanager
def _lm_eval_quietly() -> Iterator[None]:
    """lm-eval without its bars and log lines, seeded as its evaluator seeds.

    Some tasks shuffle options with the global generators; their state is put back.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import lm_eval.tasks  # noqa: F401
    except ImportError:
        raise UserError(
            f"{PREFIX}NAME needs lm-evaluation-harness; install it with "
            "pip install 'phaseprune[lm-eval]'"
        ) from None
    logger, states = logging.getLogger("lm_eval"), (random.getstate(), np.random.get_state())
    level = logger.level
    logger.setLevel(logging.ERROR)
    random.seed(0)
    np.random.seed(FEWSHOT_SEED)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])
