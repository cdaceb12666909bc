"""What a command found, defined once: sentences, tables, tiles and figures.

The terminal prints a ``View``, the page renders it. A part of it, or a column of a table, may be
for one of the two alone, as a terminal has 80 columns and draws with characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.box import Box
from rich.cells import cell_len
from rich.table import Table as RichTable
from rich.text import Text

from phaseprune.report.words import DASH, PHASE_NAMES, percent, signed
from phaseprune.runs.result import draw

#: Where something is shown that is not shown in both places.
PAGE, TERMINAL = "page", "terminal"
#: Columns of characters that a terminal has at least.
WIDTH = 80
#: Kind of a cell -> how the terminal shows it; the page has a class of that name.
STYLES = {
    "": "",
    "strong": "bold",
    "silent": "blue",
    "decisive": "dark_orange3",
    "agrees": "green",
    "partly": "yellow",
    "disagrees": "red",
    "undecided": "dim",
}
# Rules under the head and between sections, nothing else.
_RULES = Box("    \n    \n ── \n    \n ── \n    \n    \n    \n")
_BAR_HALF = 5
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Cell:
    """A text in a table.

    Attributes:
        text: in the terminal, and on the page unless ``page`` says more.
        kind: one of ``STYLES``.
        page: the text of the page.
        tags: marks behind it, each a tag on the page.
    """

    text: str
    kind: str = ""
    page: str | None = None
    tags: Sequence[str] = ()

    def short(self, narrow: bool) -> Text:
        """As the terminal shows it."""
        return Text(", ".join([*([self.text] if self.text else []), *self.tags]), STYLES[self.kind])

    def long(self) -> tuple[str, str]:
        """As the page shows it: the text, and what stands small behind it."""
        return self.text if self.page is None else self.page, ""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: ``86 [82, 89]`` in the terminal, more digits on the page.

    Attributes:
        value: the number, or None where there is none.
        ci: its bounds; None, or bounds that are None, where there is no interval.
        digits: behind the point, in the terminal; the page has one at least.
        write: makes a text of a number and digits; a share becomes per cent.
        mark: stands behind it.
        kind: as of ``Cell``.
    """

    value: float | None
    ci: Sequence[float | None] | None = None
    digits: int = 0
    write: Callable[[float | None, int], str] = percent
    mark: str = ""
    kind: str = ""

    def short(self, narrow: bool) -> Text:
        """As the terminal shows it; in a narrow column without the interval."""
        text, bounds = self._written(self.digits)
        interval = f" [{', '.join(bounds)}]" if bounds and not narrow else ""
        return Text(f"{text}{interval}{self.mark}", STYLES[self.kind])

    def long(self) -> tuple[str, str]:
        """As the page shows it: the number, and its interval."""
        text, bounds = self._written(max(self.digits, 1))
        return text + self.mark.strip(), " to ".join(bounds)

    def _written(self, digits: int) -> tuple[str, list[str]]:
        text = self.write(self.value, digits)
        known = self.value is not None and self.ci and None not in self.ci
        return text, [self.write(bound, digits) for bound in self.ci] if known else []


def estimates(
    series: Mapping[str, Sequence[float | None]],
    digits: int = 2,
    write: Callable[[float | None, int], str] = signed,
) -> list[Estimate]:
    """The numbers and intervals of a series: its ``mean``, ``ci_low`` and ``ci_high``."""
    bounds = zip(series["ci_low"], series["ci_high"], strict=True)
    return [
        Estimate(value, ci, digits, write) for value, ci in zip(series["mean"], bounds, strict=True)
    ]


def phase_cell(phase: str | None, mark: str = "", none: str = DASH) -> Cell:
    """The name of a phase, in its colour; ``none`` where it is of no phase."""
    return Cell(PHASE_NAMES.get(phase, none) + mark, phase or "")


