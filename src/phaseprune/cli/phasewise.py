"""``phaseprune phasewise``."""

from __future__ import annotations

from typing import Annotated

from phaseprune.cli import options as o
from phaseprune.cli.execute import Run
from phaseprune.cli.screen import block_list


@o.command
def phasewise(
    model: o.ModelOptions,
    questions: o.QuestionOptions,
    output: o.RunOptions,
    draws: Annotated[
        int,
        o.option(
            "--draws",
            "Random sets of each kind and number of blocks; all sets where there are fewer.",
        ),
    ] = 20,
    most: Annotated[
        int | None,
        o.option(
            "--most",
            "Remove up to this many blocks at once.",
            default="as many as the smaller phase has",
        ),
    ] = None,
    protect: Annotated[
        str | None,
        o.option(
            "--protect",
            "Never remove these blocks, as 0,1,2: are the other Silent blocks expensive too?",
            metavar="BLOCKS",
        ),
    ] = None,
    calibration: o.Calibration = None,
    evaluation: o.Evaluation = None,
) -> None:
    """Remove random sets of blocks from one phase alone: which phase does accuracy hang on?

    The phases are found on calibration questions; all accuracies are of other questions. Further
    sets tell the phase from the depth: Silent blocks are early blocks.
    """
    run = Run("phasewise", model, questions, output)
    protected = block_list(protect)
    task = run.load_questions()
    decoder = run.load_model()
    from phaseprune.probes.phasewise import phasewise
    from phaseprune.report.phasewise import phasewise_view

    compared = run.work(
        phasewise,
        decoder,
        task,
        draws=draws,
        most=most,
        protect=protected,
        calibration=calibration,
        evaluation=evaluation,
        seed=questions.seed,
    )
    result = compared.to_dict()
    run.show(phasewise_view(result))
    run.end(result, run.like("prune"))
