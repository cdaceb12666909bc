"""What a pruning run chooses blocks by: a search by an objective, or the order of a ranking."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from phaseprune.errors import UserError, near_matches
from phaseprune.methods.objectives import check_objective
from phaseprune.methods.registry import METHODS, Method, find_method

DEFAULT_OBJECTIVE = "decision_margin"
SEARCHES = ("exact", "racing")
DEFAULT_ALPHA = 0.05
DEFAULT_TOLERANCE = 0.02
#: Of matrix products while candidates race: ``auto`` is bfloat16 where that is measured faster.
RACE_DTYPES = ("auto", "own", "bfloat16")


@dataclass(frozen=True)
class Choice:
    """What was asked for.

    Attributes:
        method: of the registry.
        how: of a search, the options of ``search_options``; empty of a ranking.
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
        search: see ``search_options``.
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
        return Choice(found, how, f"--objective={wanted}")
    found = find_method(method)
    if found.objective is not None:
        if wanted not in (None, found.objective):
            raise UserError(
                f"--method={method} chooses by {found.objective} and --objective says {wanted}; "
                "give one of them"
            )
        how = search_options(search, alpha, tolerance, dtype)
        return Choice(found, how, f"--method={method}")
    if wanted is not None:
        raise UserError(
            f"--method={method} ranks blocks by a figure of its own and --objective says {wanted}; "
            "give one of them"
        )
    if search != "exact" or (alpha, tolerance, dtype) != (None, None, None):
        searches = ", ".join(each.name for each in METHODS.values() if each.objective)
        raise UserError(
            f"--search and the options of racing go with methods that search ({searches}); "
            f"--method={method} ranks all blocks at once, so leave them out"
        )
    return Choice(found, {}, f"--method={method}")


def search_options(
    search: str,
    alpha: float | None = None,
    tolerance: float | None = None,
    dtype: str | None = None,
) -> dict[str, Any]:
    """The options that say how candidates are searched, as a run's manifest has them.

    Args:
        search: ``exact`` or ``racing``.
        alpha: of racing, the probability with which a step may choose a block that is worse than
            the best one by more than the tolerance.
        tolerance: of racing, in units of the objective.
        dtype: of racing, one of ``RACE_DTYPES``; ``auto`` by default.

    Raises:
        UserError: an unknown search, a value out of its range, or one that ``exact`` has not.
    """
    if search not in SEARCHES:
        raise UserError(
            f"--search is {search!r} and must be one of {', '.join(SEARCHES)}."
            + near_matches(search, SEARCHES)
        )
    if search == "exact":
        for name, value in (("alpha", alpha), ("tolerance", tolerance)):
            if value is not None:
                raise UserError(
                    f"--race-{name}={value:g} goes with --search=racing only; add that or leave "
                    "it out"
                )
        if dtype is not None:
            raise UserError(
                f"--race-dtype={dtype} goes with --search=racing only; add that or leave it out"
            )
        return {"search": search}
    alpha = DEFAULT_ALPHA if alpha is None else alpha
    tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
    if not 0 < alpha < 1:
        raise UserError(f"--race-alpha must lie between 0 and 1 and is {alpha:g}")
    if not 0 <= tolerance < math.inf:
        raise UserError(f"--race-tolerance must be 0 or more and is {tolerance:g}")
    dtype = "auto" if dtype is None else dtype
    if dtype not in RACE_DTYPES:
        raise UserError(
            f"--race-dtype is {dtype!r} and must be one of {', '.join(RACE_DTYPES)}."
            + near_matches(dtype, RACE_DTYPES)
        )
    if dtype == "bfloat16" and tolerance == 0:
        raise UserError(
            "--race-dtype=bfloat16 changes figures a little, and --race-tolerance=0 allows no "
            "change; give a tolerance or leave the dtype out"
        )
    return {"search": search, "alpha": alpha, "tolerance": tolerance, "race_dtype": dtype}
