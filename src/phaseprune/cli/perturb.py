"""``phaseprune perturb``."""

from __future__ import annotations

from typing import Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import (
    Screen,
    command_line,
    load_checked,
    load_questions,
    prompt_words,
    run_path,
    task_name,
    task_settings,
    typed_command,
)
from phaseprune.errors import UserError


def perturb(
    model: o.Model,
    task: o.TaskName = None,
    scoring: o.Scoring = None,
    noise: Annotated[
        str | None,
        typer.Option("--noise", metavar="VARIANCES", help="Of the noise, in units of the variance "
                     "of a token's state, as 0.01,0.05. [default: 0.005,0.01,0.02,0.05,0.1,0.2,"
                     "0.5,1]"),
    ] = None,
    noise_seeds: Annotated[
        int, typer.Option("--noise-seeds", help="Draws of noise that figures are means over.")
    ] = 3,
    out: o.Out = None,
    limit: o.Limit = None,
    seed: o.Seed = 0,
    length_norm: o.LengthNorm = "none",
    probability: o.Probability = "options",
    labels: o.Labels = None,
    shots: o.Shots = None,
    shots_from: o.ShotsFrom = None,
    shot_order: o.ShotOrder = "first",
    shuffle: o.Shuffle = False,
    permute: o.Permute = False,
    chat: o.Chat = False,
    columns: o.Columns = None,
    data_dir: o.DataDir = None,
    lm_eval_path: o.LmEvalPath = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    stream: o.Stream = None,
    max_memory: o.MaxMemory = None,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = False,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Put noise in at each readout, and see where the decision breaks.

    h + eps * sigma(h) * N(0, I) at one readout at a time, sigma^2 = eps^2; what is shown is the
    Decision Margin at the output. A run that was stopped goes on with the same command.
    """
    screen = Screen(as_json, quiet)
    task = task_name(model, task)
    settings = task_settings(locals())
    from phaseprune.probes.perturbation import DEFAULT_NOISE, check_seeds, noise_levels
    from phaseprune.probes.perturbation import perturb as perturb_model

    levels = noise_levels(DEFAULT_NOISE if noise is None else numbers(noise))
    check_seeds(noise_seeds)
    questions = load_questions(screen, task, limit, settings)
    decoder = load_checked(
        model, screen, device=device, dtype=dtype, revision=revision,
        trust_remote_code=trust_remote_code, blocks=blocks, stream=stream,
        max_memory=max_memory,
    )  # fmt: skip
    from phaseprune.report.html import write_report
    from phaseprune.report.perturbation_tables import (
        cost_sentence,
        perturbation_table,
        phase_sentences,
    )
    from phaseprune.report.transition_words import phases_line
    from phaseprune.report.words import input_lines
    from phaseprune.runs.directory import RunDirectory

    run = run_path(out, "perturb", model, task)
    with screen.progress() as progress:
        perturbed = perturb_model(
            decoder, questions, noise=levels, noise_seeds=noise_seeds, seed=seed, out=run,
            arguments=typed_command(), progress=progress,
        )  # fmt: skip
    report = write_report(run)
    result = perturbed.to_dict()
    if perturbed.state == "finished":
        screen.note(f"{run} was finished before; this is its result")
    screen.say(perturbation_table(result))
    screen.say(phases_line(result))
    for line in (*phase_sentences(result), cost_sentence(result)):
        screen.say(line)
    for line in input_lines(RunDirectory(run).manifest):
        screen.note(line)
    screen.say(f"report: {report}")
    words = ["--task", task, *prompt_words(settings, questions.scoring)]
    screen.next(
        command_line("ablate", model, *words, "--kind", "mean"),
        command_line("prune", model, *words, "--keep-accuracy", 0.9),
    )
    screen.result(result)


def numbers(text: str) -> list[float]:
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
