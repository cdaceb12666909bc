"""Options that several commands share, each described once, in groups that commands take whole.

A command is a function whose parameters are groups and options of its own; ``command`` makes of it
what typer takes: a function with all options side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

#: The panels of a command's ``--help``, in their order.
PANELS = ESSENTIALS, QUESTIONS, SEARCH, TRAINING, HARDWARE, OUTPUT = (
    "Essentials",
    "Questions",
    "Search",
    "Training",
    "Hardware and model",
    "Output",
)


def option(
    flags: str,
    about: str,
    panel: str = ESSENTIALS,
    *,
    metavar: str | None = None,
    default: str | None = None,
) -> Any:
    """An option as ``--help`` shows it.

    Args:
        flags: as ``--task -t``.
        about: what it is for.
        panel: one of ``PANELS``.
        metavar: what stands for its value.
        default: what None stands for, in words.
    """
    return typer.Option(
        *flags.split(),
        help=about,
        rich_help_panel=panel,
        metavar=metavar,
        show_default=default or True,
    )


def argument(metavar: str, about: str, default: str | None = None) -> Any:
    """A word without a flag; ``default`` says what None stands for."""
    return typer.Argument(metavar=metavar, help=about, show_default=default or False)


Device = Annotated[
    str,
    option(
        "--device",
        "cpu, cuda, mps, …; auto takes an accelerator if any; map spreads the model "
        "over several, host memory and disk.",
        HARDWARE,
    ),
]
Dtype = Annotated[
    str,
    option(
        "--dtype",
        "float32, bfloat16, float16; auto is float32 on the CPU and the checkpoint's "
        "own elsewhere.",
        HARDWARE,
    ),
]
Revision = Annotated[str | None, option("--revision", "Of a hub model.", HARDWARE)]
TrustRemoteCode = Annotated[
    bool,
    option("--trust-remote-code", "Run code that comes with the checkpoint. Dangerous.", HARDWARE),
]
Blocks = Annotated[
    str | None,
    option(
        "--blocks",
        "Module path of the list of blocks, as model.layers.",
        HARDWARE,
        metavar="PATH",
        default="found",
    ),
]


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """How a model is loaded: the keywords of ``load_model``."""

    device: Device = "auto"
    dtype: Dtype = "auto"
    stream: Annotated[
        bool | None,
        option(
            "--stream/--no-stream",
            "Read blocks from disk when they run, two at a time in memory.",
            HARDWARE,
            default="where the weights do not fit",
        ),
    ] = None
    max_memory: Annotated[
        str | None,
        option(
            "--max-memory",
            "What a run may take on the device, weights included, as 8GB.",
            HARDWARE,
            metavar="SIZE",
            default="most of what is free",
        ),
    ] = None
    revision: Revision = None
    trust_remote_code: TrustRemoteCode = False
    blocks: Blocks = None

    def keywords(self) -> dict[str, Any]:
        """For ``load_model``."""
        return {one.name: getattr(self, one.name) for one in fields(LoadingOptions)}


@dataclass(frozen=True, kw_only=True)
class ModelOptions(LoadingOptions):
    """Which model, and how it is loaded."""

    name: Annotated[str, argument("MODEL", "Hub id, local directory, local .gguf file, or 'demo'.")]


Limit = Annotated[
    int | None,
    option("--limit", "Use only the first so many questions of the task.", QUESTIONS),
]
Seed = Annotated[
    int,
    option("--seed", "Of the split, random examples, shuffling, all statistics.", QUESTIONS),
]


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """How questions are put: those keywords of ``load_task`` that change a prompt."""

    scoring: Annotated[
        str | None,
        option(
            "--scoring",
            "letter (options in the prompt, the label is scored) or text (each "
            "option's own text is scored).",
            QUESTIONS,
            default="the task's own; letter for files",
        ),
    ] = None
    labels: Annotated[
        str | None,
        option(
            "--labels",
            "Style of the labels: A, a, 1, (A) or (a).",
            QUESTIONS,
            default="the task's own, mostly A",
        ),
    ] = None
    shots: Annotated[
        int | None,
        option(
            "--shots",
            "Solved examples before each question (few-shot).",
            QUESTIONS,
            default="0; of an lm-eval task, its own number",
        ),
    ] = None
    shots_from: Annotated[
        Path | None,
        option(
            "--shots-from",
            "Take the examples from this file of questions.",
            QUESTIONS,
            metavar="FILE",
            default="a benchmark's own split",
        ),
    ] = None
    shot_order: Annotated[
        str,
        option("--shot-order", "Take the first examples, or random ones (by --seed).", QUESTIONS),
    ] = "first"
    shuffle: Annotated[
        bool,
        option(
            "--shuffle", "Put the options of each question in another order, by --seed.", QUESTIONS
        ),
    ] = False
    chat: Annotated[
        bool, option("--chat", "Put questions in the tokenizer's chat template.", QUESTIONS)
    ] = False
    columns: Annotated[
        str | None,
        option(
            "--columns",
            "Which fields of a file of questions are what, as "
            "question=q,choices=A+B+C+D,answer=key.",
            QUESTIONS,
            metavar="FIELDS",
            default="recognised",
        ),
    ] = None
    data_dir: Annotated[
        Path | None,
        option(
            "--data-dir",
            "Read named benchmarks from copies of the hub's data sets, DIR/OWNER/NAME.",
            QUESTIONS,
            metavar="DIR",
        ),
    ] = None
    lm_eval_path: Annotated[
        Path | None,
        option(
            "--lm-eval-path",
            "A folder of lm-eval tasks (YAML), for --task lm_eval:NAME.",
            QUESTIONS,
            metavar="DIR",
        ),
    ] = None
    seed: Seed = 0

    def keywords(self) -> dict[str, Any]:
        """For ``load_task``."""
        return {name: value for name, value in vars(self).items() if name != "task"}

    def words(self, scoring: str | None) -> list[str]:
        """How questions are put where that is not the default, as words of a command line.

        Args:
            scoring: what ``--scoring`` came to.
        """
        from phaseprune.questions.catalog import load_task

        given, words = self.keywords() | {"scoring": scoring}, []
        for name, parameter in signature(load_task).parameters.items():
            value = given.get(name, parameter.default)
            if name != "limit" and value != parameter.default:
                words += [_flag(name)] if value is True else [_flag(name), str(value)]
        return words


@dataclass(frozen=True, kw_only=True)
class QuestionOptions(PromptOptions):
    """Which questions, how they are put and how answers are scored: the keywords of ``load_task``.

    Only ``task``, its first argument, is none.
    """

    task: Annotated[
        str | None,
        option(
            "--task -t",
            "A file of questions (.jsonl, .json, .csv, .tsv, .parquet); a "
            "benchmark's name (`phaseprune tasks` lists them); lm_eval:NAME; or 'demo', the "
            "default for the bundled model.",
            metavar="TASK",
        ),
    ] = None
    limit: Limit = None
    length_norm: Annotated[
        str,
        option("--length-norm", "Texts are compared per: none, chars, bytes or tokens.", QUESTIONS),
    ] = "none"
    probability: Annotated[
        str,
        option(
            "--probability", "Support of the softmax for letters: options or vocabulary.", QUESTIONS
        ),
    ] = "options"
    permute: Annotated[
        bool,
        option(
            "--permute",
            "Average over the cyclic permutations of the options (letters; k times the work).",
            QUESTIONS,
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class TasksOptions(QuestionOptions):
    """The same where there may be several tasks."""

    task: Annotated[
        str | None,
        option(
            "--task -t",
            "One task or several, as arc_easy,piqa: a file of questions (.jsonl, "
            ".csv, …); a benchmark's name (`phaseprune tasks` lists them); lm_eval:NAME; or "
            "'demo', the default for the bundled model.",
            metavar="TASKS",
        ),
    ] = None


Calibration = Annotated[
    int | None,
    option(
        "--calibration",
        "Questions that blocks, means and phases are found on.",
        QUESTIONS,
        default="a third, up to 64",
    ),
]
Evaluation = Annotated[
    int | None,
    option("--evaluation", "Other questions to report on.", QUESTIONS, default="all others"),
]
Protect = Annotated[
    str | None,
    option("--protect", "Never remove these blocks, as 0,1,29.", SEARCH, metavar="BLOCKS"),
]
RepairLabels = Annotated[
    bool,
    option(
        "--repair-labels",
        "Letters: say in the exported phaseprune.json, in numbers and as a "
        "line of Python, what takes the label prior off.",
        OUTPUT,
    ),
]


Json = Annotated[bool, option("--json", "Print the result as JSON, and nothing else.", OUTPUT)]
Quiet = Annotated[bool, option("--quiet", "No progress and no tables.", OUTPUT)]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is printed."""

    as_json: Json = False
    quiet: Quiet = False


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run is written, and what is printed."""

    out: Annotated[
        Path | None,
        option(
            "--out -o",
            "Run directory.",
            OUTPUT,
            metavar="RUN",
            default="one in runs/ for this command line",
        ),
    ] = None
    as_json: Json = False
    quiet: Quiet = False


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command as typer takes it: groups of options are flattened into its signature.

    Args:
        function: parameters that are annotated with a dataclass are groups, and are given one;
            all others are typer's own business.

    Returns:
        The function, with a parameter for each field of its groups, sorted by their panels, and a
        docstring whose paragraphs the terminal folds.
    """
    groups, parameters = {}, []
    for one in _parameters(function):
        if is_dataclass(one.annotation):
            groups[one.name] = one.annotation
            parameters += _parameters(one.annotation)
        else:
            parameters.append(one)

    def flat(**given: Any) -> None:
        built = {
            name: group(**{one.name: given.pop(one.name) for one in fields(group)})
            for name, group in groups.items()
        }
        function(**built, **given)

    flat.__signature__ = Signature(sorted(parameters, key=_panel))
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    flat.__name__, flat.__module__ = function.__name__, function.__module__
    flat.__doc__ = "\n\n".join(" ".join(part.split()) for part in function.__doc__.split("\n\n"))
    return flat


@cache
def _parameters(of: Callable | type) -> list[Parameter]:
    """Parameters of a function, or of a dataclass's constructor, with their types."""
    hints = get_type_hints(of, include_extras=True)
    return [
        one.replace(annotation=hints[one.name], kind=Parameter.KEYWORD_ONLY)
        for one in signature(of).parameters.values()
    ]


def _panel(parameter: Parameter) -> int:
    for told in getattr(parameter.annotation, "__metadata__", ()):
        if told.rich_help_panel:
            return PANELS.index(told.rich_help_panel)
    return -1


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
