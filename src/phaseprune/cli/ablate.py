"""``phaseprune ablate``."""

from __future__ import annotations

from typing import Annotated

from phaseprune.cli import options as o
from phaseprune.cli.execute import Run


@o.command
def ablate(
    model: o.ModelOptions,
    questions: o.QuestionOptions,
    output: o.RunOptions,
    kind: Annotated[
        str,
        o.option(
            "--kind",
            "mean: the mean of a block's contribution in its place; swap: a block "
            "after the next one; repeat: a block twice.",
        ),
    ] = "mean",
    calibration: o.Calibration = None,
    evaluation: o.Evaluation = None,
) -> None:
    """Ablate each block in turn, beside its removal: mean, swap with the next one, repetition.

    All blocks in one walk. The figures are of evaluation questions; a run that was stopped goes on
    with the same command.
    """
    from phaseprune.probes.ablation import ablate, check_kind

    run = Run("ablate", model, questions, output)
    check_kind(kind)
    task = run.load_questions()
    decoder = run.load_model()
    from phaseprune.report.ablate import ablation_view

    ablated = run.work(
        ablate,
        decoder,
        task,
        kind=kind,
        calibration=calibration,
        evaluation=evaluation,
        seed=questions.seed,
    )
    result = ablated.to_dict()
    run.show(ablation_view(result, ablated.trace.to_dict()))
    run.end(result, run.like("prune", "--keep-accuracy", 0.9))
