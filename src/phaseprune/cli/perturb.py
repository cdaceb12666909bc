"""``phaseprune perturb``."""

from __future__ import annotations

from typing import Annotated

from phaseprune.cli import options as o
from phaseprune.cli.execute import Run
from phaseprune.errors import UserError


@o.command
def perturb(
    model: o.ModelOptions,
    questions: o.QuestionOptions,
    output: o.RunOptions,
    noise: Annotated[
        str | None,
        o.option(
            "--noise",
            "Of the noise, in units of the variance of a token's state, as 0.01,0.05.",
            metavar="VARIANCES",
            default="0.005,0.01,0.02,0.05,0.1,0.2,0.5,1",
        ),
    ] = None,
    noise_seeds: Annotated[
        int, o.option("--noise-seeds", "Draws of noise that figures are means over.")
    ] = 3,
) -> None:
    """Put noise in at each readout, and see where the decision breaks.

    h + eps * sigma(h) * N(0, I) at one readout at a time, sigma^2 = eps^2; what is shown is the
    Decision Margin at the output. A run that was stopped goes on with the same command.
    """
    from phaseprune.probes.perturbation import DEFAULT_NOISE, check_seeds, noise_levels, perturb

    run = Run("perturb", model, questions, output)
    levels = noise_levels(DEFAULT_NOISE if noise is None else variances(noise))
    check_seeds(noise_seeds)
    task = run.load_questions()
    decoder = run.load_model()
    from phaseprune.report.perturb import perturbation_view

    perturbed = run.work(
        perturb, decoder, task, noise=levels, noise_seeds=noise_seeds, seed=questions.seed
    )
    result = perturbed.to_dict()
    run.show(perturbation_view(result, perturbed.trace.to_dict()))
    run.end(result, run.like("ablate", "--kind", "mean"), run.like("prune", "--keep-accuracy", 0.9))


def variances(text: str) -> list[float]:
    """The numbers of a list such as ``0.01,0.05``.

    Raises:
        UserError: a part is no number.
    """
    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError:
            raise UserError(
                f"--noise takes variances such as 0.01,0.05, and {part.strip()!r} is no number"
            ) from None
    return found
