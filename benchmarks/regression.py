"""The same commands on two versions of phaseprune: do they compute the same?

    python benchmarks/regression.py REVISION [--only CASE …] [--kept DIR] [--tolerance 0]
    python benchmarks/regression.py --record DIR        (run this tree's cases and keep their files)

Runs every command on the bundled model and on three tiny random families, once with the sources of
REVISION and once with those of this tree, and compares what they wrote: JSON lines, Parquet
columns, configurations and tensors. What may differ is named in APART: times, versions, words.
A change that is meant to leave all figures alone is run through this before it is merged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Fields of a run's files that say how long, with what or in which words, and not what was found.
APART = {
    "seconds",
    "timings",
    "versions",
    "arguments",
    "search_seconds",
    "trace_seconds",
    "total_seconds",
    "reason",
    "in_words",
    "zeroed_in_words",
    "stopped_by",
    "resolution",
    "wall_seconds",
    "tokens_per_second",
    "times_as_fast",
    "fastness_range",
    "elapsed",
    "minutes",
    "weights_seconds",
}
LEFT_OUT = {"report.html", "README.md", "comparison.md", "lock"}

DEMO, QUESTIONS = "demo --task demo", "--task questions.jsonl"
SPLIT = "--calibration 24 --evaluation 40"
SMALL = "--calibration 10 --evaluation 14"
#: Name -> command line (without the program). Runs are in ``runs/NAME``; a case may go on from the
#: run of an earlier one.
CASES: dict[str, str] = {
    "trace-letter": f"trace {DEMO} --limit 80",
    "trace-text": f"trace {DEMO} --limit 40 --scoring text",
    "trace-text-bytes": f"trace {DEMO} --limit 20 --scoring text --length-norm bytes",
    "trace-vocabulary": f"trace {DEMO} --limit 30 --probability vocabulary",
    "trace-permuted": f"trace {DEMO} --limit 20 --permute",
    "trace-shots": f"trace {DEMO} --limit 20 --shots 2 --shot-order random "
    "--shots-from questions.jsonl --seed 3",
    "trace-tuned": f"trace {DEMO} --limit 60 --lens tuned --calibration 30",
    "plan": f"plan {DEMO} --limit 80",
    "prune": f"prune {DEMO} --remove 5 {SPLIT} --guard",
    "prune-stopped": f"prune {DEMO} --remove 5 {SPLIT} --no-export",
    "prune-keep": f"prune {DEMO} --keep-accuracy 0.9 {SPLIT} --seed 2 --protect 0,1",
    "prune-text": f"prune {DEMO} --remove 2 {SPLIT} --scoring text",
    "prune-debiased": f"prune {DEMO} --remove 3 {SPLIT} --objective debiased_margin "
    "--repair-labels",
    "prune-text-loss": f"prune {DEMO} --remove 2 {SPLIT} --objective text_loss --text plain.txt",
    "prune-racing": f"prune {DEMO} --remove 3 {SPLIT} --search racing --race-dtype own --no-export",
    "prune-decisive": f"prune {DEMO} --remove 2 {SPLIT} --among decisive --no-export",
    "prune-halves": f"prune {DEMO} --remove 3 {SPLIT} --granularity sublayer",
    "prune-attention": f"prune {DEMO} --remove 2 {SPLIT} --granularity attention --no-export",
    "prune-ranked": f"prune {DEMO} --remove 4 {SPLIT} --method block_influence",
    "prune-planned": f"prune {DEMO} --remove 3 {SPLIT} --method planned --no-export",
    "prune-taylor": f"prune {DEMO} --remove 2 {SPLIT} --method taylor --text plain.txt --no-export",
    "prune-beam": f"prune {DEMO} --remove 2 {SPLIT} --method beam --no-export",
    "prune-pairwise": f"prune {DEMO} --remove 2 {SPLIT} --method pairwise --no-export",
    "prune-evolution": f"prune {DEMO} --remove 2 {SPLIT} --method evolutionary --no-export",
    "prune-laco": f"prune {DEMO} --remove 2 {SPLIT} --method laco",
    "prune-tasks": f"prune demo --task demo,questions.jsonl --remove 3 {SMALL} --weights 2,1",
    "prune-worst": f"prune demo --task demo,questions.jsonl --remove 2 {SMALL} --combine worst",
    "export-step": "export runs/prune --step 2 --out runs/export-step",
    "export-blocks": "export demo --remove 9,11 --out runs/export-blocks",
    "phasewise": f"phasewise {DEMO} --draws 2 --most 2 {SPLIT} --protect 0",
    "perturb": f"perturb {DEMO} --limit 40 --noise 0.02,0.1 --noise-seeds 2",
    "ablate": f"ablate {DEMO} {SPLIT}",
    "similarity": f"similarity {DEMO} --limit 64 --remove 9,11",
    "similarity-run": f"similarity {DEMO} --run runs/prune",
    "compare": f"compare {DEMO} {SPLIT} --remove 2,4 --draws 3 --guard "
    "--methods decision_margin,block_influence,ppl,magnitude,random,tail",
    "heal": "heal runs/prune --steps 6 --batch 4 --check-every 3",
    "heal-ladder": "heal runs/prune --ladder 2,4 --steps 4 --batch 4 --method full",
    "paper": f"paper {DEMO} --config paper.yaml",
    "check": f"check {DEMO} --limit 20",
    "tasks": "tasks demo",
    "methods": "methods",
}
for family in ("llama", "gemma2", "gpt2"):
    CASES |= {
        f"{family}-trace": f"trace {family} {QUESTIONS}",
        f"{family}-trace-text": f"trace {family} {QUESTIONS} --scoring text",
        f"{family}-prune": f"prune {family} {QUESTIONS} --remove 3 {SMALL}",
        f"{family}-streamed": f"prune {family} {QUESTIONS} --remove 2 {SMALL} --stream",
        f"{family}-halves": f"prune {family} {QUESTIONS} --remove 2 {SMALL} --granularity mlp",
    }
CASES["llama-mapped"] = f"trace llama {QUESTIONS} --device map"
#: Cases whose runs are cut off after the second step and gone on with.
STOPPED = {"prune-stopped"}
PAPER = """
limit: 80
calibration: 16
evaluation: 40
remove: 4
probe: 20
noise: 0.02,0.1
noise_seeds: 1
draws: 2
most: 2
skip: heal
"""


def set_up(folder: Path) -> None:
    """Write the tiny models, questions and text that the cases name."""
    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import save_tiny

    for family in ("llama", "gemma2", "gpt2"):
        save_tiny(folder / family, family)
    demo = ROOT / "src" / "phaseprune" / "demo"
    rows = (demo / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "questions.jsonl").write_text("\n".join(rows[400:424]) + "\n", encoding="utf-8")
    text = (demo / "text.txt").read_text(encoding="utf-8")
    (folder / "plain.txt").write_text(text[:60_000], encoding="utf-8")
    (folder / "paper.yaml").write_text(PAPER, encoding="utf-8")


def run_cases(folder: Path, names: list[str]) -> None:
    """Run cases in a folder, in this process; what each prints as JSON is kept beside its run."""
    import contextlib
    import io

    from phaseprune.cli.main import main

    os.chdir(folder)
    for name in names:
        words = CASES[name].split()
        if words[0] not in ("export", "heal", "check", "tasks", "methods"):
            words += ["--out", f"runs/{name}"]
        if words[0] == "heal":
            words += ["--name", name]
        began = time.perf_counter()
        for half in (1, 2) if name in STOPPED else (2,):
            printed, said = io.StringIO(), io.StringIO()
            sys.argv = ["phaseprune", *words, "--json"]
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
                try:
                    main(sys.argv[1:])
                except SystemExit as ended:
                    code = ended.code or 0
            if half == 1:
                cut_off(Path("runs") / name)
        told = {"code": code, "printed": as_json(printed.getvalue())}
        if code:
            told["said"] = said.getvalue()
        Path(f"{name}.printed.json").write_text(json.dumps(told))
        print(f"  {name}: exit {code}, {time.perf_counter() - began:.1f} s", file=sys.stderr)


def cut_off(run: Path) -> None:
    """Leave a finished run as one that was killed in its third step."""
    for name, lines in (("steps.jsonl", 3), ("candidates.jsonl", 30)):
        path = run / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest |= {"status": "running", "result": None}
    (run / "manifest.json").write_text(json.dumps(manifest))


def as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def contents(folder: Path) -> dict[str, Any]:
    """What the cases wrote, by file, as plain values."""
    import pyarrow.parquet as pq

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.printed.json")):
        found[path.name] = json.loads(path.read_text())
    for path in sorted(path for path in (folder / "runs").rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.name in LEFT_OUT or path.name.startswith("."):
            continue
        if path.suffix == ".json":
            found[name] = json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            found[name] = [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".parquet":
            found[name] = pq.read_table(path).to_pydict()
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(before: Any, after: Any, tolerance: float, where: str = "") -> list[str]:
    """Where two plain values differ, as lines ``place: before, after``."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for key in sorted((before.keys() | after.keys()) - APART):
            place = f"{where}.{key}" if where else str(key)
            if key not in before or key not in after:
                found.append(f"{place}: only {'after' if key in after else 'before'}")
            else:
                found += differences(before[key], after[key], tolerance, place)
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [
            line
            for at, (one, other) in pairs
            for line in differences(one, other, tolerance, f"{where}[{at}]")
        ]
    if isinstance(before, float) and isinstance(after, float):
        if before == after or abs(before - after) <= tolerance * max(1, abs(before)):
            return []
    elif before == after:
        return []
    return [f"{where}: {str(before)[:60]}, {str(after)[:60]}"]


