"""What a candidate is judged by: figures of the output on the calibration questions."""

from __future__ import annotations

from collections.abc import Sequence

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
    """All objectives of decisions at the output (``[Q, 1, K]``), ``[Q]`` each."""
    return {
        name: np.asarray(figure(decisions), dtype=float)[:, 0]
        for name, (figure, _) in OBJECTIVES.items()
    }


def figures(decisions: Decisions) -> dict[str, float]:
    """All objectives of decisions at the output (``[Q, 1, K]``), as means over the questions."""
    return {name: float(figure(decisions).mean()) for name, (figure, _) in OBJECTIVES.items()}


def best(name: str, values: Sequence[float]) -> int:
    """Position of the best value; a tie goes to the first, the lowest original index."""
    return int(np.argmax(SIGNS[name] * np.asarray(values)))
