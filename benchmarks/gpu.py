"""The engine on one GPU: a pruning step at the shape of Llama 3 8B beside the loop, in one process.

    python benchmarks/gpu.py [--minutes 8] [--out DIR] [--tiny] [--only SECTION ...]

Random weights, made on the device; random tokens as questions. Nothing is downloaded or read but
what is in the repository. Each section gets a share of the minutes: it takes fewer questions, or
times the loop on fewer candidates, where all would not fit, and says so. In DIR (by default $OUT,
else the current folder) ``gpu.json`` and ``gpu.md`` are written anew after each section. A section
that fails leaves its traceback there, and the next one goes on.

The loop is as in ``engine.py``: for each candidate the whole model without the block runs padded
rows in batches, logits of the whole vocabulary at all positions. It is helped where peers might be
slower: rows are sorted by length, batches are as large as the card likes, indices are made before
the clock starts, and all batches have run once before.

Without a GPU, or with ``--tiny``, it runs a tiny model on the processor, as a trial of itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from torch.nn import functional

import phaseprune
from engine import operations
from phaseprune.decoder.blocks import skipped_blocks
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.discover import find_final_norm, find_head, find_input_name, locate_blocks
from phaseprune.decoder.packed import _plain_attention
from phaseprune.decoder.placement import Resident
from phaseprune.decoder.source import Source
from phaseprune.decoder.verify import check_readout, check_weights
from phaseprune.questions.encode import EncodedQuestion
from phaseprune.sweep import probe
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.memory import batch_tokens, kept_budget, shard_tokens
from phaseprune.sweep.rows import Rows, make_rows
from phaseprune.sweep.walk import sweep_scores, trace_scores

#: Largest |difference| of a scored token's logit or log-probability between our scores and the
#: loop's. The two round differently: other shapes of matrix products, another attention kernel.
TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.25}
#: Seconds kept back for writing and leaving.
RESERVE = 6


@dataclass(frozen=True)
class Shape:
    """What is run: the model, the questions, the sizes of the loop and of the ceiling's product."""

    blocks: int = 32
    width: int = 4096
    inner: int = 14336
    heads: int = 32
    key_heads: int = 8
    vocabulary: int = 128256
    dtypes: tuple[str, ...] = ("bfloat16",)
    subjects: int = 8
    letters: int = 64
    shot_tokens: int = 520
    question_tokens: tuple[int, int] = (40, 150)
    texts: int = 128
    context_tokens: tuple[int, int] = (16, 44)
    option_tokens: tuple[int, int] = (2, 6)
    prune_questions: int = 32
    loop_tokens: int = 8192
    product: int = 8192


TINY = Shape(
    blocks=4,
    width=64,
    inner=160,
    heads=4,
    key_heads=2,
    vocabulary=512,
    dtypes=("float32", "bfloat16"),
    subjects=2,
    letters=6,
    shot_tokens=60,
    question_tokens=(8, 20),
    texts=8,
    context_tokens=(5, 12),
    prune_questions=12,
    loop_tokens=256,
    product=256,
)


class OutOfTime(Exception):
    """A section has used up its share."""


class NoModel(Exception):
    """A section needs what an earlier one did not make."""