@dataclass(frozen=True)
class Column:
    """A column of a table with its cells; plain strings are cells too.

    Attributes:
        head: over it, in the terminal on one line or two.
        cells: one a row.
        page: the head on the page; None is ``head`` without ``[CI]``.
        left: whether it is aligned to the left; all others are to the right.
        only: ``PAGE`` or ``TERMINAL``, where the other has no room or no use for it.
        narrow: whether the terminal shows numbers without their intervals.
        part: whether it may go to a further table in a terminal that is too narrow for all.
        wrap: whether it may become narrower, and its texts wrap.
        fill: whether it is as wide as the terminal has room left, and wraps.
        least, most: its width in the terminal.
    """

    head: str
    cells: Sequence[str | Cell | Estimate]
    page: str | None = None
    left: bool = False
    only: str | None = None
    narrow: bool = False
    part: bool = False
    wrap: bool = False
    fill: bool = False
    least: int | None = None
    most: int | None = None

    @property
    def page_head(self) -> str:
        """What stands over it on the page."""
        if self.page is not None:
            return self.page
        return re.sub(r"\s*\[[^]]*CI]", "", " ".join(self.head.split()))

    def shown(self) -> list[Text]:
        """Its cells as the terminal shows them."""
        return [cell.short(self.narrow) for cell in map(_cell, self.cells)]


@dataclass(frozen=True)
class Table:
    """A table, column by column; printed to a rich console it shows itself.

    Attributes:
        title: over it; the terminal cuts a long one.
        columns: with their cells.
        caption: what its figures are.
        short: what the terminal says further, of what it leaves out.
        notes: what the page says further.
        name: the anchor on the page.
        page_title: the title on the page, where it is another one.
        rules: rows that a rule follows.
        marked: rows that stand out on the page.
        only: as of ``Column``.
    """

    title: str
    columns: Sequence[Column]
    caption: str = ""
    short: str = ""
    notes: Sequence[str] = ()
    name: str = ""
    page_title: str = ""
    rules: Sequence[int] = ()
    marked: Sequence[int] = ()
    only: str | None = None

    def __rich_console__(self, console: Any, options: Any) -> Iterator[RichTable]:
        yield from to_rich(self)

    @property
    def heads(self) -> list[Column]:
        """The columns of the page."""
        return [column for column in self.columns if column.only != TERMINAL]

    @property
    def rows(self) -> list[tuple[bool, list[tuple[str, Cell | Estimate]]]]:
        """The rows of the page: whether a row is marked, and its cells with their classes."""
        columns = [
            [
                (" ".join(name for name in ("words" * one.left, cell.kind) if name), cell)
                for cell in map(_cell, one.cells)
            ]
            for one in self.heads
        ]
        rows = zip(*columns, strict=True)
        return [(number in self.marked, list(row)) for number, row in enumerate(rows)]


@dataclass(frozen=True)
class Line:
    """A sentence that is not simply one for both places.

    Attributes:
        text: the sentence.
        only: as of ``Column``.
        dim: whether it is a remark on what stands above it.
    """

    text: str
    only: str | None = None
    dim: bool = False


@dataclass(frozen=True)
class Tile:
    """A main figure: its name, the number, and what stands below it."""

    name: str
    number: str
    below: str


@dataclass(frozen=True)
class Figure:
    """A figure of the page, drawn when it is needed: to draw takes matplotlib.

    Attributes:
        name: the anchor on the page.
        drawing: its function in ``report.figures``.
        given: what that takes.
        caption: what it shows and what to look for.
    """

    name: str
    drawing: str
    given: tuple[Any, ...]
    caption: str

    def draw(self) -> Any:
        """The matplotlib figure."""
        return draw(self.drawing, *self.given)


Item = str | Line | Table | None


@dataclass(frozen=True)
class View:
    """What a command found.

    Attributes:
        body: sentences and tables in the order in which they are read; None is nothing.
        tiles: the main figures.
        figures: of the page.
    """

    body: Sequence[Item]
    tiles: Sequence[Tile] = ()
    figures: Sequence[Figure] = ()

    def terminal(self) -> Iterator[Text | Table]:
        """What a rich console prints; no text is read as markup."""
        for item in self._for(TERMINAL):
            if isinstance(item, Line):
                yield Text(item.text, "dim" if item.dim else "")
            else:
                yield item

    @property
    def sentences(self) -> list[str]:
        """Those of the page."""
        return [item.text for item in self._for(PAGE) if isinstance(item, Line)]

    @property
    def tables(self) -> list[Table]:
        """Those of the page."""
        return [item for item in self._for(PAGE) if isinstance(item, Table)]

    def _for(self, place: str) -> Iterator[Line | Table]:
        for item in self.body:
            item = Line(item) if isinstance(item, str) else item
            if item is not None and item.only in (None, place):
                yield item


