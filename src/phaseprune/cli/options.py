"""Options that several commands share, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Hub id, local directory, local .gguf file, or 'demo'.",
        show_default=False,
    ),
]  # fmt: skip
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task", metavar="TASK",
        help="A file of questions (.jsonl, .json, .csv, .tsv, .parquet); a benchmark's name "
        "(`phaseprune tasks` lists them); lm_eval:NAME; or 'demo', the default for the "
        "bundled model.",
    ),
]  # fmt: skip
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="RUN", help="Run directory. [default: one in runs/ for this command line]"
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Use only the first so many questions of the task.")
]
Seed = Annotated[
    int, typer.Option("--seed", help="Of the split, random examples, shuffling, all statistics.")
]
Device = Annotated[
    str,
    typer.Option("--device", help="cpu, cuda, mps, …; auto takes an accelerator if any; map "
                 "spreads the model over several, host memory and disk."),
]  # fmt: skip
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype", help="float32, bfloat16, float16; auto is float32 on the CPU and the "
        "checkpoint's own elsewhere.",
    ),
]  # fmt: skip
Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream", help="Read blocks from disk when they run, two at a time in "
        "memory. [default: where the weights do not fit]", show_default=False,
    ),
]  # fmt: skip
MaxMemory = Annotated[
    str | None,
    typer.Option("--max-memory", metavar="SIZE", help="What a run may take on the device, weights "
                 "included, as 8GB. [default: most of what is free]"),
]  # fmt: skip
Scoring = Annotated[
    str | None,
    typer.Option(
        "--scoring", help="letter (options in the prompt, the label is scored) or text (each "
        "option's own text is scored). [default: the task's own; letter for files]",
    ),
]  # fmt: skip
LengthNorm = Annotated[
    str,
    typer.Option("--length-norm", help="Texts are compared per: none, chars, bytes or tokens."),
]
Probability = Annotated[
    str, typer.Option("--probability", help="Support of the softmax for letters: options or "
                      "vocabulary.")
]  # fmt: skip
Labels = Annotated[
    str | None,
    typer.Option("--labels", help="Style of the labels: A, a, 1, (A) or (a). [default: the task's "
                 "own, mostly A]"),
]  # fmt: skip
Shots = Annotated[
    int | None,
    typer.Option("--shots", help="Solved examples before each question (few-shot). [default: 0; "
                 "of an lm-eval task, its own number]"),
]  # fmt: skip
ShotsFrom = Annotated[
    Path | None,
    typer.Option(
        "--shots-from", metavar="FILE", help="Take the examples from this file of questions. "
        "[default: a benchmark's own split]",
    ),
]  # fmt: skip
ShotOrder = Annotated[
    str, typer.Option("--shot-order", help="Take the first examples, or random ones (by --seed).")
]
Shuffle = Annotated[
    bool, typer.Option("--shuffle", help="Put the options of each question in another order, by "
                       "--seed.")
]  # fmt: skip
Permute = Annotated[
    bool, typer.Option("--permute", help="Average over the cyclic permutations of the options "
                       "(letters; k times the work).")
]  # fmt: skip
RepairLabels = Annotated[
    bool, typer.Option("--repair-labels", help="Letters: say in the exported phaseprune.json, in "
                       "numbers and as a line of Python, what takes the label prior off.")
]  # fmt: skip
Chat = Annotated[
    bool, typer.Option("--chat", help="Put questions in the tokenizer's chat template.")
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="FIELDS", help="Which fields of a file of questions are what, as "
        "question=q,choices=A+B+C+D,answer=key. [default: recognised]",
    ),
]  # fmt: skip
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Read named benchmarks from copies of the hub's data "
        "sets, DIR/OWNER/NAME.",
    ),
]  # fmt: skip
LmEvalPath = Annotated[
    Path | None,
    typer.Option("--lm-eval-path", metavar="DIR", help="A folder of lm-eval tasks (YAML), for "
                 "--task lm_eval:NAME."),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no tables.")]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run code that comes with the checkpoint. Dangerous."),
]
Blocks = Annotated[
    str | None,
    typer.Option("--blocks", metavar="PATH", help="Module path of the list of blocks, as "
                 "model.layers. [default: found]"),
]  # fmt: skip
Revision = Annotated[str | None, typer.Option("--revision", help="Of a hub model.")]
