"""``phaseprune methods``."""

from __future__ import annotations

from typing import Annotated

from phaseprune.cli import options as o
from phaseprune.cli.screen import Screen, command_line
from phaseprune.errors import UserError


@o.command
def methods(
    output: o.OutputOptions,
    name: Annotated[str | None, o.argument("METHOD", "Say all about this one.")] = None,
    blocks: Annotated[int, o.option("--of", "Costs are of a model with so many blocks,")] = 32,
    remove: Annotated[int, o.option("--remove", "of which so many are removed.")] = 8,
) -> None:
    """List the training-free ways to choose blocks, with paper, needs and cost."""
    screen = Screen(output.as_json, output.quiet)
    from phaseprune.methods.registry import METHODS, find_method
    from phaseprune.report.methods import methods_view

    if not 1 <= remove < blocks:
        raise UserError(
            f"--remove {remove} of --of {blocks} blocks: one at least goes and one stays; give "
            f"1 to {max(1, blocks - 1)}" + ("" if blocks > 1 else ", and a larger --of")
        )
    chosen = METHODS if name is None else {name: find_method(name)}
    entries = [
        method.to_dict() | {"block_passes": method.passes(blocks, remove)}
        for method in chosen.values()
    ]
    if name is None:
        screen.show(methods_view(entries, blocks, remove).terminal())
        screen.next(command_line("methods", next(iter(METHODS))))
    else:
        _show(screen, entries[0], blocks, remove)
    screen.result({"blocks": blocks, "remove": remove, "methods": entries})


def _show(screen: Screen, method: dict, blocks: int, remove: int) -> None:
    paper = method["paper"] + (f", arXiv {method['arxiv']}" if method["arxiv"] else "")
    screen.say(f"{method['name']}: {method['title']} ({paper})")
    screen.say(f"  formula  {method['formula']}", whole=True)
    screen.say(f"  needs    {' and '.join(method['needs']) or 'nothing but the model'}")
    screen.say(
        f"  cost     {method['cost']} block passes: {method['block_passes']:,} to remove {remove} "
        f"of {blocks} blocks"
    )
    screen.next(command_line("prune", "MODEL", *method["command"].split()[1:]))
