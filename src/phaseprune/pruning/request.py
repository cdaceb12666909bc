"""What ``prune`` was asked for; what does not go together is refused before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaseprune.decision.combined import COMBINES
from phaseprune.decoder.items import check_granularity
from phaseprune.decoder.mapped import MAP
from phaseprune.errors import UserError, near_matches
from phaseprune.methods.choice import Choice, find_choice
from phaseprune.methods.objectives import OBJECTIVES, check_letters
from phaseprune.methods.registry import check_length
from phaseprune.pruning.stopping import check_rules
from phaseprune.questions.question import Task
from phaseprune.runs.folders import TAKEN, task_folders

if TYPE_CHECKING:
    from phaseprune.decision.transition import Transition
    from phaseprune.decoder.patterns import Pattern
    from phaseprune.probes.guards import Guard

#: Which blocks may go: all, or the Decisive ones of the model as it is at each step.
AMONG = ("all", "decisive")


@dataclass(frozen=True, kw_only=True)
class PruneRequest:
    """What to prune, by what, on which questions and until when.

    All but ``tasks`` is described at ``prune.prune``, whose keywords these are.

    Attributes:
        tasks: how many.

    Raises:
        UserError: a value that there is not, or two that do not go together.
    """

    tasks: int = 1
    weights: Sequence[float] | None = None
    combine: str | None = None
    remove: int | None = None
    ratio: float | None = None
    keep_accuracy: float | None = None
    keep_text_loss: float | None = None
    method: str | None = None
    objective: str | None = None
    protect: Collection[int] = ()
    granularity: str = "block"
    among: str = "all"
    keep_period: bool = False
    search: str = "exact"
    race_alpha: float | None = None
    race_tolerance: float | None = None
    race_dtype: str | None = None
    text: str | Path | None = None
    guard: Guard | None = None
    calibration: int | None = None
    evaluation: int | None = None
    seed: int = 0
    transition: Transition | None = None

    def __post_init__(self):
        object.__setattr__(self, "protect", tuple(sorted(set(self.protect))))
        check_granularity(self.granularity)
        self._check_tasks()
        self._check_narrowing()
        check_length(self.choice.method, self.remove is not None or self.ratio is not None)
        self._check_halves()
        check_letters(self.choice.method.objective, (), self.choice.how.get("search"))
        check_rules(self.remove, self.ratio, self.keep_accuracy, self.keep_text_loss)

    @cached_property
    def choice(self) -> Choice:
        """What chooses."""
        return find_choice(
            self.method,
            self.objective,
            self.search,
            self.race_alpha,
            self.race_tolerance,
            self.race_dtype,
        )

    @property
    def rules(self) -> dict[str, Any]:
        """What says when to end."""
        names = ("remove", "ratio", "keep_accuracy", "keep_text_loss")
        return {name: getattr(self, name) for name in names}

    @property
    def task_weights(self) -> list[float]:
        """One a task, equal ones where none are given."""
        return [1.0] * self.tasks if self.weights is None else list(map(float, self.weights))

    @property
    def combined_by(self) -> str:
        """How what is left of each task is combined."""
        return self.combine or COMBINES[0]

    @property
    def races(self) -> bool:
        """Whether candidates are given up early."""
        return self.choice.how.get("search") == "racing"

    def _check_tasks(self) -> None:  # noqa: C901
        """Refuse what does not go with so many tasks."""
        if self.combine is not None and self.combine not in COMBINES:
            raise UserError(
                f"--combine is {self.combine!r} and must be one of {', '.join(COMBINES)}."
                + near_matches(self.combine, COMBINES)
            )
        if self.tasks < 1:
            raise UserError("no task is given; give one or several from load_task")
        if self.tasks < 2:
            for option, value in (("combine", self.combine), ("weights", self.weights)):
                if value is not None:
                    raise UserError(
                        f"--{option} goes with several tasks; name them as --task a,b, or leave it "
                        "out"
                    )
            return
        if self.weights is not None:
            if len(self.weights) != self.tasks:
                raise UserError(
                    f"--weights gives {len(self.weights)} for {self.tasks} tasks; give a weight "
                    "for each task, in the same order"
                )
            if not all(0 < weight < math.inf for weight in self.weights):
                raise UserError(
                    f"--weights {', '.join(f'{weight:g}' for weight in self.weights)}: each must "
                    "be above 0; leave a task out that should not count"
                )
        if self.choice.method.objective not in OBJECTIVES:
            raise UserError(
                f"{self.choice.word} does not choose by several tasks; give --objective "
                f"{', '.join(OBJECTIVES)}, or one task"
            )
        if self.races:
            raise UserError(
                "--search=racing takes one task; with several leave it out: every candidate is "
                "scored on all calibration questions"
            )
        if self.granularity != "block":
            raise UserError(
                f"--granularity={self.granularity} takes one task; with several whole blocks are "
                "removed"
            )
        if self.transition is not None:
            raise UserError("a transition is of one task; leave it out of a search by several")

    def _check_narrowing(self) -> None:
        """Refuse what does not go with candidates that each step narrows anew."""
        decisive = self.among == "decisive"
        if self.among not in AMONG:
            raise UserError(f"--among is {self.among!r} and must be one of {', '.join(AMONG)}")
        if self.keep_period:
            lead = "--keep-period looks before each step at which blocks may go, and"
            others = (
                (decisive, "--among=decisive does so otherwise; leave one of them out"),
                (self.tasks > 1, "a search by several tasks does not; give one task"),
            )
        elif decisive:
            lead = "--among=decisive looks at phases before each step, and"
            others = ((self.tasks > 1, "several tasks have no one transition; give one task"),)
        else:
            return
        word, halves = self.choice.word, f"--granularity={self.granularity}"
        for at_fault, what in (
            (
                self.choice.ranks,
                f"{word} ranks all blocks at once; leave it out, or give --protect",
            ),
            (self.races, "--search=racing does not; leave it out"),
            (self.granularity != "block", f"{halves} does not; leave it out"),
            *others,
        ):
            if at_fault:
                raise UserError(f"{lead} {what}")

    def _check_halves(self) -> None:
        """Refuse what does not go with halves of blocks."""
        if self.granularity == "block":
            return
        if self.choice.ranks:
            raise UserError(
                f"{self.choice.word} ranks whole blocks and --granularity={self.granularity} "
                "removes halves of blocks, which are searched by --objective "
                f"{', '.join(OBJECTIVES)} or text_loss; leave one of the two out"
            )
        if self.races:
            raise UserError(
                "--search=racing goes with whole blocks only and --granularity is "
                f"{self.granularity}; leave one of the two out"
            )

    def check_placement(self, device: object, stream: bool | None) -> None:
        """Refuse, before a model is loaded, that its weights are not all in one memory.

        Args:
            device: as ``load_model`` takes it.
            stream: likewise.

        Raises:
            UserError: says which option does not go with halves.
        """
        spread = "--stream" if stream else f"--device={MAP}" if device == MAP else None
        if self.granularity != "block" and spread:
            raise UserError(
                f"--granularity={self.granularity} runs halves of blocks, which needs all weights "
                f"in one memory, and {spread} spreads them; leave one of the two out"
            )

    def check_questions(self, tasks: Sequence[Task]) -> list[str]:
        """A folder name for each task.

        Raises:
            UserError: a task is named twice, two are the same questions put in the same way, or
                blocks are to be chosen by what its scoring does not have.
        """
        scorings = {task.scoring for task in tasks}
        check_letters(self.choice.method.objective, scorings, self.choice.how.get("search"))
        folders = task_folders([task.name for task in tasks], TAKEN)
        seen: dict[tuple, str] = {}
        for task in tasks:
            told = {name: value for name, value in task.identity.items() if name != "name"}
            other = seen.setdefault((*told.values(), task.prompt_format), task.name)
            if other != task.name:
                raise UserError(
                    f"--task: {other} and {task.name} are the same questions put in the same way; "
                    "name them once, and give --weights to let them count for more"
                )
        return folders

    def told(self, looked_at: str | None, pattern: Pattern | None = None) -> dict[str, Any]:
        """What the manifest says of what chose, in values and as a sentence.

        Args:
            looked_at: in words; None where the method looks at nothing but the model.
            pattern: that the blocks had to go on following.
        """
        method, halves = self.choice.method, self.granularity != "block"
        source = method.paper + (f", arXiv {method.arxiv}" if method.arxiv else "")
        units = {
            "block": "Blocks",
            "attention": "Attention halves of blocks",
            "mlp": "MLP halves of blocks",
            "sublayer": "Halves of blocks",
        }
        what = f"{units[self.granularity]} were chosen by {method.name} ({method.title}; {source})"
        what += f" on {looked_at}." if looked_at else ", which looks at no questions."
        if self.among == "decisive":
            what += " Only Decisive blocks could go, by a trace of each step's model."
        if pattern is not None:
            what += (
                f" The pattern of {' and '.join(pattern.fields)} (every {pattern.period} blocks) "
                "was kept."
            )
        if self.protect:
            both = ", both halves" if halves else ""
            what += f" Protected{both}: {', '.join(map(str, self.protect))}."
        return {
            "method": method.name,
            "title": method.title,
            "paper": method.paper,
            "arxiv": method.arxiv,
            "looked_at": looked_at,
            "protect": list(self.protect),
            **({"granularity": self.granularity} if halves else {}),
            "in_words": what,
        }
