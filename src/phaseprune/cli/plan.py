"""``phaseprune plan``."""

from __future__ import annotations

from phaseprune.cli import options as o
from phaseprune.cli.execute import Run
from phaseprune.cli.screen import block_list


@o.command
def plan(
    model: o.ModelOptions,
    questions: o.QuestionOptions,
    output: o.RunOptions,
    protect: o.Protect = None,
) -> None:
    """Say how many blocks could go, and which first, from one run of the full model.

    A prediction: nothing is removed. All questions are looked at; report on others.
    """
    run = Run("plan", model, questions, output)
    protected = block_list(protect)
    task = run.load_questions()
    decoder = run.load_model()
    from phaseprune.methods.plan import plan
    from phaseprune.report.plan import plan_view

    planned = run.work(plan, decoder, task, protect=protected, seed=questions.seed)
    result = planned.to_dict()
    run.show(plan_view(result, planned.trace.to_dict()))
    kept = ["--protect", ",".join(map(str, protected))] if protected else []
    count = planned.budget or 1
    following = [run.like("prune", "--method", "planned", "--remove", count, *kept)]
    if planned.trace.transition.found:  # the search that keeps to Decisive blocks
        following.append(run.like("prune", "--remove", count, "--among", "decisive", *kept))
    run.end(result, *following)
