"""``phaseprune trace``."""

from __future__ import annotations

from typing import Annotated

from phaseprune.cli import options as o
from phaseprune.cli.execute import Run


@o.command
def trace(
    model: o.ModelOptions,
    questions: o.QuestionOptions,
    output: o.RunOptions,
    lens: Annotated[
        str,
        o.option(
            "--lens",
            "How middle states are read: logit (as they are) or tuned (through an "
            "affine map a readout, fitted to calibration questions).",
        ),
    ] = "logit",
    calibration: Annotated[
        int | None,
        o.option(
            "--calibration",
            "Of --lens tuned: questions to fit to, which are not traced.",
            o.QUESTIONS,
            default="a third, up to 64",
        ),
    ] = None,
) -> None:
    """Show where the model makes up its mind: Decision Margin, accuracy, options by readout."""
    from phaseprune.sweep.trace import split_for
    from phaseprune.sweep.trace import trace as measure

    run = Run("trace", model, questions, output)
    task = run.load_questions()
    split_for(lens, task, calibration, questions.seed)
    decoder = run.load_model()
    from phaseprune.report.trace import trace_view

    traced = run.work(
        measure, decoder, task, lens=lens, calibration=calibration, seed=questions.seed
    )
    result = traced.to_dict()
    run.show(trace_view(result))
    run.end(result, run.like("prune", "--keep-accuracy", 0.9))