@dataclass
class Bench:
    """The run: its clock, what was found so far, and what sections hand on to later ones."""

    shape: Shape
    device: torch.device
    out: Path
    scratch: Path
    ends: float
    tiny: bool
    deadline: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)
    here: dict[str, Any] = field(default_factory=dict)
    decoder: Decoder | None = None
    ceilings: dict[str, float] = field(default_factory=dict)
    traced: dict[str, np.ndarray] = field(default_factory=dict)

    def left(self) -> float:
        """Seconds that the section still has."""
        return self.deadline - time.monotonic()

    def tick(self, *unused) -> None:
        """To be called often; ends a section whose time is over."""
        if self.left() < 0:
            raise OutOfTime

    def note(self, **figures) -> None:
        """Keep figures of the section, on disk and on the screen."""
        self.here |= figures
        for name, value in figures.items():
            print(f"  {name}: {shown(value)}", flush=True)

    def save(self) -> None:
        """Write all that was found so far."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("gpu.json", json.dumps(self.found, indent=1)),
            ("gpu.md", markdown(self.found)),
        ):
            unfinished = self.out / f".{name}"
            unfinished.write_text(text + "\n", encoding="utf-8")
            unfinished.replace(self.out / name)

    def model(self) -> Decoder:
        """The model of the dtype that it is the turn of."""
        if self.decoder is None:
            raise NoModel("the model was not made")
        return self.decoder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "."))
    parser.add_argument("--tiny", action="store_true", help="a trial of itself on the processor")
    parser.add_argument("--only", nargs="*", help="sections, by the beginning of their names")
    options = parser.parse_args()
    tiny = options.tiny or not torch.cuda.is_available()
    device = torch.device("cpu") if tiny else torch.device("cuda", torch.cuda.current_device())
    ends = time.monotonic() - started_ago() + 60 * options.minutes - RESERVE
    with tempfile.TemporaryDirectory() as scratch:
        shape = TINY if tiny else Shape()
        bench = Bench(shape, device, options.out, Path(scratch), ends, tiny)
        bench.found |= {
            "minutes": options.minutes,
            "tiny": tiny,
            "shape": asdict(shape),
            "sections": {},
        }
        end_in_time(bench)
        transformers.utils.logging.disable_progress_bar()
        run_all(bench, options.only)
    bench.found["seconds"] = time.monotonic() - ends + 60 * options.minutes - RESERVE
    bench.save()
    print(f"\n{markdown(bench.found)}\n\nwritten: {bench.out / 'gpu.json'}, {bench.out / 'gpu.md'}")


def run_all(bench: Bench, only: Sequence[str] | None = None) -> None:
    """Run the sections; time that one does not use is shared by those behind it."""
    plan = [
        (name, share, run)
        for name, share, run in sections(bench)
        if only is None or name.startswith(("machine", "model", *only))
    ]
    for number, (name, share, run) in enumerate(plan):
        now = time.monotonic()
        left = sum(later for _, later, _ in plan[number:])
        bench.deadline = now + (bench.ends - now) * share / left
        run_section(bench, name, run)


def started_ago() -> float:
    """Seconds since the process began: importing torch takes some."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return min(max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK")), 120.0)
    except (OSError, ValueError, IndexError):  # another system
        return 20.0


def end_in_time(bench: Bench) -> None:
    """End the process when its time is over, whatever it hangs in; what was found is on disk."""

    def leave() -> None:
        print("\nout of time: ended in the middle of a section", flush=True)
        bench.found["ended_in_the_middle"] = True
        try:
            bench.save()
        finally:
            os._exit(3)

    timer = threading.Timer(max(1.0, bench.ends - time.monotonic() + RESERVE / 2), leave)
    timer.daemon = True
    timer.start()


def sections(bench: Bench) -> list[tuple[str, float, Callable[[Bench], None]]]:
    """Names, shares of the time, and what runs, in order."""
    plan: list[tuple[str, float, Callable[[Bench], None]]] = [("machine", 1, machine)]
    for dtype in bench.shape.dtypes:
        plan += [
            (f"model {dtype}", 3, lambda b, dtype=dtype: make_model(b, dtype)),
            (f"letters {dtype}", 9, lambda b: case(b, "letters")),
            (f"texts {dtype}", 7, lambda b: case(b, "texts")),
            (f"prune {dtype}", 4, prune_two),
        ]
    plan += [("float16", 2, half_precision), ("demo", 6, demo)]
    return plan + ([] if bench.tiny else [("attention", 1, attention_kernels)])


def run_section(bench: Bench, name: str, run: Callable[[Bench], None]) -> None:
    """Run a section and record how it went; nothing that it raises gets out."""
    print(f"\n{name} ({bench.left():.0f} s)", flush=True)
    bench.here = {}
    bench.found["sections"][name] = entry = {"status": "begun", "figures": bench.here}
    bench.save()
    began = time.monotonic()
    try:
        run(bench)
        entry["status"] = "done"
    except (OutOfTime, NoModel) as error:
        entry["status"] = "left out"
        entry["why"] = str(error) or "its share of the time was over"
    except Exception:  # noqa: BLE001 - the next section may well do
        entry["status"] = "failed"
        entry["error"] = traceback.format_exc()
        print(entry["error"], flush=True)
    if entry["status"] != "done":
        print(f"  {entry['status']} {entry.get('why', '')}", flush=True)
    entry["seconds"] = time.monotonic() - began
    clean(bench)
    bench.save()


def clean(bench: Bench) -> None:
    gc.collect()
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()


# What all sections measure with.


