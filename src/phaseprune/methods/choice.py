"""What a pruning run chooses blocks by: a search by an objective, or the order of a ranking."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from phaseprune.decoder.patterns import Pattern
from phaseprune.errors import UserError
from phaseprune.methods.method import search_options
from phaseprune.methods.objectives import check_objective
from phaseprune.methods.registry import METHODS, Method, find_method

DEFAULT_OBJECTIVE = "decision_margin"


#: Which blocks may go: all, or the Decisive ones of the model as it is at each step.
AMONG = ("all", "decisive")


@dataclass(frozen=True)
class Choice:
    """What was asked for.

    Attributes:
        method: of the registry.
        how: of a search, the options of ``method.search_options``; empty of a ranking.
        word: the option that asked for it, for messages.
    """

    method: Method
    how: dict[str, Any]
    word: str

    @property
    def ranks(self) -> bool:
        """Whether all blocks are ranked at once, before the first step."""
        return self.method.objective is None

    @property
    def options(self) -> dict[str, Any]:
        """The part of a run's options that says what chooses."""
        name = self.method.name
        return {"method": name} if self.ranks else {"objective": self.method.objective}

    def check_among(
        self, among: str, granularity: str = "block", tasks: int = 1, keep_period: bool = False
    ) -> None:
        """Refuse what does not go with a choice that each step narrows anew.

        Args:
            among: ``decisive`` for Decisive blocks only.
            granularity: see ``prune``.
            tasks: how many.
            keep_period: whether only blocks go whose removal keeps the model's pattern.

        Raises:
            UserError: an unknown word, or with ``decisive`` or ``keep_period`` a choice that is no
                exact search for whole blocks on one task.
        """
        if among not in AMONG:
            raise UserError(f"--among is {among!r} and must be one of {', '.join(AMONG)}")
        if keep_period:
            lead = "--keep-period looks before each step at which blocks may go, and"
            others = (
                (among == "decisive", "--among decisive does so otherwise; leave one of them out"),
                (tasks > 1, "a search by several tasks does not; give one task"),
            )
        elif among == "decisive":
            lead = "--among decisive looks at phases before each step, and"
            others = ((tasks > 1, "several tasks have no one transition; give one task"),)
        else:
            return
        for at_fault, what in (
            (self.ranks, f"{self.word} ranks all blocks at once; leave it out, or give --protect"),
            (self.how.get("search") == "racing", "--search racing does not; leave it out"),
            (granularity != "block", f"--granularity {granularity} does not; leave it out"),
            *others,
        ):
            if at_fault:
                raise UserError(f"{lead} {what}")

    def told(
        self,
        looked_at: str | None,
        protect: Collection[int],
        among: str = "all",
        pattern: Pattern | None = None,
    ) -> dict[str, Any]:
        """What the manifest says of it, in values and as a sentence.

        Args:
            looked_at: in words; None where the method looks at nothing but the model.
            protect: the blocks that the user protects.
            among: which of the others may go.
            pattern: that the blocks had to go on following.
        """
        method = self.method
        source = method.paper + (f", arXiv {method.arxiv}" if method.arxiv else "")
        what = f"Blocks were chosen by {method.name} ({method.title}; {source})"
        what += f" on {looked_at}." if looked_at else ", which looks at no questions."
        if among == "decisive":
            what += " Only Decisive blocks could go, by a trace of each step's model."
        if pattern is not None:
            what += (
                f" The pattern of {' and '.join(pattern.fields)} (every {pattern.period} blocks) "
                "was kept."
            )
        if protect:
            what += f" Protected: {', '.join(map(str, sorted(protect)))}."
        return {
            "method": method.name,
            "title": method.title,
            "paper": method.paper,
            "arxiv": method.arxiv,
            "looked_at": looked_at,
            "protect": sorted(protect),
            "in_words": what,
        }


def find_choice(
    method: str | None = None,
    objective: str | None = None,
    search: str = "exact",
    alpha: float | None = None,
    tolerance: float | None = None,
    dtype: str | None = None,
) -> Choice:
    """What the options of ``prune`` ask for; ``decision_margin`` if they name nothing.

    Args:
        method: a name in ``methods.METHODS``.
        objective: a name in ``objectives.SIGNS``; asks for the search by it.
        search: see ``method.search_options``.
        alpha: see there.
        tolerance: see there.
        dtype: see there.

    Raises:
        UserError: an unknown name, a method and an objective that are not the same, or options of a
            search with a method that does not search.
    """
    wanted = DEFAULT_OBJECTIVE if objective is None and method is None else objective
    if wanted is not None:
        check_objective(wanted)
    if method is None:
        found = next(each for each in METHODS.values() if each.objective == wanted)
        how = search_options(search, alpha, tolerance, dtype)
        return Choice(found, how, f"--objective {wanted}")
    found = find_method(method)
    if found.objective is not None:
        if wanted not in (None, found.objective):
            raise UserError(
                f"--method {method} chooses by {found.objective} and --objective says {wanted}; "
                "give one of them"
            )
        how = search_options(search, alpha, tolerance, dtype)
        return Choice(found, how, f"--method {method}")
    if wanted is not None:
        raise UserError(
            f"--method {method} ranks blocks by a figure of its own and --objective says {wanted}; "
            "give one of them"
        )
    if search != "exact" or (alpha, tolerance, dtype) != (None, None, None):
        searches = ", ".join(each.name for each in METHODS.values() if each.objective)
        raise UserError(
            f"--search and --race-… go with methods that search ({searches}); --method {method} "
            "ranks all blocks at once, so leave them out"
        )
    return Choice(found, {}, f"--method {method}")
