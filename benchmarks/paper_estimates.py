"""What the configurations in configs/paper will cost, from counts; no weights are needed.

    python benchmarks/paper_estimates.py [--data ../shared/data] [--write]

Prints the estimates of each, and with --write puts them into its head comment. The models are
built without memory from a config.json in the published shapes (below). No hub is asked: questions
are those of plain files, and SmolLM2's tokenizer stands in for the models' own (the demo has its),
so numbers of tokens are stand-ins. Nothing is measured: hours are FLOP over an assumed rate.
"""  # noqa: D205

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import transformers

from engine import bundled_weights
from phaseprune.cli.check_words import data, flop
from phaseprune.cli.paper import configuration
from phaseprune.decoder.discover import find_head, locate_blocks
from phaseprune.decoder.load import load_tokenizer, read_config
from phaseprune.decoder.skeleton import build_empty
from phaseprune.decoder.source import Source, find_source
from phaseprune.questions.benchmarks import BENCHMARKS
from phaseprune.questions.catalog import load_task
from phaseprune.questions.question import Task
from phaseprune.questions.training import training_questions
from phaseprune.replication.cost import Experiment, Shape, costs
from phaseprune.replication.settings import Settings, resolve, settings_of
from phaseprune.replication.sides import measure_sides
from phaseprune.sweep.estimate import WORKING_BYTES
from phaseprune.sweep.measure import encode_inputs
from phaseprune.sweep.memory import usual_tokens
from phaseprune.sweep.probe import ANY_LENGTH
from phaseprune.sweep.rows import make_rows
from phaseprune.sweep.tuned import HELD_TOKENS, TOKENS

CONFIGURATIONS = Path(__file__).resolve().parents[1] / "configs" / "paper"
BEGIN = "# Estimates (benchmarks/paper_estimates.py --write):"
#: Operations a second that hours are told for: an assumption, about a third of what the maker of
#: an A100 states for bfloat16.
RATE = 1e14
#: The published shapes.
SHAPES: dict[str, dict[str, Any]] = {
    "meta-llama/Meta-Llama-3-8B": dict(
        model_type="llama",
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
    ),
    "meta-llama/Llama-2-7b-hf": dict(
        model_type="llama",
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    ),
    "Qwen/Qwen3-4B": dict(
        model_type="qwen3",
        vocab_size=151936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
    ),
}
#: Benchmark -> files of scored and of training questions (None: scored ones stand in).
FILES: dict[str, tuple[str, str | None]] = {
    "arc_easy": ("arc_easy.test", "arc_easy.train"),
    "arc_challenge": ("arc_challenge.test", "arc_challenge.train"),
    "hellaswag": ("hellaswag.validation", None),
    "openbookqa": ("openbookqa.test", "openbookqa.train"),
    "commonsense_qa": ("commonsense_qa.validation", "commonsense_qa.train"),
    "piqa": ("piqa.validation", None),
    "mmlu": ("mmlu.test.subset", "mmlu.dev"),
}
MMLU_SUBJECTS = 57


@dataclass(frozen=True)
class Model:
    """A model without its weights.

    Attributes:
        parameters: of all of it.
        block_parameters: of one block.
        blocks: L.
        width: D.
        vocabulary: rows of its head.
        tokenizer: its own, or SmolLM2's.
    """

    parameters: int
    block_parameters: int
    blocks: int
    width: int
    vocabulary: int
    tokenizer: Any


