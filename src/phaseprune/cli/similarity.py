"""``phaseprune similarity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from phaseprune.cli import options as o
from phaseprune.cli.execute import Run
from phaseprune.cli.screen import block_list, command_line


@o.command
def similarity(
    model: o.ModelOptions,
    questions: o.QuestionOptions,
    output: o.RunOptions,
    remove: Annotated[
        str | None,
        o.option(
            "--remove",
            "The pruned model: original 0-based indices of what it leaves out, as 3,7.",
            metavar="BLOCKS",
        ),
    ] = None,
    pruning: Annotated[
        Path | None,
        o.option(
            "--run",
            "Or a run of prune on this model and task: all of its steps, on its "
            "evaluation questions.",
            metavar="RUN",
        ),
    ] = None,
    minibatch: Annotated[
        int | None,
        o.option("--minibatch", "Questions of a minibatch of CKA.", default="a tenth, 8 to 64"),
    ] = None,
) -> None:
    """Compare a model with pruned ones: their hidden states (CKA) beside their decisions."""
    from phaseprune.probes.similarity import check_pruned_models, similarity

    run = Run("similarity", model, questions, output)
    removed = None if remove is None else block_list(remove, "--remove")
    check_pruned_models(removed, pruning)
    task = run.load_questions()
    decoder = run.load_model()
    from phaseprune.report.similarity import similarity_view

    found = run.work(
        similarity,
        decoder,
        task,
        remove=removed,
        run=pruning,
        minibatch=minibatch,
        seed=questions.seed,
    )
    result = found.to_dict()
    run.show(similarity_view(result))
    following = command_line("report", run.path)
    if pruning is None:
        following = run.like("prune", "--remove", len(removed))
    run.end(result, following)
