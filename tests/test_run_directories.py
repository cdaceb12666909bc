"""Run directories: one process at a time, what a killed one leaves, and which model it was."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.resources import files
from pathlib import Path

import pytest

from conftest import QUESTIONS, save_tiny, write_jsonl
from phaseprune.cli.main import main
from phaseprune.comparison.compare import compare
from phaseprune.decoder.load import load_model
from phaseprune.decoder.source import find_source
from phaseprune.errors import UserError
from phaseprune.healing.heal import heal
from phaseprune.healing.ladder import heal_ladder
from phaseprune.methods.plan import plan
from phaseprune.probes.ablation import ablate
from phaseprune.probes.perturbation import perturb
from phaseprune.probes.phasewise import phasewise
from phaseprune.probes.similarity import similarity
from phaseprune.pruning.export_run import export_run, run_to_export
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.replication.paper import paper
from phaseprune.replication.settings import Settings
from phaseprune.report.page import write_report
from phaseprune.runs import lock as lock_module
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.leftovers import FILES, clear_leftovers, strangers
from phaseprune.sweep.trace import trace

OPTIONS = dict(remove=2, calibration=4)
HOLD = """
import sys, time
from pathlib import Path
from phaseprune.runs.directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def hold():
    """Lets another process work in a run directory until it is killed."""
    processes = []

    def begin(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield begin
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def task(tmp_path):
    """Enough questions for every command."""
    rows = [
        row | {"question": f"{row['question']} {word}", "id": f"{word}-{number}"}
        for word in ("sky", "grass", "snow", "coal", "A", "B")
        for number, row in enumerate(QUESTIONS)
    ]
    return load_task(str(write_jsonl(tmp_path / "questions.jsonl", rows)))


def training_file(folder):
    rows = [
        row | {"question": f"{row['question']} of it all {number}", "id": str(number)}
        for number, row in enumerate(QUESTIONS * 4)
    ]
    return write_jsonl(folder / "train.jsonl", rows)


def content(path):
    """Every file below a directory with what it holds."""
    return {
        str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()
    }


def command(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return ended.value.code or 0, " ".join(told.err.split())


# One process at a time

WORK = {
    "trace": lambda model, task, out: trace(model, task, out=out),
    "lens": lambda model, task, out: trace(model, task, out=out, lens="tuned", calibration=12),
    "prune": lambda model, task, out: prune(model, task, out=out, **OPTIONS),
    "method": lambda model, task, out: prune(model, task, out=out, method="cka", **OPTIONS),
    "halves": lambda model, task, out: prune(
        model, task, out=out, granularity="attention", **OPTIONS
    ),
    "perturb": lambda model, task, out: perturb(model, task, noise=[0.1], noise_seeds=1, out=out),
    "ablate": lambda model, task, out: ablate(model, task, calibration=4, out=out),
    "similarity": lambda model, task, out: similarity(model, task, remove=[2], out=out),
    "phasewise": lambda model, task, out: phasewise(model, task, draws=2, calibration=4, out=out),
    "plan": lambda model, task, out: plan(model, task, out=out),
    "compare": lambda model, task, out: compare(
        model, [task], methods=["cka"], text="none", calibration=4, out=out
    ),
    "paper": lambda model, task, out: paper(model, [task], out=out),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK)
def test_a_directory_in_which_another_process_works_is_left_alone(tiny, task, tmp_path, hold, name):
    process = hold(tmp_path / "run")
    before = content(tmp_path / "run")
    with pytest.raises(UserError, match=f"is in use: process {process.pid} on .* since 2.*out"):
        WORK[name](tiny["llama"], task, tmp_path / "run")
    assert content(tmp_path / "run") == before
    process.send_signal(signal.SIGKILL)
    process.wait()
    with RunDirectory(tmp_path / "run").lock():  # the lock is gone with its process
        pass
    assert not (tmp_path / "run/.lock").exists()


@pytest.mark.slow
def test_the_folder_of_one_of_several_tasks(tiny, task, tmp_path, hold):
    other = load_task(
        str(
            write_jsonl(
                tmp_path / "second.jsonl",
                [row | {"question": row["question"] + " of it all"} for row in QUESTIONS],
            )
        )
    )
    whole, second = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run/second")
    prune(tiny["llama"], [task, other], out=whole.path, **OPTIONS)
    for run in (whole, second):
        run.update(status="failed")
    process = hold(second.path)
    with pytest.raises(UserError, match="run/second is in use"):
        prune(tiny["llama"], [task, other], out=tmp_path / "run", **OPTIONS)
    process.kill()
    process.wait()
    state = prune(tiny["llama"], [task, other], out=tmp_path / "run", **OPTIONS).state
    assert state == "resumed" and not list((tmp_path / "run").rglob(".lock"))


@pytest.mark.slow
def test_a_run_inside_of_one_of_paper(demo, tmp_path, hold):
    """The process that works in the whole run has every run in it while that goes on."""
    settings = Settings(
        skip=("lens", "prune", "similarity", "perturb", "ablate", "phasewise", "heal")
    )
    task = load_task("demo", limit=20)
    paper(demo, [task], out=tmp_path / "run", settings=settings)
    RunDirectory(tmp_path / "run").update(status="running", done={})
    RunDirectory(tmp_path / "run/demo/trace").update(status="running")
    hold(tmp_path / "run/demo/trace")
    with pytest.raises(UserError, match="demo/trace is in use"):
        paper(demo, [task], out=tmp_path / "run", settings=settings)
    assert RunDirectory(tmp_path / "run").manifest["status"] == "failed"


@pytest.mark.slow
def test_healing_is_locked_by_its_own_folder(tiny_dirs, task, tmp_path, hold):
    model = load_model(str(tiny_dirs["llama"]))
    prune(model, task, out=tmp_path / "run", **OPTIONS)
    train = training_file(tmp_path)
    recipe = dict(train=train, steps=2, batch=4)
    for name, work in (
        ("one", lambda name: heal(tmp_path / "run", name=name, **recipe)),
        ("ladder", lambda name: heal_ladder(tmp_path / "run", [1, 2], name=name, **recipe)),
    ):
        process = hold(tmp_path / "run/heal" / name)
        with pytest.raises(UserError, match=f"heal/{name} is in use"):
            work(name)
        process.kill()
        process.wait()
    assert heal(tmp_path / "run", name="one", **recipe).state == "new"


@pytest.mark.slow
def test_a_finished_run_is_read_and_only_read(tiny, task, tmp_path, hold):
    run = tmp_path / "run"
    done = prune(tiny["llama"], task, out=run, **OPTIONS)
    process = hold(run)
    assert prune(tiny["llama"], task, out=run, **OPTIONS).to_dict() == done.to_dict()
    write_report(run)
    with pytest.raises(UserError, match="is in use"):  # it would write RUN/model
        export_run(tiny["llama"], run_to_export(run))
    process.kill()
    process.wait()
    assert Path(export_run(tiny["llama"], run_to_export(run)).path) == run / "model"
    assert ".lock" not in {path.name for path in run.rglob("*")}


def test_the_same_process_begins_again(tiny, task, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with run.lock(), run.lock():
        prune(tiny["llama"], task, out=run.path, **OPTIONS)
        assert (run.path / ".lock").exists()
    with pytest.raises(ZeroDivisionError), run.lock():
        _ = 1 / 0
    assert not (run.path / ".lock").exists()
    assert prune(tiny["llama"], task, out=run.path, **OPTIONS).state == "finished"


def test_another_thread_is_another_worker(tmp_path):
    run, found = RunDirectory(tmp_path / "run"), []

    def work():
        try:
            with run.lock(patience=0):
                found.append("held")
        except UserError as error:
            found.append(str(error))

    with run.lock():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "is in use" in found[0] and f"process {os.getpid()} " in found[0]


def test_a_refused_directory_is_left_as_it_was(tmp_path, hold):
    with pytest.raises(UserError, match="x"), RunDirectory(tmp_path / "a/b/run").lock():
        raise UserError("x")
    assert not (tmp_path / "a").exists()
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="cannot be written"), RunDirectory(file).lock():
        pass


def test_a_file_system_without_locks_is_told_of_and_used(tmp_path, monkeypatch, capsys):
    def none(handle):
        raise OSError(lock_module.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock_module, "_lock", none)
    with RunDirectory(tmp_path / "run").lock():
        (tmp_path / "run/x").write_text("")
    assert capsys.readouterr().err.count("has no locks") == 1


#: The case that was found: C twice at the same time ruined the run for good.
C = [
    "prune",
    "demo",
    "--task",
    "demo",
    "--limit",
    "40",
    "--remove",
    "4",
    "--calibration",
    "16",
    "--evaluation",
    "24",
    "--seed",
    "3",
    "--no-export",
    "--quiet",
    "--out",
]


def start(words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "phaseprune", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_the_same_command_twice_at_once(tmp_path):
    both = [start([*C, tmp_path / "run"]) for _ in range(2)]
    told = [process.communicate(timeout=300)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 2], [0, 0]), told  # the second may come when the first is done
    if 2 in codes:
        assert sum("is in use: process" in err for err in told) == 1
    run = RunDirectory(tmp_path / "run")
    assert run.manifest["status"] == "finished"
    assert [step["step"] for step in run.steps()] == list(range(5))
    assert len(run.candidates()) == sum(range(11, 15))


def kill_after(process, path, lines):
    """Kill -9 as soon as a file has so many lines."""
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert start([*C, out]).wait() == 0
    return RunDirectory(out)


def removed(run):
    return [step["removed"] for step in run.steps()]


@pytest.mark.slow
def test_a_killed_run_leaves_no_lock_that_holds(tmp_path, undisturbed):
    run = RunDirectory(tmp_path / "run")
    kill_after(start([*C, run.path]), run.path / "steps.jsonl", 3)
    assert (run.path / ".lock").exists()
    assert start([*C, run.path]).wait() == 0
    assert removed(run) == removed(undisturbed) and len(run.steps()) == 5
    assert not (run.path / ".lock").exists()


# What a killed process leaves


@pytest.mark.parametrize(
    "left",
    [
        [".manifest.json.4242.tmp"],
        [".manifest.json.1.tmp", ".lock"],
        [".lock"],
        [".trace.json.7.tmp", ".scores.parquet.7.tmp"],
        [".model.partial/config.json"],
        [".heal-scratch-ab12/model/config.json"],
        ["parts/.000064.npz.9.tmp"],
    ],
)
def test_leftovers_are_no_reason_to_refuse(tiny, task, tmp_path, left):
    run = tmp_path / "run"
    for name in left:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("{")
    if left[0].startswith("parts"):  # only beside a manifest can there be parts
        RunDirectory(run)._write_manifest(_identity(tiny["llama"], task), {})
    assert trace(tiny["llama"], task, out=run).state in ("new", "resumed")
    assert {path.name for path in run.iterdir()} - {"parts"} == {
        "manifest.json",
        "trace.json",
        "scores.parquet",
    }
    assert not list(run.rglob("*.tmp"))


def _identity(decoder, task):
    from phaseprune.sweep.recorded import run_identity

    return run_identity("trace", decoder, task, 0, {})


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".notes.5.tmp",
        "manifest.json.5.tmp",
        ".manifest.json.tmp",
        ".manifest.json.x.tmp",
        ".cache",
        "model.partial",
    ],
)
def test_a_file_of_ones_own_is_never_removed(tiny, task, tmp_path, name):
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_text("mine")
    with pytest.raises(UserError, match=f"is not a run directory .it holds {name}"):
        trace(tiny["llama"], task, out=run)
    assert [path.name for path in run.iterdir()] == [name]
    (run / name).rename(tmp_path / "kept")
    trace(tiny["llama"], task, out=run)
    (tmp_path / "kept").rename(run / name)
    (run / ".trace.json.5.tmp").write_text("{")
    assert trace(tiny["llama"], task, out=run).state == "finished"
    assert (run / name).read_text() == "mine" and not (run / ".trace.json.5.tmp").exists()


