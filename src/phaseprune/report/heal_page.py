"""What the report of healed models shows in place of a trace and pruning steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from phaseprune.report import words
from phaseprune.report.heal import healing_lines, ladder_lines
from phaseprune.report.heal_figures import loss_figure, margin_change_figure, recovery_figure
from phaseprune.report.run_files import read_json
from phaseprune.report.svg import inline_svg


def healing_page(directory: Path) -> dict[str, Any] | None:
    """The page of one healed model.

    Args:
        directory: RUN/heal/NAME.

    Returns:
        Sentences, tiles and figures; None where it is not finished.
    """
    healing = read_json(directory / "heal.json", ("before", "after", "change"))
    if healing is None:
        return None
    change = healing["change"]
    return {
        "sentences": healing_lines(healing),
        "tiles": [
            ("Before", *_tile(healing["before"]["accuracy"], healing["before"]["ci"])),
            ("After", *_tile(healing["after"]["accuracy"], healing["after"]["ci"])),
            ("Retained after", *_tile(*healing["after"]["retained"].values())),
            ("Gained, lost", f"{change['gained']}, {change['lost']}", "questions"),
        ],
        "figures": [
            _figure("margin", margin_change_figure(healing),
                    "How sure the pruned model is of the right option after each of its blocks, "
                    "before and after healing. Look for the readouts at which the bands part."),
            _figure("loss", loss_figure(healing),
                    "The loss on training batches and on the held-out part; the dashed line is "
                    "the step whose weights were kept."),
        ],
    }  # fmt: skip


def ladder_page(directory: Path) -> dict[str, Any] | None:
    """The page of a ladder; arguments and result as of ``healing_page``."""
    ladder = read_json(directory / "ladder.json", ("depths", "levelling"))
    if ladder is None:
        return None
    levelling = ladder["levelling"]
    shown = f"{levelling['depth']:.1f} blocks" if levelling["found"] else "none"
    below = (
        f"95 % CI {levelling['ci'][0]:.1f} to {levelling['ci'][1]:.1f}"
        if levelling["found"]
        else "not claimed"
    )
    rows = ladder["depths"]
    return {
        "sentences": ladder_lines(ladder),
        "tiles": [
            ("Depths healed", str(len(rows)), f"{len(ladder['seeds'])} a depth"),
            ("Full model", f"{words.percent(ladder['full_accuracy'])} %", "accuracy"),
            ("Levels off at", shown, below),
        ],
        "figures": [
            _figure("recovery", recovery_figure(ladder),
                    "What is retained of the full model's accuracy above chance, before and after "
                    "healing, by the number of blocks that remain; bars are 95 % intervals.")
        ],
    }  # fmt: skip


def _figure(name: str, figure: Figure, caption: str) -> dict[str, Any]:
    return {"name": name, "svg": inline_svg(figure, name, caption), "caption": caption}


def _tile(value: float | None, interval: Sequence[float] | None) -> tuple[str, str]:
    if value is None:
        return words.DASH, "not defined"
    if not interval:
        return f"{words.percent(value)} %", "no interval"
    low, high = (words.percent(bound) for bound in interval)
    return f"{words.percent(value)} %", f"95 % CI {low} to {high}"
