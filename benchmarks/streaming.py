"""A model larger than the memory it may take: peak memory, bytes read, and the same scores.

Makes a large random Llama on disk, runs a trace, one pruning step and an export of it in child
processes under ``/usr/bin/time -v`` with ``stream`` and a budget of a quarter of its weights, and
the trace and the step again with all weights in memory.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BLOCKS, WIDTH, INNER, VOCABULARY, HEADS = 24, 1024, 4096, 2000, 16
BUDGET = 400 * 10**6
#: What the interpreter, torch and transformers take by themselves.
BASELINE = 500 * 10**6
SHARD_BLOCKS = 4
QUESTIONS = [
    ("which of these can be seen at night", ["the moon", "a shadow at noon", "a rainbow", "noon"]),
    ("what do bees make", ["honey", "silk", "paper money", "glass"]),
    ("which one is the largest", ["an ocean", "a lake", "a pond", "a glass of water"]),
    ("what falls from clouds", ["rain", "sand", "leaves of trees", "coal"]),
    ("what is used to cut bread", ["a knife", "a spoon", "a cup", "a plate of glass"]),
    ("which animal lays eggs", ["a hen", "a horse", "a dog", "a cat"]),
    ("what melts in the sun", ["snow", "a stone", "a knife", "coal"]),
    ("where do fish live", ["in water", "in clouds", "in trees", "in paper"]),
]


def make_model(directory: Path) -> int:
    """Write a random Llama, a few blocks a file, and a tokenizer of words. Returns the bytes."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    directory.mkdir(parents=True)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        bos_token_id=0,
        eos_token_id=1,
    )
    config.save_pretrained(directory)
    words = " ".join(
        [
            "Question: Answer: <eos> A. B. C. D.",
            *(" ".join([question, *options]) for question, options in QUESTIONS),
        ]
    )
    known = sorted(set(re.findall(r"\w+|[^\w\s]+", words)))
    vocabulary = {word: number for number, word in enumerate(["<unk>", *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<unk>")
    wrapped.save_pretrained(directory)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5

    def block(number: int) -> dict[str, torch.Tensor]:
        before = f"model.layers.{number}."
        shapes = {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in "qkvo"}
        shapes |= {
            "mlp.gate_proj": (INNER, WIDTH),
            "mlp.up_proj": (INNER, WIDTH),
            "mlp.down_proj": (WIDTH, INNER),
        }
        norms = ("input_layernorm", "post_attention_layernorm")
        return {f"{before}{name}.weight": random(*shape) for name, shape in shapes.items()} | {
            f"{before}{name}.weight": torch.ones(WIDTH) for name in norms
        }

    weight_map, total = {}, 0
    for first in range(0, BLOCKS, SHARD_BLOCKS):
        tensors = {}
        for number in range(first, min(first + SHARD_BLOCKS, BLOCKS)):
            tensors |= block(number)
        if first == 0:
            tensors |= {
                "model.embed_tokens.weight": random(VOCABULARY, WIDTH),
                "lm_head.weight": random(VOCABULARY, WIDTH),
                "model.norm.weight": torch.ones(WIDTH),
            }
        name = f"model-{first // SHARD_BLOCKS + 1:05d}.safetensors"
        save_file(tensors, directory / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    rows = [
        {"question": q, "choices": c[n % 4 :] + c[: n % 4], "answer": -n % 4}
        for n, (q, c) in enumerate(QUESTIONS)
    ]
    (directory.parent / "questions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return total


def child(what: str, folder: Path, stream: bool) -> None:
    """One run in a process of its own; prints what it read as JSON."""
    from phaseprune import export, load_model, load_task
    from phaseprune.pruning.prune import prune
    from phaseprune.sweep import recorded, units
    from phaseprune.sweep.trace import trace

    parts: list[dict] = []
    began = time.perf_counter()
    task = load_task(str(folder / "questions.jsonl"), scoring="text")
    decoder = load_model(
        str(folder / "model"), device="cpu", stream=stream, max_memory=BUDGET if stream else None
    )

    def counted(name, function):
        def count(*args, **kwargs):
            before, read, start = _counters(decoder), len(_reads(decoder)), time.perf_counter()
            result = function(*args, **kwargs)
            after = _counters(decoder)
            parts.append(
                {
                    "part": name,
                    "seconds": round(time.perf_counter() - start, 1),
                    "blocks_read": _reads(decoder)[read:],
                    "bytes": after[0] - before[0],
                    "rchar": after[1] - before[1],
                }
            )
            return result

        return count

    parts.append(
        {
            "part": "load",
            "seconds": round(time.perf_counter() - began, 1),
            "blocks_read": list(_reads(decoder)),
            "bytes": _counters(decoder)[0],
            "rchar": _counters(decoder)[1],
        }
    )
    recorded.trace_scores = counted("trace", recorded.trace_scores)
    units.sweep_scores = counted("sweep of a step", units.sweep_scores)
    units.trace_scores = counted("trace inside of the search", units.trace_scores)
    out = folder / f"{what}-{'streamed' if stream else 'resident'}"
    result = {}
    if what == "trace":
        trace(decoder, task, out=out)
    elif what == "prune":
        prune(decoder, task, remove=1, calibration=2, evaluation=6, out=out)
    else:
        result = counted("export", export)(decoder, [BLOCKS // 2], out).to_dict()
    print(json.dumps({"parts": parts, "held": decoder.weight_bytes, "export": result}))


def _reads(decoder) -> list[int]:
    return getattr(decoder.placement, "reads", [])


def _counters(decoder) -> tuple[int, int]:
    """Bytes that our reader read, and those that the kernel counts for this process."""
    kernel = int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])
    return 0 if decoder.placement.in_place else decoder.placement.reader.bytes_read, kernel


def measured(what: str, folder: Path, stream: bool) -> dict:
    """Run a child under ``/usr/bin/time -v``."""
    words = [sys.executable, __file__, "--child", what, "--folder", str(folder)]
    run = subprocess.run(
        ["/usr/bin/time", "-v", *words, *(["--streamed"] if stream else [])],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise SystemExit(run.stderr)
    peak = int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", run.stderr)[1]) * 1024
    return json.loads(run.stdout.splitlines()[-1]) | {"peak": peak}


def difference(folder: Path, what: str) -> float:
    """Max |difference| of the scores of the streamed and the resident run."""
    import numpy as np
    import pyarrow.parquet as parquet

    one, two = folder / f"{what}-streamed", folder / f"{what}-resident"
    tables = [parquet.read_table(d / "scores.parquet")["score"].to_numpy() for d in (one, two)]
    most = float(np.nanmax(np.abs(tables[0] - tables[1])))
    if what == "prune":
        lines = [
            [json.loads(line) for line in (d / "candidates.jsonl").read_text().splitlines()]
            for d in (one, two)
        ]
        for a, b in zip(*lines, strict=True):
            assert a["block"] == b["block"]
            most = max(most, *(abs(a[k] - b[k]) for k in ("decision_margin", "loss", "accuracy")))
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="Work here and keep it; else a temporary one.")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--streamed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child, options.folder, options.streamed)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="phaseprune-streaming-"))
    try:
        compare(folder)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


def compare(folder: Path) -> None:
    """Make the model, run everything, print it, and fail where a claim does not hold."""
    if not (folder / "model").is_dir():
        make_model(folder / "model")
    total = sum(path.stat().st_size for path in (folder / "model").glob("*.safetensors"))
    print(f"weights {total / 1e6:,.0f} MB, budget {BUDGET / 1e6:,.0f} MB ({total / BUDGET:.1f} x)")
    assert total >= 4 * BUDGET
    failed = []
    for what in ("trace", "prune", "export"):
        for stream in (True, False) if what != "export" else (True,):
            shutil.rmtree(folder / f"{what}-{'streamed' if stream else 'resident'}", True)
            found = measured(what, folder, stream)
            kind = "streamed" if stream else "resident"
            print(
                f"{what}, {kind}: peak {found['peak'] / 1e6:,.0f} MB, of weights at most "
                f"{found['held'] / 1e6:,.0f} MB"
            )
            for part in found["parts"]:
                print(
                    f"  {part['part']}: {part['seconds']} s, {len(part['blocks_read'])} blocks, "
                    f"{part['bytes'] / total:.3f} copies of the weights read (the kernel counts "
                    f"{part['rchar'] / total:.3f})"
                )
            if stream and found["peak"] > BUDGET + BASELINE:
                failed.append(f"peak of {what}")
            for part in found["parts"]:
                if stream and part["part"] in ("trace", "sweep of a step"):
                    wrong = part["blocks_read"] != list(range(BLOCKS)) or part["bytes"] > total
                    failed += [f"reads of {part['part']}"] if wrong else []
        if what != "export":
            most = difference(folder, what)
            print(f"{what}: max |difference| of streamed and resident scores {most:.2g}")
            failed += [f"scores of {what}"] if most > 1e-5 else []
    if found["export"]:
        print(f"export: max |Δ logits| {found['export']['max_abs_logit_difference']:.2g}")
    if failed:
        raise SystemExit("not as claimed: " + ", ".join(failed))


if __name__ == "__main__":
    main()