def test_a_living_process_keeps_its_temporary_files(tiny, task, tmp_path, hold):
    trace(tiny["llama"], task, out=tmp_path / "run")
    process = hold(tmp_path / "run")
    theirs = tmp_path / f"run/.report.html.{process.pid}.tmp"
    theirs.write_text("half")
    assert trace(tiny["llama"], task, out=tmp_path / "run").state == "finished"
    assert theirs.exists()


def test_runs_inside_of_a_run_keep_theirs(tmp_path):
    """They may belong to another process, which works there under a lock of its own."""
    inner = tmp_path / "run/heal/mine"
    inner.mkdir(parents=True)
    (inner / ".state.pt.5.tmp").write_text("x")
    clear_leftovers(tmp_path / "run")
    assert (inner / ".state.pt.5.tmp").exists()
    clear_leftovers(inner)
    assert not strangers(inner) and not list(inner.iterdir())


@pytest.mark.slow
def test_every_file_of_a_run_is_known(tiny, task, tmp_path):
    """Or its temporary file would be taken for somebody's own."""
    for name in ("trace", "lens", "prune", "perturb", "ablate", "similarity", "plan", "compare"):
        out = tmp_path / name
        WORK[name](tiny["llama"], task, out)
        write_report(out)
        inside = out / "questions" if name == "compare" else out
        for folder in {out, inside}:
            assert {path.name for path in folder.iterdir() if path.is_file()} <= FILES


