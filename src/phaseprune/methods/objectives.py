"""What a candidate is judged by: figures of the output on the calibration questions."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from phaseprune.decision.decisions import Decisions
from phaseprune.errors import UserError, near_matches

#: name -> (figure of the decisions at the output, +1 where larger is better else -1)
OBJECTIVES = {
    "decision_margin": (lambda decisions: decisions.margins, 1),
    "accuracy": (lambda decisions: decisions.correct, 1),
    "loss": (lambda decisions: decisions.losses, -1),
    "debiased_margin": (lambda decisions: decisions.debiased.margins, 1),
}
#: Those of them that a part of the questions does not have: its label prior is another one.
OF_ALL = frozenset({"debiased_margin"})
#: The same of all that a candidate may be judged by: those, and the loss on plain text.
SIGNS = {name: sign for name, (_, sign) in OBJECTIVES.items()} | {"text_loss": -1}


def check_objective(name: str) -> None:
    """Refuse an unknown objective."""
    if name not in SIGNS:
        raise UserError(
            f"--objective is {name!r} and must be one of {', '.join(SIGNS)}."
            + near_matches(name, SIGNS)
        )


def by_question(decisions: Decisions) -> dict[str, np.ndarray]:
    """``[Q]`` of each objective that a part of the questions has too, at the output."""
    return {
        name: np.asarray(figure(decisions), dtype=float)[:, 0]
        for name, (figure, _) in OBJECTIVES.items()
        if name not in OF_ALL
    }


def figures(decisions: Decisions) -> dict[str, float]:
    """All objectives of decisions at the output (``[Q, 1, K]``), as means over the questions."""
    return {name: float(figure(decisions).mean()) for name, (figure, _) in OBJECTIVES.items()}


def check_letters(objective: str | None, scorings: Collection[str], search: str | None) -> None:
    """Refuse to choose by debiased figures where there are none.

    Args:
        objective: what is chosen by.
        scorings: of the tasks, ``letter`` or ``text``.
        search: ``exact`` or ``racing``; None of a ranking.

    Raises:
        UserError: texts, which have no label prior, or a race, whose parts have one each.
    """
    if objective not in OF_ALL:
        return
    if "text" in scorings:
        raise UserError(
            f"--objective={objective} takes the label prior off, and texts have none; use "
            "decision_margin, or --scoring=letter"
        )
    if search == "racing":
        raise UserError(
            f"--objective={objective} needs all calibration questions at once, and --search=racing "
            "looks at parts of them; leave it out"
        )


def best(name: str, values: Sequence[float]) -> int:
    """Position of the best value; a tie goes to the first, the lowest original index."""
    return int(np.argmax(SIGNS[name] * np.asarray(values)))
