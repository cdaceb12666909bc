"""A matplotlib figure as an SVG element that can stand inside an HTML page."""

from __future__ import annotations

import html
import io
import re
import warnings

from matplotlib import rc_context
from matplotlib.figure import Figure

_IDS = re.compile(r'(\bid="|\bhref="#|url\(#)')


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Write a figure as an `<svg>` element: texts stay texts, nothing points outside the page.

    Args:
        figure: The figure.
        name: Unique in its page: every id in the element begins with it.
        description: What the figure shows, for readers who cannot see it.

    Returns:
        The markup, without prolog, metadata, comments and namespaces, which HTML does not need.
    """
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", dpi=160, metadata={"Date": None})
    markup = buffer.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", markup, flags=re.DOTALL)
    head, body = markup.split(">", 1)
    head = re.sub(r'\s(xmlns(:\w+)?|width|height)="[^"]*"', "", head)
    head += f' role="img" aria-label="{html.escape(description)}"'
    return _IDS.sub(rf"\g<1>{name}-", f"{head}>{body}".replace("xlink:href", "href")).strip()
