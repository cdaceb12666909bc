"""What every result offers at a prompt and in a notebook: a few lines, a table, a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from phaseprune.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

#: Columns and rows that a notebook is shown; ``to_frame`` has all of them.
_COLUMNS, _ROWS = 8, 24


class Result:
    """A result in a few lines (``repr``), as HTML in a notebook, and as a table (``to_frame``).

    A class of results says its lines and its rows; it is a dataclass with ``repr=False``.
    """

    def _lines(self) -> list[str]:
        """What it is of (model, task), and the finding, in a few lines without markup."""
        raise NotImplementedError

    def _rows(self) -> list[dict[str, Any]]:
        """Rows of plain values, all with the same names, the most telling ones first."""
        raise NotImplementedError

    def __repr__(self) -> str:
        first, *rest = self._lines()
        return "\n".join([f"{type(self).__name__}: {first}", *(f"  {line}" for line in rest)])

    def _repr_html_(self) -> str:
        first, *rest = map(escape, self._lines())
        lines = "".join(f"<br>{line}" for line in rest)
        return (
            f"<div><p><b>{escape(type(self).__name__)}</b>: {first}{lines}</p>"
            f"{_table(self._rows())}</div>"
        )

    def to_frame(self) -> DataFrame:
        """Its table as a pandas DataFrame.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError(
                "to_frame needs the package pandas (pip install pandas); to_dict() has the same "
                "figures without it"
            ) from None
        return pandas.DataFrame(self._rows())


def draw(figure: str, *given: Any):
    """A figure of the package ``report``, which stands above all results, so by its name."""
    return getattr(import_module("phaseprune.report.figures"), figure)(*given)


def of_interval(name: str, interval: Any, place: Any) -> dict[str, float]:
    """Three columns of a row: the figure and its bounds."""
    return {
        name: float(interval.mean[place]),
        f"{name}_low": float(interval.ci_low[place]),
        f"{name}_high": float(interval.ci_high[place]),
    }


def bounds(name: str, ci: Sequence[float] | None) -> dict[str, float | None]:
    """Two columns of a row: bounds that may be missing."""
    low, high = ci or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def named(values: Sequence[Any], most: int = 12) -> str:
    """Values in a line, the first of many."""
    shown = ", ".join(map(str, values[:most]))
    return (shown or "none") + (f", … ({len(values)})" if len(values) > most else "")


def number(value: float | None, sign: str = "") -> str:
    """A figure of two digits behind the point; a dash for none."""
    return "–" if value is None or value != value else f"{value:{sign}.2f}"


def with_bounds(value: float | None, ci: Sequence[float] | None) -> str:
    """A figure and its interval."""
    return number(value) + (f" ({number(ci[0])} to {number(ci[1])})" if ci else "")


def transition_line(transition: Mapping[str, Any], blocks: int) -> str:
    """Where a model decides, or that nothing says so, from a transition's plain values."""
    if not transition["found"]:
        return f"no transition: {transition['reason']}"
    shape = transition.get("shape") or "step"
    at, (low, high) = transition["readout"], transition["ci"]
    if shape == "step":
        return f"decides at readout {at} of {blocks} (95 %: {low} to {high})"
    rise = " to ".join(map(str, transition["rise"]))
    words = {
        "gradual": "rises gradually, over readouts",
        "several": "rises in several steps, at",
        "unclear": "rises, unclear in what shape, over readouts",
    }
    return f"{words[shape]} {rise} of {blocks}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A small table, its first columns and rows."""
    if not rows:
        return ""
    names = list(rows[0])[:_COLUMNS]
    head = "".join(f"<th>{escape(str(name))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(row[name]))}</td>" for name in names) + "</tr>"
        for row in rows[:_ROWS]
    )
    more = f"<p>… {len(rows)} rows; to_frame() has them all</p>" if len(rows) > _ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