def open_model(name: str) -> Model:
    """Build a model without memory."""
    if name not in SHAPES:
        source = find_source(name)
        return _model(source, load_tokenizer(source))
    with tempfile.TemporaryDirectory() as folder:
        kind = SHAPES[name]["model_type"]
        config = transformers.AutoConfig.for_model(**SHAPES[name])
        config.architectures = [{"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[kind]]
        config.save_pretrained(folder)
        return _model(Source(name, Path(folder)), load_tokenizer(find_source(bundled_weights())))


def _model(source: Source, tokenizer) -> Model:
    config = read_config(source)
    model = build_empty(config)
    blocks = model.get_submodule(locate_blocks(model, config, None))
    vocabulary, width = find_head(model).weight.shape
    return Model(
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in blocks[0].parameters()),
        len(blocks),
        width,
        vocabulary,
        tokenizer,
    )


def questions(name: str, own: Mapping[str, Any], folder: Path) -> tuple[Task, Task | None]:
    """The task of a configuration, and its training questions, put as it says."""
    known = signature(load_task).parameters
    how = {k: v for k, v in own.items() if k in known and k not in ("name", "limit")}
    limit = own.get("limit")
    if name not in FILES:
        task = load_task(name, limit=limit, **how)
        return task, training_questions(task)
    files = [file and str(folder / f"{file}.jsonl") for file in FILES[name]]
    task, training = (
        file and replace(load_task(file, **how), prompt=BENCHMARKS[name].prompt) for file in files
    )
    if name == "mmlu" and limit:  # of each of its subjects, of which the file has some
        groups = sorted({q.group for q in task.questions})
        each = limit * MMLU_SUBJECTS // len(groups)
        of_groups = [[q for q in task.questions if q.group == group][:each] for group in groups]
        return task.with_questions([q for some in of_groups for q in some]), training
    return task.head(limit), training


def experiments(
    model: Model, task: Task, training: Task | None, settings: Settings, seed: int
) -> tuple[int, tuple[Experiment, ...]]:
    """Tokens of a task, and the cost of each of its experiments on a GPU."""
    together = usual_tokens(model.width, torch.device("cuda"))
    inputs, trained = (
        some and encode_inputs(some, model.tokenizer, None) for some in (task, training)
    )
    rows = make_rows(inputs.questions, together, "cpu", ANY_LENGTH, inputs.orders)
    sides = measure_sides(task, settings, seed, inputs, rows, together, ANY_LENGTH, trained)
    needed = model.vocabulary if task.needs_vocabulary else int(task.options.max())
    shape = Shape(model.blocks, model.block_parameters, model.width, model.vocabulary, needed)
    return rows.tokens, costs(settings, sides, shape)


def memory(model: Model, settings: Settings, item: int) -> tuple[int, int, int]:
    """Bytes of the weights; of these and of a tuned lens's fit; and of the models when healing.

    The fit holds its maps five times in float32 (with gradient, two moments, the best ones) and the
    states that it is fitted to. Healing holds the model, and the shortened one
    twice (trained, and read back from disk to be measured).
    """
    weights = model.parameters * item
    maps = 5 * model.blocks * model.width**2 * 4
    states = (model.blocks + 1) * (TOKENS + HELD_TOKENS) * model.width * 4
    shortened = weights - min(settings.ladder) * model.block_parameters * item
    return weights, weights + maps + states + WORKING_BYTES, weights + 2 * shortened


def told(path: Path, folder: Path) -> Iterator[str]:
    """The estimates of a configuration, line by line."""
    read = configuration(path)
    model, stand_in = open_model(read.model), read.model in SHAPES
    item = 2 if read.options.get("dtype") == "bfloat16" else 4
    total: dict[str, list[Experiment]] = {}
    yield f"{read.model}: {model.parameters / 1e6:,.1f}M parameters, {model.blocks} blocks"
    yield "`at most` and `about` as in docs/check.md; all experiments of each task:"
    yield f"  {'task':<14} {'questions':>9} {'tokens':>9} {'block passes':>14} {'operations':>13}"
    for name, own in read.tasks.items():
        options = {**read.options, **own}
        settings = resolve(settings_of(options), model.blocks)
        task, training = questions(name, options, folder)
        tokens, found = experiments(model, task, training, settings, options.get("seed", 0))
        for one in found:
            total.setdefault(one.name, []).append(one)
        passes = sum(one.block_passes for one in found)
        yield (
            f"  {name:<14} {len(task.questions):>9,} {tokens:>9,} {passes:>14,} "
            f"{flop(sum(one.flop for one in found)):>13}"
        )
    yield ""
    yield f"  {'experiment':<14} {'':>9} {'':>9} {'block passes':>14} {'operations':>13}"
    for name, some in total.items():
        kind = "" if some[0].kind == "exact" else some[0].kind
        yield (
            f"  {name:<14} {kind:>19} {sum(one.block_passes for one in some):>14,} "
            f"{flop(sum(one.flop for one in some)):>13}"
        )
    whole = sum(one.flop for some in total.values() for one in some)
    yield f"  {'all':<14} {'':>34} {flop(whole):>13}"
    yield ""
    weights, lens, healing = (data(one) for one in memory(model, settings, item))
    yield f"Memory: {weights} for the weights in {'bfloat16' if item == 2 else 'float32'}, about"
    yield f"{lens} while the lens is fitted, {healing} for the three models that are there while"
    yield "healing; hidden states take what is free besides."
    if not stand_in:
        yield "`phaseprune check demo --full` says what the defaults take on this machine."
        return
    yield f"Time: {whole / RATE / 3600:.1f} h, if a device did {RATE / 1e12:.0f} TFLOP a second all"
    yield "the time, which is assumed: nothing was measured on a GPU. Questions are local copies,"
    yield "and tokens are SmolLM2's: stand-ins for what the model's own tokenizer would make."


def main() -> None:
    """Print, and with --write keep, the estimates of all configurations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for path in sorted(CONFIGURATIONS.glob("*.yaml")):
        lines = list(told(path, options.data))
        print(path.name, *lines, "", sep="\n", flush=True)
        if options.write:
            head, _, rest = path.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
            body = [line for line in rest.splitlines() if not line.startswith("#")]
            comment = [BEGIN, *(f"# {line}".rstrip() for line in lines)]
            path.write_text(head + "\n".join([*comment, *body]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