def record(source: Path, folder: Path, names: list[str]) -> dict[str, Any]:
    """Run cases with a tree's sources in a process of its own, and read what they wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--within", str(folder), "--only", *names]
    environment = os.environ | {"PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True)
    return contents(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", nargs="?", help="of git: the version to compare with")
    parser.add_argument("--only", nargs="*", choices=list(CASES), metavar="CASE")
    parser.add_argument("--kept", type=Path, help="files of an earlier --record, for REVISION's")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.0, help="of figures, relative")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.only or list(CASES)
    if options.within:
        set_up(options.within)
        run_cases(options.within, names)
        return
    if options.record:
        found = record(ROOT, options.record.resolve(), names)
        print(f"{len(found)} files in {options.record}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        if options.kept:
            before = contents(options.kept)
        else:
            tree = Path(scratch) / "tree"
            subprocess.run(
                ["git", "-C", ROOT, "worktree", "add", "--detach", tree, options.revision],
                check=True,
                capture_output=True,
            )
            try:
                before = record(tree, Path(scratch) / "before", names)
            finally:
                subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree])
        after = record(ROOT, Path(scratch) / "after", names)
    if options.only:
        before = {name: value for name, value in before.items() if name in after}
    found = differences(before, after, options.tolerance)
    for line in found[:200]:
        print(line)
    print(f"{len(names)} commands, {len(after)} files: {len(found)} differences")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
