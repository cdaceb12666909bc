"""When a pruning run ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from phaseprune.decision.rankings import check_number
from phaseprune.errors import UserError

#: Without any rule given: keep this share of the full model's accuracy above chance.
DEFAULT_KEEP = 0.9


@dataclass(frozen=True)
class Stop:
    """Remove at most ``most`` blocks, and end when one of the other two rules is broken.

    They are broken when retained falls below ``keep_accuracy``, and when the rise of the text loss,
    as a share of the full model's loss, is more than ``keep_text_loss``. ``nouns`` says what is
    removed, where that is not blocks.
    """

    most: int
    keep_accuracy: float | None
    keep_text_loss: float | None = None
    nouns: str = "blocks"

    def broken_by(self, retained: float | None, text_loss_rise: float | None = None) -> str | None:
        """Which rule is broken by so much retained accuracy or so much more loss, in words."""
        kept, rise = self.keep_accuracy, self.keep_text_loss
        if kept is not None and retained is not None and retained < kept:
            return f"less than {kept:g} of the accuracy above chance is left"
        if rise is not None and text_loss_rise is not None and text_loss_rise > rise:
            return f"the text loss is more than {1 + rise:g} times the full model's"
        return None

    def reason(
        self, removed: int, retained: float | None, text_loss_rise: float | None = None
    ) -> str | None:
        """Why a run with so many blocks removed ends; None to go on."""
        broken = self.broken_by(retained, text_loss_rise)
        if broken:
            return broken
        return f"{removed} {self.nouns} removed" if removed >= self.most else None


def check_rules(
    remove: int | None,
    ratio: float | None,
    keep_accuracy: float | None,
    keep_text_loss: float | None,
) -> None:
    """Refuse rules that hold for no model; see ``stop_rule``.

    Raises:
        UserError: a value out of its range, or both ``remove`` and ``ratio``.
    """
    if remove is not None and ratio is not None:
        raise UserError("--remove and --ratio both say how many blocks to remove; give one of them")
    if ratio is not None and not 0 < ratio < 1:
        raise UserError(f"--ratio must lie between 0 and 1 and is {ratio:g}")
    if keep_accuracy is not None and not 0 <= keep_accuracy <= 1:
        raise UserError(f"--keep-accuracy must lie between 0 and 1 and is {keep_accuracy:g}")
    if keep_text_loss is not None and not 0 <= keep_text_loss < math.inf:
        raise UserError(
            f"--keep-text-loss must be 0 or more and is {keep_text_loss:g}; 0.2 allows the loss to "
            "rise by a fifth"
        )


def stop_rule(
    blocks: int,
    remove: int | None = None,
    ratio: float | None = None,
    keep_accuracy: float | None = None,
    keep_text_loss: float | None = None,
    free: Sequence[int] | None = None,
    nouns: str = "blocks",
) -> Stop:
    """The rule that the given options mean for a model of that many blocks.

    Args:
        blocks: L.
        remove: number of blocks to remove, 1 to L-1.
        ratio: or the share of blocks to remove, rounded to the nearest number of blocks.
        keep_accuracy: end when less than this share of the full model's accuracy above chance is
            left on the evaluation questions; goes together with a number or ratio (whichever comes
            first).
        keep_text_loss: end when the mean loss a token on the guards' text is more than
            (1 + this) times the full model's, so 0.2 allows a rise by a fifth; goes together with
            the others likewise.
        free: the blocks that may be removed; by default all.
        nouns: what is removed in place of blocks.

    Raises:
        UserError: a value out of its range, more than may be removed, or both ``remove`` and
            ``ratio``.
    """
    check_rules(remove, ratio, keep_accuracy, keep_text_loss)
    free = range(blocks) if free is None else free
    if ratio is not None:
        remove = round(ratio * blocks)
        if not 1 <= remove < blocks:
            raise UserError(
                f"--ratio={ratio:g} of {blocks} {nouns} is {remove} {nouns}; it must leave at "
                "least one and remove at least one"
            )
        if remove > len(free):
            raise UserError(
                f"--ratio={ratio:g} of {blocks} {nouns} is {remove} {nouns} and only {len(free)} "
                "are free to go; give less or protect fewer"
            )
    most = check_number(blocks, free, remove, nouns)
    if remove is None and keep_accuracy is None and keep_text_loss is None:
        keep_accuracy = DEFAULT_KEEP
    return Stop(most, keep_accuracy, keep_text_loss, nouns)