def only(place: str, items: Iterable[Item]) -> list[Line | Table]:
    """Sentences and tables for the page, or for the terminal, alone."""
    return [
        Line(item, place) if isinstance(item, str) else replace(item, only=place)
        for item in items
        if item is not None
    ]


def share_tile(name: str, value: float | None, ci: Sequence[float] | None) -> Tile:
    """A share in per cent with its interval below."""
    if value is None:
        return Tile(name, DASH, "not defined")
    below = f"95 % CI {percent(ci[0])} to {percent(ci[1])}" if ci else "no interval"
    return Tile(name, f"{percent(value)} %", below)


def to_rich(table: Table) -> list[RichTable]:
    """A table as a terminal shows it: at most 80 columns of characters.

    Args:
        table: The table.

    Returns:
        Tables of rich; several where columns that are parts do not fit beside each other. The
        caption stands under the last one.
    """
    columns = [column for column in table.columns if column.only != PAGE]
    parts = _parts(columns)
    return [_rich(table, part, last=part is parts[-1]) for part in parts]


def _parts(columns: Sequence[Column]) -> list[list[Column]]:
    """The columns of each table, those that are parts shared out evenly."""
    places = [place for place, column in enumerate(columns) if column.part]
    if not places:
        return [list(columns)]
    widths = [_width(column) + 1 for column in columns]
    room = WIDTH + 1 - sum(widths) + sum(widths[place] for place in places)
    chunks = [places]
    for number in range(1, len(places) + 1):
        share = -(-len(places) // number)
        chunks = [places[at : at + share] for at in range(0, len(places), share)]
        if all(sum(widths[place] for place in of) <= room for of in chunks):
            break
    return [
        [one for place, one in enumerate(columns) if not one.part or place in of] for of in chunks
    ]


def _width(column: Column) -> int:
    lines = [column.head, *(cell.plain for cell in column.shown())]
    width = max(cell_len(part) for line in lines for part in line.split("\n"))
    return min(max(width, column.least or 0), column.most or WIDTH)


def _rich(table: Table, columns: Sequence[Column], last: bool) -> RichTable:
    caption = "\n".join(text for text in (table.caption, table.short) if text) if last else ""
    made = RichTable(
        title=Text(_shortened(table.title), style="bold"),
        caption=Text(caption, style="dim") if caption else None,
        box=_RULES,
        padding=0,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
        show_edge=False,
    )
    taken = sum(_width(column) + 1 for column in columns if not column.fill)
    for column in columns:
        wraps = column.wrap or column.fill or column.most is not None
        made.add_column(
            Text(column.head),
            justify="left" if column.left else "right",
            no_wrap=not wraps,
            min_width=column.least,
            max_width=WIDTH - taken if column.fill else column.most,
            overflow="fold",
        )
    for number, row in enumerate(zip(*(column.shown() for column in columns), strict=True)):
        made.add_row(*row, end_section=number in table.rules)
    return made


def _cell(cell: str | Cell | Estimate) -> Cell | Estimate:
    return Cell(cell) if isinstance(cell, str) else cell


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def margin_bar(value: float) -> str:
    """Draw a Decision Margin from -1 to 1 as a bar to the left or to the right of a zero mark.

    Args:
        value: The margin.

    Returns:
        Eleven characters with the zero mark in the middle.
    """
    if value < 0:
        # Blocks that fill from the right come in halves only, those from the left in eighths.
        whole, half = divmod(min(round(-value * 2 * _BAR_HALF), 2 * _BAR_HALF), 2)
        return ("▐" * half + "█" * whole).rjust(_BAR_HALF) + "│" + " " * _BAR_HALF
    whole, rest = divmod(min(round(value * 8 * _BAR_HALF), 8 * _BAR_HALF), 8)
    bar = "█" * whole + (_EIGHTHS[rest] if rest else "")
    return " " * _BAR_HALF + "│" + bar.ljust(_BAR_HALF)


def bar_column(margins: Sequence[float | None]) -> Column:
    """Decision Margins as bars of characters; None is an empty cell."""
    bars = ["" if one is None else margin_bar(one) for one in margins]
    return Column("-1   0   +1", bars, left=True, only=TERMINAL)
