"""Templates of the package, rendered as pages that open offline."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from phaseprune.report import words


def render(template: str, **values: Any) -> str:
    """Render a template.

    Args:
        template: Its path in the package, as ``report/template.html.j2``.
        **values: What it shows.

    Returns:
        The HTML; what cannot be encoded is replaced.
    """
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined,
        loader=FunctionLoader(lambda name: files("phaseprune").joinpath(name).read_text("utf-8")),
    )  # fmt: skip
    environment.filters |= {
        "percent": words.percent,
        "signed": words.signed,
        "full_interval": words.percent_with_interval,
    }
    page = environment.get_template(template).render(**values)
    return page.encode("utf-8", "replace").decode("utf-8")