def test_a_page_that_loses_its_temporary_file_is_written_again(tmp_path):
    from phaseprune.runs.atomic import write_with

    tries = []

    def write(temporary):
        tries.append(temporary)
        if len(tries) > 1:
            temporary.write_text("whole")

    write_with(tmp_path / "report.html", write)
    assert len(tries) == 2 and (tmp_path / "report.html").read_text() == "whole"


KILLED_IN_SCRATCH = """
import os, signal, sys
import phaseprune.cli.main as m
from phaseprune.healing import heal as h
def kill(*a, **k): os.kill(os.getpid(), signal.SIGKILL)
h.measure = kill
m.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_healing_leaves_nothing_for_ever(tiny_dirs, task, tmp_path):
    prune(load_model(str(tiny_dirs["llama"])), task, out=tmp_path / "run", **OPTIONS)
    train = training_file(tmp_path)
    words = [
        "heal",
        tmp_path / "run",
        "--train",
        train,
        "--steps",
        2,
        "--batch",
        4,
        "--name",
        "a",
        "--quiet",
    ]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.run(
        [sys.executable, "-c", KILLED_IN_SCRATCH, *map(str, words)],
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert process.returncode == -signal.SIGKILL
    folder = tmp_path / "run/heal/a"
    assert any(path.name.startswith(".heal-scratch-") for path in folder.iterdir())
    assert not any(path.name.startswith(("phaseprune", ".heal")) for path in temporary.iterdir())
    assert start(words).wait() == 0
    assert not any(path.name.startswith(".") for path in folder.iterdir())


@pytest.mark.slow
def test_the_demo_replaces_only_former_demos(capsys, tmp_path):
    made = tmp_path / "mine"
    words = ("prune", "demo", "--remove", 1, "--limit", 60, "--calibration", 20, "--no-export")
    assert command(capsys, *words, "--out", made)[0] == 0
    (made / "thesis.tex").write_text("mine")
    before = content(made)
    code, err = command(capsys, "demo", "--out", made)
    assert code == 2 and "not a former demo's run" in err and content(made) == before
    manifest = RunDirectory(made).manifest
    arguments = "phaseprune prune demo --remove 13 --calibration 96 --evaluation 300"
    RunDirectory(made).update(arguments=arguments)
    assert manifest["model"]["blocks"] == 14
    before = content(made)
    code, err = command(capsys, "demo", "--out", made)
    assert code == 2 and "thesis.tex in it is not of that" in err and content(made) == before


# Which model it was


def swap_tokens(folder):
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text())
    vocabulary = told["model"]["vocab"]
    one, other = sorted(vocabulary)[40:42]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(told))


def change_json(name, **values):
    def change(folder):
        path = folder / name
        told = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(told | values))

    return change


TOKENIZERS = {
    "tokens": (swap_tokens, "tokenizer"),
    "settings": (change_json("tokenizer_config.json", add_prefix_space=True), "tokenizer"),
    "special tokens": (change_json("special_tokens_map.json", eos_token="A"), "tokenizer"),
    "added tokens": (change_json("added_tokens.json", x=5), "tokenizer"),
    "merges": (lambda folder: (folder / "merges.txt").write_text("a b\n"), "tokenizer"),
    "sentence pieces": (lambda f: (f / "tokenizer.model").write_bytes(b"\0"), "tokenizer"),
    "template": (lambda f: (f / "chat_template.jinja").write_text("{{ x }}"), "chat template"),
    "template inside": (
        change_json("tokenizer_config.json", chat_template="{{ x }}"),
        "chat template",
    ),
    "no model": (change_json("generation_config.json", top_k=3), None),
    "readme": (lambda folder: (folder / "README.md").write_text("x"), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_run_goes_on_only_with_the_tokenizer_it_began_with(tiny_dirs, task, tmp_path, name):
    change, differs = TOKENIZERS[name]
    folder, run = tmp_path / "m", RunDirectory(tmp_path / "run")
    shutil.copytree(tiny_dirs["llama"], folder)
    decoder = load_model(str(folder))
    trace(decoder, task, out=run.path)
    for status in ("finished", "failed"):
        run.update(status=status)
        assert trace(load_model(str(folder)), task, out=run.path).state in ("finished", "resumed")
    change(folder)
    decoder.__dict__["source"] = find_source(str(folder))
    for status in ("finished", "failed"):
        run.update(status=status)
        before = content(run.path)
        if differs is None:
            trace(decoder, task, out=run.path)
            continue
        with pytest.raises(UserError, match=f"another run: its {differs} differs .fingerprint"):
            trace(decoder, task, out=run.path)
        assert content(run.path) == before


def test_a_run_of_an_older_version_goes_on(tiny, task, tmp_path):
    run = RunDirectory(tmp_path / "run")
    trace(tiny["llama"], task, out=run.path)
    whole = run.manifest["model"]
    assert len(whole["tokenizer"]) == 64 and whole["chat_template"] is None
    older = {key: whole[key] for key in ("name", "family", "blocks", "dtype", "fingerprint")}
    run.update(model=older)
    assert trace(tiny["llama"], task, out=run.path).state == "finished"
    assert run.manifest["model"] == older  # a finished run is only read
    run.update(status="failed")
    assert trace(tiny["llama"], task, out=run.path).state == "resumed"
    assert run.manifest["model"] == whole


@pytest.mark.slow
def test_what_works_on_a_run_needs_its_tokenizer_too(tiny_dirs, task, tmp_path):
    folder, run = tmp_path / "m", tmp_path / "run"
    save_tiny(folder)
    prune(load_model(str(folder)), task, out=run, **OPTIONS)
    change_json("tokenizer_config.json", add_prefix_space=True)(folder)
    other = load_model(str(folder))
    for work, says in (
        (lambda: export_run(other, run_to_export(run)), "is not the model of"),
        (lambda: similarity(other, task, run=run), "is not the base model of"),
        (lambda: heal(run, train=tmp_path / "questions.jsonl"), "is not the full model of"),
    ):
        with pytest.raises(UserError, match=f"{says}.* its tokenizer differs"):
            work()


@pytest.mark.slow
def test_a_killed_run_with_another_tokenizer_is_refused(tmp_path):
    """The case that was found, from the command line."""
    shutil.copytree(str(files("phaseprune.demo") / "model"), tmp_path / "m")
    words = [
        str(tmp_path / "m") if word == "demo" and place == 1 else word
        for place, word in enumerate(C)
    ]
    run = tmp_path / "run"
    kill_after(start([*words, run]), run / "steps.jsonl", 3)
    swap_tokens(tmp_path / "m")
    again = start([*words, run])
    err = again.communicate()[1]
    assert again.returncode == 2 and "its tokenizer differs (fingerprint" in err, err
