"""When a pruning run ends."""

from __future__ import annotations

from dataclasses import dataclass

from phaseprune.errors import UserError

#: Without any rule given: keep this share of the full model's accuracy above chance.
DEFAULT_KEEP = 0.9


@dataclass(frozen=True)
class Stop:
    """Remove at most ``most`` blocks, and end when retained falls below ``keep_accuracy``."""

    most: int
    keep_accuracy: float | None

    def broken_by(self, retained: float | None) -> bool:
        """Whether so much retained accuracy is less than what must be kept."""
        kept = self.keep_accuracy
        return kept is not None and retained is not None and retained < kept

    def reason(self, removed: int, retained: float | None) -> str | None:
        """Why a run with so many blocks removed ends; None to go on."""
        if self.broken_by(retained):
            return f"less than {self.keep_accuracy:g} of the accuracy above chance is left"
        return f"{removed} blocks removed" if removed >= self.most else None


def stop_rule(
    blocks: int,
    remove: int | None = None,
    ratio: float | None = None,
    keep_accuracy: float | None = None,
) -> Stop:
    """The rule that the given options mean for a model of that many blocks.

    Args:
        blocks: L.
        remove: number of blocks to remove, 1 to L-1.
        ratio: or the share of blocks to remove, rounded to the nearest number of blocks.
        keep_accuracy: end when less than this share of the full model's accuracy above chance is
            left on the evaluation questions; goes together with a number or ratio (whichever comes
            first).

    Raises:
        UserError: a value out of its range, or both ``remove`` and ``ratio``.
    """
    if remove is not None and ratio is not None:
        raise UserError("--remove and --ratio both say how many blocks to remove; give one of them")
    if ratio is not None:
        if not 0 < ratio < 1:
            raise UserError(f"--ratio must lie between 0 and 1 and is {ratio:g}")
        remove = round(ratio * blocks)
        if not 1 <= remove < blocks:
            raise UserError(
                f"--ratio {ratio:g} of {blocks} blocks is {remove} blocks; it must leave at least "
                "one block and remove at least one"
            )
    if remove is not None and not 1 <= remove < blocks:
        raise UserError(
            f"--remove {remove}: the model has {blocks} blocks and at least one must stay, so give "
            f"1 to {blocks - 1}"
        )
    if keep_accuracy is not None and not 0 <= keep_accuracy <= 1:
        raise UserError(f"--keep-accuracy must lie between 0 and 1 and is {keep_accuracy:g}")
    if remove is None and keep_accuracy is None:
        keep_accuracy = DEFAULT_KEEP
    return Stop(blocks - 1 if remove is None else remove, keep_accuracy)