def wait(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.synchronize(bench.device)


def timed(bench: Bench, run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, the device's work included, and what came out."""
    wait(bench)
    began = time.perf_counter()
    out = run()
    wait(bench)
    return time.perf_counter() - began, out


@contextmanager
def peak_memory(bench: Bench, what: str) -> Iterator[None]:
    """Note the most memory that was taken while the context lasted; None on the processor."""
    on_card = bench.device.type == "cuda"
    if on_card:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
    yield
    taken = (
        torch.cuda.max_memory_allocated(bench.device) if on_card else None,
        torch.cuda.max_memory_reserved(bench.device) if on_card else None,
    )
    allocated, reserved = (None if size is None else size / 1e9 for size in taken)
    bench.note(**{f"{what}_peak_gb": allocated, f"{what}_reserved_gb": reserved})


def dtype_name(decoder: Decoder) -> str:
    return str(decoder.dtype).removeprefix("torch.")


# Sections.


def machine(bench: Bench) -> None:
    """What it runs on, and the rate of a large matrix product, once for each dtype."""
    on_card = bench.device.type == "cuda"
    properties = torch.cuda.get_device_properties(bench.device) if on_card else None
    bench.note(
        device=properties.name if on_card else platform.processor() or platform.machine(),
        memory_gb=properties.total_memory / 1e9 if on_card else None,
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if on_card else None,
        transformers=transformers.__version__,
        threads=torch.get_num_threads(),
    )
    size = bench.shape.product
    for name in bench.shape.dtypes:
        one, other = (
            torch.randn(size, size, device=bench.device, dtype=getattr(torch, name))
            for _ in range(2)
        )
        for _ in range(3):
            one @ other
        rates = []
        for _ in range(3):
            seconds, _ = timed(bench, lambda one=one, other=other: [one @ other for _ in range(10)])
            rates.append(10 * 2 * size**3 / seconds)
        bench.ceilings[name] = max(rates)
        bench.note(**{f"ceiling_tflops_{name}": max(rates) / 1e12})


def make_model(bench: Bench, dtype: str) -> None:
    """The model in memory, checked as ``load_model`` checks it."""
    bench.decoder = None
    clean(bench)
    with peak_memory(bench, "model"):
        seconds, decoder = timed(bench, lambda: in_memory(bench, getattr(torch, dtype)))
    bench.note(made_seconds=seconds, weights_gb=decoder.weight_bytes / 1e9)
    seconds, _ = timed(bench, lambda: check_weights(decoder))
    bench.note(weights_checked_seconds=seconds)
    seconds, decoder.readout_difference = timed(bench, lambda: check_readout(decoder))
    bench.note(readout_checked_seconds=seconds, readout_difference=decoder.readout_difference)
    bench.decoder = decoder
    seconds, length = timed(bench, lambda: probe.packed_length(decoder))
    bench.note(packed_tried_seconds=seconds, packed=length > 0, reads_alone=decoder.reads_alone)
    if not length:  # it is not said why: an error is taken for a family that has no packed rows
        try:
            bench.note(packed_again=str(probe._trial(decoder)))
        except Exception:  # noqa: BLE001 - whatever it is, it is what we want to know
            bench.note(why_not_packed=traceback.format_exc())
    bench.note(block_tflops=block_rate(bench, decoder) / 1e12)


def in_memory(bench: Bench, dtype: torch.dtype) -> Decoder:
    """A Llama of random weights on the device, as ``load_model`` would give it."""
    shape = bench.shape
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )
    with torch.device(bench.device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        )
    model = model.eval().requires_grad_(False)
    generator = torch.Generator(bench.device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.02, generator=generator)
        else:
            parameter.fill_(1)
    folder = bench.scratch / f"model-{dtype}"  # what a fingerprint is made of
    config.save_pretrained(folder)
    path = locate_blocks(model, config)
    blocks = model.get_submodule(path)
    return Decoder(
        name="random Llama",
        model=model,
        tokenizer=byte_tokenizer(),
        source=Source("random Llama", folder),
        blocks=blocks,
        blocks_path=path,
        norm_path=find_final_norm(model, path),
        head=find_head(model),
        placement=Resident(model, path),
        input_name=find_input_name(blocks),
    )


def byte_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A token a byte."""
    special = ["<begin>", "<end>"]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: number for number, token in enumerate(special + alphabet)}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=tokens, merges=[]))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=special[0], eos_token=special[1]
    )


@torch.no_grad()
def block_rate(bench: Bench, decoder: Decoder) -> float:
    """Operations a second of a block's own matrix products, at the loop's batch of tokens."""
    weights = [m.weight for m in decoder.blocks[0].modules() if isinstance(m, torch.nn.Linear)]
    tokens = bench.shape.loop_tokens
    inputs = {
        w.shape[1]: torch.randn(tokens, w.shape[1], device=w.device, dtype=w.dtype) for w in weights
    }

    def once() -> None:
        for weight in weights:
            functional.linear(inputs[weight.shape[1]], weight)

    once()
    seconds, _ = timed(bench, lambda: [once() for _ in range(10)])
    return 10 * 2 * tokens * sum(w.numel() for w in weights) / seconds


def make_questions(shape: Shape, kind: str) -> list[EncodedQuestion]:
    """Random tokens as questions of four options: 5-shot letters, or short texts."""
    draw = np.random.default_rng(0)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw.integers(2, shape.vocabulary, draw.integers(least, most + 1)).tolist())

    if kind == "letters":
        labels = tuple((label,) for label in draw.permutation(shape.vocabulary)[:4].tolist())
        shots = [tokens(shape.shot_tokens, shape.shot_tokens) for _ in range(shape.subjects)]
        each = shape.letters // shape.subjects
        return [
            EncodedQuestion((0, *shot, *tokens(*shape.question_tokens)), labels, (1,) * 4)
            for shot in shots
            for _ in range(each)
        ]
    return [
        EncodedQuestion(
            (0, *tokens(*shape.context_tokens)),
            tuple(tokens(*shape.option_tokens) for _ in range(4)),
            (1,) * 4,
        )
        for _ in range(shape.texts)
    ]


def case(bench: Bench, kind: str) -> None:
    """A trace, a pruning step, and the loop on the same questions."""
    decoder, vocabulary = bench.model(), kind == "texts"
    questions = make_questions(bench.shape, kind)
    ceiling = bench.ceilings.get(dtype_name(decoder))
    live, blocks = range(len(decoder.blocks)), len(decoder.blocks)
    began = time.monotonic()
    whole = bench.left()
    while True:  # until a step fits into the time
        rows = lay_out(decoder, questions)
        reads = sum(shard.reads for shard in rows.shards)
        bench.note(
            questions=len(questions),
            tokens=rows.tokens,
            padding=1 - rows.tokens / rows.padded_tokens,
            reads=reads,
            shards=len(rows.shards),
        )
        with peak_memory(bench, "trace"):
            cold, _ = timed(
                bench,
                lambda rows=rows: trace_scores(decoder, rows, vocabulary, progress=bench.tick),
            )
            warm, traced = timed(
                bench,
                lambda rows=rows: trace_scores(decoder, rows, vocabulary, progress=bench.tick),
            )
        done = operations(decoder, rows, vocabulary, blocks - 1, 1, (blocks + 1) * reads)
        bench.note(
            trace_seconds=warm,
            trace_first_seconds=cold,
            trace_tokens_per_second=rows.tokens / warm,
            trace_share_of_ceiling=ceiling and done / warm / ceiling,
        )
        bench.traced[kind] = traced
        expected = warm * (blocks + 1) / 2
        limit = time.monotonic() + 0.6 * bench.left()
        if expected < 0.25 * whole or len(questions) < 4:
            try:
                with peak_memory(bench, "step"):
                    first, sweep = timed(
                        bench,
                        lambda rows=rows, limit=limit: sweep_scores(
                            decoder, rows, vocabulary, live, progress=until(bench, limit)
                        ),
                    )
                break
            except OutOfTime:
                if len(questions) < 4 or bench.left() < 0.2 * whole:
                    raise
        questions = questions[: len(questions) // 2]  # whole subjects, of letters
        bench.note(fewer_questions=f"a step on more than {len(questions)} would take too long")
    second = first
    if 1.5 * first < 0.5 * bench.left():
        second, sweep = timed(
            bench, lambda: sweep_scores(decoder, rows, vocabulary, live, progress=bench.tick)
        )
    else:
        bench.note(step_once="the step was timed once, unwarmed, as time was short")
    passes = sweep.block_passes
    done = operations(decoder, rows, vocabulary, passes - blocks, blocks, blocks * reads)
    bench.note(
        step_seconds=second,
        step_first_seconds=first,
        block_passes=passes,
        step_tokens_per_second=rows.tokens * passes / blocks / second,
        step_tflops=done / second / 1e12,
        step_share_of_ceiling=ceiling and done / second / ceiling,
    )
    bench.save()
    loop_beside(bench, questions, kind, sweep.scores, traced[:, -1], second)
    next_step(bench, decoder, rows, vocabulary, second)
    bench.note(case_seconds=time.monotonic() - began)


def lay_out(decoder: Decoder, questions: Sequence[EncodedQuestion]) -> Rows:
    """As ``prepare`` lays out a task's questions."""
    return make_rows(
        questions,
        batch_tokens(decoder),
        decoder.device,
        probe.packed_length(decoder),
        None,
        shard_tokens(decoder),
    )


def until(bench: Bench, limit: float) -> Callable[..., None]:
    def tick(*unused) -> None:
        bench.tick()
        if time.monotonic() > limit:
            raise OutOfTime

    return tick


@dataclass(frozen=True)
class LoopBatch:
    """Padded rows, and of each scored token its row, place, id and (question, option) slot."""

    ids: torch.Tensor
    row: torch.Tensor
    place: torch.Tensor
    token: torch.Tensor
    slot: torch.Tensor


def loop_batches(questions, kind: str, most: int, device: torch.device) -> list[LoopBatch]:
    """The loop's rows in batches of at most so many tokens; a row an option for texts."""
    rows = []
    for number, question in enumerate(questions):
        put = [(question.context + c[:-1], [c]) for c in question.continuations]
        if kind == "letters":
            put = [(question.context, question.continuations)]
        slots = iter(range(4 * number, 4 * number + 4))
        rows += [(tokens, [(ending, next(slots)) for ending in endings]) for tokens, endings in put]
    rows.sort(key=lambda row: -len(row[0]))
    batches = []
    while rows:
        width = len(rows[0][0])
        part, rows = rows[: max(1, most // width)], rows[max(1, most // width) :]
        ids = [list(tokens) + [0] * (width - len(tokens)) for tokens, _ in part]
        scored = [
            (row, len(tokens) - len(ending) + place, token, slot)
            for row, (tokens, endings) in enumerate(part)
            for ending, slot in endings
            for place, token in enumerate(ending)
        ]
        columns = (torch.tensor(column, device=device) for column in zip(*scored, strict=True))
        batches.append(LoopBatch(torch.tensor(ids, device=device), *columns))
    return batches


@torch.no_grad()
def loop_scores(
    bench: Bench, decoder: Decoder, batches: Sequence[LoopBatch], kind: str, count: int
) -> np.ndarray:
    """``[Q, 4]`` scores of the model as it is, the peers' way."""
    sums = torch.zeros(4 * count, dtype=torch.float64, device=decoder.device)
    for batch in batches:
        logits = decoder.model(input_ids=batch.ids, use_cache=False).logits
        if kind == "texts":
            logits = logits.log_softmax(-1, dtype=torch.float32)
        sums.index_add_(0, batch.slot, logits[batch.row, batch.place, batch.token].double())
        del logits
        bench.tick()
    return sums.cpu().numpy().reshape(count, 4)


def loop_beside(
    bench: Bench, questions, kind: str, ours: np.ndarray, ours_full: np.ndarray, step: float
) -> None:
    """Time the loop on as many candidates as there is time for, and hold its scores against ours.

    Args:
        bench: the run.
        questions: the same that were swept.
        kind: ``letters`` or ``texts``.
        ours: ``[n, Q, 4]`` scores of the candidates.
        ours_full: ``[Q, 4]`` scores of the whole model.
        step: our seconds for all candidates.
    """
    decoder, most = bench.model(), bench.shape.loop_tokens
    blocks, count = len(decoder.blocks), len(questions)
    run_until = time.monotonic() + 0.8 * bench.left()
    with peak_memory(bench, "loop"):
        while True:
            batches = loop_batches(questions, kind, most, bench.device)
            try:  # not timed: all shapes once, and the whole model's scores
                full = loop_scores(bench, decoder, batches, kind, count)
                break
            except torch.OutOfMemoryError:
                if most < 512:
                    raise
            most //= 2
            clean(bench)
        tokens = sum(batch.ids.numel() for batch in batches)
        bench.note(loop_tokens=tokens, loop_batch_tokens=most)
        seconds, found = {}, {}
        # The middle one first, then ever finer parts, so that any number of them is spread evenly.
        order = sorted(range(blocks), key=lambda n: (format(n, "010b")[::-1], n))[::-1]
        for candidate in order:
            last = max(seconds.values(), default=0.0)
            if len(seconds) > 1 and time.monotonic() + last > run_until:
                break
            with skipped_blocks(decoder, {candidate}):
                seconds[candidate], found[candidate] = timed(
                    bench, lambda: loop_scores(bench, decoder, batches, kind, count)
                )
    each = float(np.mean(list(seconds.values())))
    lengths = np.array([[len(c) for c in q.continuations] for q in questions])
    off = {c: np.abs(ours - scores).mean(axis=(1, 2)) for c, scores in found.items()}
    worst = max(float((np.abs(ours[c] - s) / lengths).max()) for c, s in found.items())
    middle = float(np.mean([(np.abs(ours[c] - s) / lengths).mean() for c, s in found.items()]))
    apart = float(
        np.mean(
            [
                (np.abs(ours - s) / lengths)
                .mean(axis=(1, 2))[[n for n in range(blocks) if n != c]]
                .mean()
                for c, s in found.items()
            ]
        )
    )
    tolerance = TOLERANCE[dtype_name(decoder)]
    nearest = sum(int(distances.argmin()) == c for c, distances in off.items())
    full_off = float((np.abs(ours_full - full) / lengths).max())
    ceiling = bench.ceilings.get(dtype_name(decoder))
    done = loop_operations(decoder, batches)
    bench.note(
        loop_candidates_timed=len(seconds),
        loop_seconds_per_candidate=each,
        loop_seconds=each * blocks,
        loop_scaled=len(seconds) < blocks,
        loop_tokens_per_second=tokens / each,
        loop_share_of_ceiling=ceiling and done / each / ceiling,
        ratio=each * blocks / step,
        largest_difference_per_token=worst,
        mean_difference_per_token=middle,
        mean_difference_to_other_candidates=apart,
        full_model_difference_per_token=full_off,
        tolerance_per_token=tolerance,
        nearest_is_the_same=f"{nearest} of {len(found)}",
        agree=bool(max(worst, full_off) <= tolerance and nearest == len(found)),
    )
    bench.save()


def loop_operations(decoder: Decoder, batches: Sequence[LoopBatch]) -> float:
    """Of the matrix products of a candidate of the loop."""
    linears = [m for m in decoder.blocks[0].modules() if isinstance(m, torch.nn.Linear)]
    a_token = sum(2 * m.weight.numel() for m in linears)
    total = 0
    for batch in batches:
        rows, length = batch.ids.shape
        attention = 4 * decoder.width * rows * length * (length + 1) // 2
        total += (len(decoder.blocks) - 1) * (rows * length * a_token + attention)
        total += rows * length * 2 * decoder.head.weight.numel()
    return float(total)


def next_step(bench: Bench, decoder: Decoder, rows: Rows, vocabulary: bool, step: float) -> None:
    """A second step that begins with states kept from the first; the block removed is late."""
    if 2.5 * step > bench.left():
        bench.note(second_step_left_out="time was short")
        return
    live = list(range(len(decoder.blocks)))
    kept = Kept(kept_budget(decoder, rows))
    with peak_memory(bench, "kept"):
        sweep_scores(decoder, rows, vocabulary, live, kept=kept, progress=bench.tick)
        del live[3 * len(live) // 4]
        seconds, sweep = timed(
            bench,
            lambda: sweep_scores(decoder, rows, vocabulary, live, kept=kept, progress=bench.tick),
        )
    bench.note(second_step_seconds=seconds, second_step_block_passes=sweep.block_passes)


def prune_two(bench: Bench) -> None:
    """``phaseprune.prune`` by two steps, as a user calls it, on generated texts."""
    decoder, draw = bench.model(), np.random.default_rng(1)

    def words(least: int, most: int) -> str:
        lengths = draw.integers(2, 8, draw.integers(least, most + 1))
        return " ".join("".join(map(chr, draw.integers(97, 123, length))) for length in lengths)

    count = bench.shape.prune_questions
    lines = [
        {
            "question": words(5, 9),
            "choices": [f"{o} {words(1, 2)}" for o in "wxyz"],
            "answer": int(draw.integers(4)),
        }
        for _ in range(count)
    ]
    path = bench.scratch / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    task = phaseprune.load_task(str(path), scoring="text")
    with peak_memory(bench, "prune"):
        seconds, pruning = timed(
            bench,
            lambda: phaseprune.prune(
                decoder, task, remove=2, calibration=count // 2, progress=bench.tick
            ),
        )
    bench.note(
        prune_seconds=seconds,
        removed=pruning.removed,
        step_seconds=[step.seconds for step in pruning.steps[1:]],
        step_block_passes=[step.block_passes for step in pruning.steps[1:]],
    )


def half_precision(bench: Bench) -> None:
    """The same weights in float16: a trace with the head read, held against the one before."""
    decoder = bench.model()
    for parameter in decoder.model.parameters():  # buffers stay as they are
        parameter.data = parameter.data.to(torch.float16)
    decoder.packed_length = None
    before, bench.decoder = bench.traced.get("texts"), None  # no later section should take it
    questions = make_questions(bench.shape, "texts")
    if before is not None:
        questions = questions[: len(before)]
    rows = lay_out(decoder, questions)
    bench.note(packed=decoder.packed_length > 0, questions=len(questions))
    with peak_memory(bench, "trace"):
        seconds = [
            timed(bench, lambda: trace_scores(decoder, rows, True, progress=bench.tick))
            for _ in range(2)
        ]
    bench.note(
        trace_seconds=seconds[1][0],
        trace_first_seconds=seconds[0][0],
        trace_tokens_per_second=rows.tokens / seconds[1][0],
    )
    if before is not None:
        lengths = np.array([[len(c) for c in q.continuations] for q in questions])
        off = np.abs(seconds[1][1] - before) / lengths[:, None]
        bench.note(
            difference_per_token=float(off.max()), agree=bool(off.max() <= TOLERANCE["bfloat16"])
        )


def demo(bench: Bench) -> None:
    """The bundled model through the public API on the device, and what the processor says."""
    device = str(bench.device)
    task = phaseprune.load_task("demo", limit=60)
    few = phaseprune.load_task("demo", limit=16)
    here = phaseprune.load_model("demo", device="cpu")
    there = phaseprune.load_model("demo", device=device, dtype="float32")
    folder = bench.scratch
    tick = bench.tick

    def same_trace() -> str:
        ours, theirs = (
            phaseprune.trace(m, task, progress=tick).decision_margin.mean for m in (there, here)
        )
        off = float(np.abs(ours - theirs).max())
        assert off < 1e-3, f"margins differ by {off}"
        return f"margins as on the processor to {off:.1e}"

    def same_blocks() -> str:
        ours, theirs = (
            phaseprune.prune(m, task, remove=2, calibration=24, progress=tick).removed
            for m in (there, here)
        )
        assert ours == theirs, f"{ours} removed, on the processor {theirs}"
        return f"{ours} removed, as on the processor"

    def exported() -> str:
        found = phaseprune.export(there, [10, 11], folder / "export")
        return f"max |difference of logits| {found.max_abs_logit_difference:.1e}"

    def run_directory() -> str:
        pruning = phaseprune.prune(there, task, remove=2, calibration=24, out=folder / "run")
        again = phaseprune.prune(there, task, remove=2, calibration=24, out=folder / "run")
        assert again.state == "finished" and again.removed == pruning.removed
        return "written and read"

    def by_method(name: str) -> Callable[[], Any]:
        text = Path(phaseprune.__file__).parent / "demo" / "text.txt"
        on = text if name in ("sleb", "taylor") else few
        return lambda: phaseprune.rank_blocks(there, on, method=name, remove=2, progress=tick)

    def loaded(task, **options) -> Callable[[], Any]:
        return lambda: phaseprune.trace(
            phaseprune.load_model("demo", device=device, **options), task, progress=tick
        )

    calls: dict[str, Callable[[], Any]] = {
        "trace, letters": same_trace,
        "prune": same_blocks,
        "export": exported,
    }
    guard = phaseprune.Guard(windows=4, prompts=4, tokens=8)
    more: dict[str, Callable[[], Any]] = {
        "trace, texts": loaded(phaseprune.load_task("demo", limit=16, scoring="text")),
        "trace, bfloat16": loaded(task, dtype="bfloat16"),
        "trace, float16": loaded(task, dtype="float16"),
        "trace, streamed": loaded(few, stream=True, dtype="float32"),
        "trace, with a budget": loaded(few, max_memory="2GB", dtype="float32"),
        "trace, tuned lens": lambda: phaseprune.trace(there, task, lens="tuned", progress=tick),
        "prune, racing": lambda: phaseprune.prune(
            there, task, remove=2, calibration=32, search="racing", progress=tick
        ),
        "prune, guarded": lambda: phaseprune.prune(
            there, few, remove=1, calibration=8, guard=guard, progress=tick
        ),
        "prune, halves": lambda: phaseprune.prune(
            there, few, remove=1, calibration=8, granularity="sublayer", progress=tick
        ),
        "run directory": run_directory,
        "plan": lambda: phaseprune.plan(there, task, progress=tick),
        "perturb": lambda: phaseprune.perturb(
            there, few, noise=[0.1], noise_seeds=1, progress=tick
        ),
        "ablate": lambda: phaseprune.ablate(there, task, calibration=24, progress=tick),
        "similarity": lambda: phaseprune.similarity(there, task, remove=[11], progress=tick),
        "block influence": by_method("block_influence"),
        "CKA": by_method("cka"),
        "LaCo": by_method("laco"),
        "Taylor": by_method("taylor"),
        "saving": lambda: phaseprune.measure_saving(
            there, folder / "export", repeats=2, new_tokens=8
        ),
    }
    if find_spec("peft"):
        more["heal"] = lambda: phaseprune.heal(
            folder / "run", device=device, steps=4, progress=tick
        )
    if find_spec("accelerate") and not bench.tiny:
        more["trace, map"] = lambda: phaseprune.trace(
            phaseprune.load_model("demo", device="map"), few, progress=tick
        )
    outcomes: dict[str, dict[str, Any]] = {}
    for name, call in (calls if bench.tiny else calls | more).items():
        if bench.left() < 1:
            outcomes[name] = {"status": "left out", "why": "time was short"}
            continue
        try:
            seconds, said = timed(bench, call)
            outcomes[name] = {"status": "done", "seconds": seconds}
            outcomes[name] |= {"found": said} if isinstance(said, str) else {}
        except OutOfTime:
            outcomes[name] = {"status": "left out", "why": "time was over"}
        except Exception:  # noqa: BLE001 - the next call may well do
            outcomes[name] = {"status": "failed", "error": traceback.format_exc()}
            print(outcomes[name]["error"], flush=True)
        told = {k: v for k, v in outcomes[name].items() if k != "error"}
        print(f"  {name}: {', '.join(shown(value) for value in told.values())}", flush=True)
        bench.here["calls"] = outcomes
        bench.save()


@torch.no_grad()
def attention_kernels(bench: Bench) -> None:
    """Attention of packed rows by torch's kernels, the first call of a shape and later ones.

    The engine leaves cuDNN out, which plans for each shape anew.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shape, kinds = bench.shape, (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION)
    size = shape.width // shape.heads
    for kind in kinds:
        firsts, laters = [], []
        for streams, units, asking, trunk in ((2, 8, 96, 520), (3, 8, 96, 520), (4, 40, 60, 0)):
            keys = trunk + asking
            query, key, value = (
                torch.randn(
                    streams, heads, units, length, size, device=bench.device, dtype=torch.bfloat16
                )
                for heads, length in (
                    (shape.heads, asking),
                    (shape.key_heads, keys),
                    (shape.key_heads, keys),
                )
            )
            mask = torch.zeros(1, units, asking, keys, device=bench.device, dtype=torch.bfloat16)

            def once(given=(query, key, value, mask)) -> None:
                _plain_attention(*given, size**-0.5)

            try:
                with sdpa_kernel(kind):
                    firsts.append(timed(bench, once)[0])
                    many = timed(bench, lambda once=once: [once() for _ in range(10)])
                    laters.append(many[0] / 10)
            except RuntimeError as error:
                bench.note(**{f"{kind.name.lower()}_refused": str(error)[:300]})
                break
        bench.note(
            **{
                f"{kind.name.lower()}_first_ms": [1e3 * s for s in firsts],
                f"{kind.name.lower()}_later_ms": [1e3 * s for s in laters],
            }
        )


# What is shown.


def shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def markdown(found: dict[str, Any]) -> str:
    """The figures as text and tables, for ``RESULTS.md``."""
    by_name = found["sections"]
    figures = {name: entry["figures"] for name, entry in by_name.items()}
    on, shape = figures.get("machine", {}), found["shape"]
    ceilings = ", ".join(
        f"{shown(value)} TFLOP/s in {name.rpartition('_')[2]}"
        for name, value in on.items()
        if name.startswith("ceiling")
    )
    lines = [
        "## `python benchmarks/gpu.py`" + (" --tiny" if found["tiny"] else ""),
        "",
        f"{on.get('device', '?')}, torch {on.get('torch', '?')}, transformers "
        f"{on.get('transformers', '?')}. A random Llama of {shape['blocks']} blocks, width "
        f"{shape['width']}, MLP {shape['inner']}, {shape['heads']} heads, {shape['key_heads']} key "
        f"heads, vocabulary {shape['vocabulary']}. A product of two matrices of "
        f"{shape['product']} x {shape['product']}: {ceilings or 'not measured'}.",
        "",
        "| case | questions | tokens, ours | tokens, loop | trace | tokens/s | one step | block "
        "passes | tokens/s | share of the ceiling | loop, a candidate | loop, all | **ratio** | "
        "max difference a token (allowed) | peak GB (reserved) |",
        "|" + "---|" * 15,
    ]
    for name, at in figures.items():
        if not name.startswith(("letters", "texts")):
            continue

        def get(key: str, at=at) -> str:
            value = at.get(key)
            return "–" if value is None else shown(value)

        part = f"timed on {get('loop_candidates_timed')} of {shape['blocks']}"
        cells = [
            name,
            get("questions"),
            get("tokens"),
            get("loop_tokens"),
            f"{get('trace_seconds')} s",
            get("trace_tokens_per_second"),
            f"{get('step_seconds')} s",
            get("block_passes"),
            get("step_tokens_per_second"),
            get("step_share_of_ceiling"),
            f"{get('loop_seconds_per_candidate')} s",
            f"{get('loop_seconds')} s ({part})",
            f"**{get('ratio')}**",
            f"{get('largest_difference_per_token')} ({get('tolerance_per_token')})",
            f"{get('step_peak_gb')} ({get('step_reserved_gb')})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "tokens/s: tokens through the whole model; of a step, tokens x block passes / "
        "blocks. Share of the ceiling: operations of the matrix products that were run, over "
        "the time, over the large product's rate.",
        "",
    ]
    for name, entry in by_name.items():
        if name == "machine" or name.startswith(("letters", "texts")):
            told = []
        else:
            told = [
                f"{key} {shown(value)}"
                for key, value in entry["figures"].items()
                if value is not None and key not in ("calls", "why_not_packed")
            ]
        why = f" ({entry['why']})" if "why" in entry else ""
        took = f", {entry['seconds']:.0f} s" if "seconds" in entry else ""
        lines.append(f"- {name}: {entry['status']}{why}{took}" + "".join(f"; {t}" for t in told))
        for call, outcome in entry["figures"].get("calls", {}).items():
            said = outcome.get("found") or outcome.get("why") or ""
            lines.append(f"  - {call}: {outcome['status']}{said and f', {said}'}")
    if found.get("ended_in_the_middle"):
        lines.append("- ended in the middle of a section, as the time was over")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
