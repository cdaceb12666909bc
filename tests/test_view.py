"""Views: what is defined once is shown in the terminal and on the page."""

import json
import subprocess
import sys

import pytest
from rich.console import Console

from phaseprune.report.page import render
from phaseprune.report.view import (
    PAGE,
    TERMINAL,
    Cell,
    Column,
    Estimate,
    Line,
    Table,
    Tile,
    View,
    bar_column,
    only,
    phase_cell,
    share_tile,
)
from phaseprune.report.words import decimal, signed
from test_report import make_trace

HOSTILE = "[b]<script>alert(1)</script>[/] :smile: {{7*7}}"


def printed(view, width=80):
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        for item in view.terminal():
            console.print(item)
    return [line.rstrip() for line in capture.get().splitlines()]


def page_of(view):
    return render(
        "report/template.html.j2",
        title="a title",
        status=None,
        view=view,
        figures=[],
        provenance=[],
        command=None,
        options=[],
    )


def small(**more):
    return Table(
        "A title",
        [
            Column("Step", ["1", "2"]),
            Column("Retained % [CI]", [Estimate(0.8612, (0.82, 0.892)), Estimate(None)]),
            Column(
                "DM",
                [Estimate(0.5, (0.4, 0.61), 2, signed), Estimate(-0.25, None, 2, signed)],
                narrow=True,
            ),
            Column("Seconds", ["1.0", "2.0"], only=PAGE),
            bar_column([1.0, None]),
            Column("", [phase_cell("silent"), Cell("", tags=("chosen", "cliff"))], left=True),
        ],
        **more,
    )


def test_a_table_is_shown_in_both_places():
    table = small(caption="what it is", short="less", notes=["more"], marked=[1], name="here")
    rows = printed(View([table]))
    assert rows[1].split() == ["Step", "Retained", "%", "[CI]", "DM", "-1", "0", "+1"]
    assert rows[3] == "   1     86 [82, 89] +0.50      │█████ Silent"
    assert rows[4] == "   2               – -0.25             chosen, cliff"
    assert rows[5:] == ["what it is", "less"]
    page = page_of(View([table]))
    for part in (
        "<td>86.1 <small>82.0 to 89.2</small></td>",
        '<th scope="col">Retained %</th>',
        "<td>+0.50 <small>+0.40 to +0.61</small></td>",
        "<td>-0.25</td>",
        "Seconds",
        '<td class="words silent">Silent</td>',
        '<span class="tag">cliff</span>',
        '<tr class="marked">',
        '<table id="here">',
        "<p>more</p>",
    ):
        assert part in page
    assert "█" not in page and "<p>less" not in page


def test_parts_of_a_view_can_be_for_one_place():
    view = View(
        [
            "both",
            None,
            Line("remark", TERMINAL, dim=True),
            *only(PAGE, ["longer", small(), None]),
        ]
    )
    assert printed(view) == ["both", "remark"]
    assert view.sentences == ["both", "longer"] and len(view.tables) == 1


def test_no_text_is_markup():
    table = Table(
        HOSTILE,
        [Column(HOSTILE, [HOSTILE, Cell(HOSTILE, tags=[HOSTILE])], left=True)],
        HOSTILE,
        notes=[HOSTILE],
        name=HOSTILE,
    )
    view = View([HOSTILE, table], [Tile(HOSTILE, HOSTILE, HOSTILE)])
    assert sum(row.count(HOSTILE) for row in printed(view, 200)) == 7
    assert "<script" not in page_of(view) and "{{7*7}}" in page_of(view)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 40])
def test_columns_that_do_not_fit_go_into_further_tables(count):
    heads = [f"number{at:02}" for at in range(count)]
    view = View(
        [
            Table(
                "Many",
                [
                    Column("Step", ["1"]),
                    *(Column(head, ["x"], part=True) for head in heads),
                    Column("", ["a mark"], left=True, fill=True),
                ],
                "caption",
            )
        ]
    )
    rows = printed(view, 300)
    assert max(map(len, rows)) <= 80 and rows.count("caption") == 1 and rows[-1] == "caption"
    shown = [row.split() for row in rows if row.startswith("Step")]
    assert [head for row in shown for head in row[1:]] == heads
    assert max(len(row) for row in shown) - min(len(row) for row in shown) <= len(shown) - 1
    assert sum("a mark" in row for row in rows) == len(shown) == -(-count // 7)
    assert page_of(view).count("<table") == 1


def test_estimates():
    assert Estimate(0.5, (None, None)).short(False).plain == "50"
    assert Estimate(0.5, (0.4, 0.6), mark="*").short(False).plain == "50 [40, 60]*"
    assert Estimate(0.5, (0.4, 0.6), mark="*").long() == ("50.0*", "40.0 to 60.0")
    assert Estimate(-0.001, None, 2, decimal).long() == ("0.00", "")
    assert share_tile("x", None, None).below == "not defined"
    assert share_tile("x", 0.5, None) == Tile("x", "50.0 %", "no interval")


@pytest.mark.slow
def test_a_terminal_needs_no_matplotlib():
    code = (
        "import json, sys\n"
        "from phaseprune.report.trace import trace_view\n"
        "view = trace_view(json.load(sys.stdin))\n"
        "assert list(view.terminal()) and view.figures\n"
        "assert 'matplotlib' not in sys.modules\n"
    )

    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        text=True,
        input=json.dumps(make_trace()),
        env={"PYTHONPATH": ":".join(sys.path)},
    )
