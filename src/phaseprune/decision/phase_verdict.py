"""Phase or depth: whether Silent blocks are dearer where depth is controlled too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from phaseprune.decision.curve import SIGNIFICANCE
from phaseprune.decision.phase_jump import Jump
from phaseprune.decision.phases import Comparison, Difference

#: The controls that a verdict needs: without the model's first blocks, among blocks equally near to
#: the transition, and beyond the trend of depth.
CONTROLS = ("without_first", "near", "jump")
#: A controlled difference below this share of the plain one is small: most of that is depth.
SMALL = 0.5


@dataclass(frozen=True)
class Control:
    """A difference Decisive - Silent in which depth is controlled.

    Attributes:
        value: of the difference, in units of retained; above 0, Silent blocks are dearer.
        ci: its 95 % interval.
        p_value: of "no difference", two-sided.
        questions_ci: the interval over questions alone, where blocks are a source of chance too,
        p_questions: and its p-value: what more questions can decide.
        numbers: of removed blocks that it is over.
        plain: the plain difference at the same numbers.
    """

    value: float
    ci: tuple[float, float]
    p_value: float
    questions_ci: tuple[float, float]
    p_questions: float
    numbers: tuple[int, ...]
    plain: float

    @property
    def significant(self) -> bool:
        """Whether p is below 0.01."""
        return self.p_value < SIGNIFICANCE

    @property
    def limited_by(self) -> str | None:
        """What keeps it from being significant: too few ``questions``, or ``blocks``; or None."""
        if self.significant:
            return None
        return "questions" if self.p_questions >= SIGNIFICANCE else "blocks"

    @property
    def share(self) -> float | None:
        """How much of the plain difference it is; None where that is not above 0."""
        return self.value / self.plain if self.plain > 0 else None

    @property
    def holds(self) -> bool:
        """Whether it is significant, above 0, and not small beside the plain difference."""
        return self.significant and self.value > 0 and self.value >= SMALL * self.plain


def controls_of(compared: Comparison, jump: Jump | None) -> dict[str, Control]:
    """The controls of ``CONTROLS`` that there are blocks for."""
    found = {}
    for name in CONTROLS[:2]:
        contrast = compared.contrasts.get(name)
        if contrast is not None:
            of, p_value = contrast.pooled.estimate, contrast.pooled.p_value
            numbers = tuple(contrast.differences)
            found[name] = Control(
                of.value, of.ci, p_value, of.ci, p_value, numbers, _plain(compared, numbers)
            )
    if jump is not None:
        of = jump.jump
        found["jump"] = Control(
            of.value, of.widest_ci, of.p_value, of.ci, of.p_questions, (1,), _plain(compared, (1,))
        )
    return found


def _plain(compared: Comparison, numbers: tuple[int, ...]) -> float:
    values = [compared.differences[number].estimate.value for number in numbers]
    return sum(values) / len(values)


def phase_verdict(plain: Difference, controls: Mapping[str, Control]) -> str:
    """What the plain and the controlled differences say of "Silent blocks matter, not Decisive".

    Args:
        plain: over all numbers of removed blocks.
        controls: those that there are.

    Returns:
        ``agrees``: Silent blocks are dearer, and every control holds; ``partly``: they are dearer,
        but it may be for their depth; ``disagrees``: Decisive blocks are significantly dearer, in
        the plain comparison or among blocks that are near or later; ``undecided``: else. The jump
        alone makes no ``disagrees``: a bend in the cost makes it negative too.
    """
    compared = [controls[name] for name in CONTROLS[:2] if name in controls]
    reversed_ = any(one.significant and one.value < 0 for one in compared)
    if reversed_ or (plain.significant and plain.estimate.value < 0):
        return "disagrees"
    if not plain.significant:
        return "undecided"
    held = all(name in controls and controls[name].holds for name in CONTROLS)
    return "agrees" if held else "partly"
