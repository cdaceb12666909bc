"""``benchmarks/gpu.py``: its trial of itself on the processor, and what it does in trouble."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
CASE = {
    "questions",
    "tokens",
    "reads",
    "trace_seconds",
    "trace_tokens_per_second",
    "trace_share_of_ceiling",
    "trace_peak_gb",
    "trace_reserved_gb",
    "step_seconds",
    "step_first_seconds",
    "block_passes",
    "step_tokens_per_second",
    "step_tflops",
    "step_share_of_ceiling",
    "step_peak_gb",
    "step_reserved_gb",
    "loop_tokens",
    "loop_candidates_timed",
    "loop_seconds_per_candidate",
    "loop_seconds",
    "loop_scaled",
    "loop_tokens_per_second",
    "loop_share_of_ceiling",
    "loop_peak_gb",
    "ratio",
    "largest_difference_per_token",
    "tolerance_per_token",
    "agree",
}


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    return gpu


@pytest.mark.slow
def test_the_trial_on_the_processor_has_every_figure(tmp_path):
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--out", str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    sections = found["sections"]
    assert {name: entry["status"] for name, entry in sections.items()} == dict.fromkeys(
        sections, "done"
    ), done.stdout
    for dtype in ("float32", "bfloat16"):
        assert sections["machine"]["figures"][f"ceiling_tflops_{dtype}"] > 0
        model = sections[f"model {dtype}"]["figures"]
        assert model["packed"] and model["reads_alone"]
        for kind in ("letters", "texts"):
            figures = sections[f"{kind} {dtype}"]["figures"]
            assert set(figures) >= CASE
            assert figures["agree"] and figures["ratio"] > 0
            assert figures["loop_candidates_timed"] == 4 and figures["block_passes"] == 10
            assert figures["second_step_block_passes"] < 6
        assert len(sections[f"prune {dtype}"]["figures"]["removed"]) == 2
    assert sections["float16"]["figures"]["agree"]
    calls = sections["demo"]["figures"]["calls"]
    assert calls and all(outcome["status"] == "done" for outcome in calls.values()), calls
    page = (tmp_path / "gpu.md").read_text()
    assert page.startswith("## `python benchmarks/gpu.py` --tiny") and page.count("| **") == 4 + 1


def make_bench(gpu, tmp_path, seconds=60.0):
    ends = time.monotonic() + seconds
    bench = gpu.Bench(gpu.TINY, torch.device("cpu"), tmp_path, tmp_path, ends, True, ends)
    bench.found |= {"tiny": True, "shape": asdict(gpu.TINY), "sections": {}}
    return bench


@pytest.mark.slow
def test_a_section_that_fails_is_recorded_and_the_next_goes_on(gpu, tmp_path, monkeypatch):
    def broken(bench):
        bench.note(before=1)
        raise RuntimeError("no such kernel")

    def slow(bench):
        bench.deadline = 0.0
        bench.tick()

    bench = make_bench(gpu, tmp_path)
    needs = ("needs a model", 1, lambda b: gpu.case(b, "letters"))
    plan = [("broken", 1, broken), ("slow", 1, slow), needs, ("fine", 1, lambda b: b.note(x=2))]
    monkeypatch.setattr(gpu, "sections", lambda bench: plan)
    gpu.run_all(bench)
    found = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert [entry["status"] for entry in found.values()] == ["failed", *["left out"] * 2, "done"]
    assert "no such kernel" in found["broken"]["error"]
    assert found["broken"]["figures"] == {"before": 1}
    assert found["needs a model"]["why"] == "the model was not made"
    assert found["fine"]["figures"] == {"x": 2}
    assert "- broken: failed" in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_a_step_that_takes_too_long_is_run_on_fewer_questions(gpu, tmp_path, monkeypatch):
    bench = make_bench(gpu, tmp_path)
    gpu.make_model(bench, "float32")
    sweep, counts = gpu.sweep_scores, []

    def slow(decoder, rows, *given, **options):
        counts.append(rows.shape[0])
        if rows.shape[0] > 4:
            raise gpu.OutOfTime
        return sweep(decoder, rows, *given, **options)

    monkeypatch.setattr(gpu, "sweep_scores", slow)
    bench.here = {}
    gpu.case(bench, "texts")
    assert counts[:2] == [8, 4] and bench.here["questions"] == 4
    assert "fewer_questions" in bench.here and bench.here["agree"]


@pytest.mark.slow
def test_a_loop_without_memory_takes_smaller_batches(gpu, tmp_path, monkeypatch):
    bench = make_bench(gpu, tmp_path)
    bench.shape = replace(gpu.TINY, loop_tokens=1024)
    gpu.make_model(bench, "float32")
    loop = gpu.loop_scores

    def tight(bench, decoder, batches, *given):
        if max(batch.ids.numel() for batch in batches) > 256:
            raise torch.OutOfMemoryError
        return loop(bench, decoder, batches, *given)

    monkeypatch.setattr(gpu, "loop_scores", tight)
    bench.here = {}
    gpu.case(bench, "letters")
    assert bench.here["loop_batch_tokens"] == 256 and bench.here["agree"]
