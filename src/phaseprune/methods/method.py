"""How candidates are searched: the options and what may be said of them."""

from __future__ import annotations

import math
from typing import Any

from phaseprune.errors import UserError, near_matches

SEARCHES = ("exact", "racing")
DEFAULT_ALPHA = 0.05
DEFAULT_TOLERANCE = 0.02
#: Of matrix products while candidates race: ``auto`` is bfloat16 where that is measured faster.
RACE_DTYPES = ("auto", "own", "bfloat16")


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
                    f"--race-{name} {value:g} goes with --search racing only; add that or leave "
                    "it out"
                )
        if dtype is not None:
            raise UserError(
                f"--race-dtype {dtype} goes with --search racing only; add that or leave it out"
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
            "--race-dtype bfloat16 changes figures a little, and --race-tolerance 0 allows no "
            "change; give a tolerance or leave the dtype out"
        )
    return {"search": search, "alpha": alpha, "tolerance": tolerance, "race_dtype": dtype}
