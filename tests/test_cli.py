"""The command line: exit codes, JSON alone on stdout, one sentence for a user's mistake."""

import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest
from safetensors.torch import load_file, save_file

import phaseprune
from conftest import write_jsonl
from phaseprune.cli import options as o
from phaseprune.cli.heal import HealingOptions
from phaseprune.cli.main import COMMANDS, GROUPS, main
from phaseprune.cli.prune import ChoiceOptions, StopOptions


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command in an empty directory; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words):
        arguments = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["phaseprune", *arguments])
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


def sentence(err):
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.slow
def test_help_of_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in COMMANDS:
        assert command in out
        assert run(command, "--help")[0] == 0


def panels(text):
    return re.findall(r"^╭─ (.+?) ─+╮$", text, re.M)


@pytest.mark.slow
def test_commands_stand_in_groups_and_options_in_panels(run):
    code, out, _ = run("--help")
    assert code == 0 and panels(out) == ["Options", *GROUPS]
    code, out, _ = run("prune", "--help")
    assert panels(out) == [
        "Arguments",
        "Essentials",
        "Questions",
        "Search",
        "Hardware and model",
        "Output",
    ]
    for command in COMMANDS:
        out = run(command, "--help")[1]
        found = [name for name in panels(out) if name != "Arguments"]
        assert found == [name for name in o.PANELS if name in found], command
        assert max(map(len, out.splitlines())) <= 80
    assert "[default: (one in runs/ for this" in run("trace", "--help")[1]


@pytest.mark.parametrize(
    ("group", "functions", "others"),  # others: keywords that no option gives; None for some
    [
        (o.LoadingOptions, ["phaseprune.decoder.load.load_model"], {"name", "tokenizer"}),
        (o.QuestionOptions, ["phaseprune.questions.catalog.load_task"], {"questions", "name"}),
        (StopOptions, ["phaseprune.pruning.prune.prune"], None),
        (ChoiceOptions, ["phaseprune.pruning.prune.prune"], None),
        (
            HealingOptions,
            ["phaseprune.healing.heal.heal", "phaseprune.healing.recipe.Recipe"],
            None,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_group_of_options_holds_keywords_of_python_with_their_defaults(group, functions, others):
    takes = {}
    for name in functions:
        takes |= inspect.signature(pkgutil.resolve_name(name)).parameters
    held = {one.name: one.default for one in fields(group) if one.name != "task"}
    for name, default in held.items():
        assert takes[name].default == default, name
    assert others is None or takes.keys() - held.keys() == others


def test_questions_are_put_alike_by_the_next_command():
    questions = o.QuestionOptions(
        task="q.csv", limit=3, shots=2, shuffle=True, length_norm="bytes", seed=1
    )
    assert questions.keywords().keys() == {one.name for one in fields(questions)} - {"task"}
    assert questions.words("text") == [
        "--scoring",
        "text",
        "--length-norm",
        "bytes",
        "--shots",
        "2",
        "--shuffle",
        "--seed",
        "1",
    ]
    assert o.QuestionOptions().words(None) == []


@pytest.mark.slow
def test_version_and_short_flags(run, tiny_dirs, question_file, tmp_path):
    assert run("--version")[:2] == (0, f"phaseprune {phaseprune.__version__}\n")
    code, _, _ = run("trace", tiny_dirs["llama"], "-t", question_file, "-o", "short", "--quiet")
    assert code == 0 and (tmp_path / "short/report.html").is_file()


def test_a_shell_completes_commands_and_options():
    for typed, at, found in (("pru", 1, "prune"), ("prune --granu", 2, "--granularity")):
        asked = {
            "_PHASEPRUNE_COMPLETE": "complete_bash",
            "COMP_WORDS": f"phaseprune {typed}",
            "COMP_CWORD": str(at),
        }
        done = subprocess.run(
            [sys.executable, "-m", "phaseprune"],
            env=os.environ | asked,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and done.stdout.split() == [found], done


@pytest.mark.slow
def test_trace_prune_export_report_end_to_end(run, tiny_dirs, question_file, tmp_path):
    model, files = tiny_dirs["llama"], ("--task", question_file)
    code, out, _ = run("trace", model, *files, "--out", "t")
    assert code == 0 and "next: phaseprune prune" in out and (tmp_path / "t/report.html").is_file()
    # The next command is left for the terminal to fold, so that it can be copied.
    assert max(map(len, out.split("next:")[0].splitlines())) <= 80
    code, out, _ = run("prune", model, *files, "--remove", 2, "--calibration", 4, "--out", "p")
    assert code == 0 and "max |Δ logits|" in out and "next: phaseprune export p" in out
    assert (tmp_path / "p/model/model.safetensors").is_file()
    assert (tmp_path / "p/report.html").is_file()
    manifest = json.loads((tmp_path / "p/manifest.json").read_text())
    assert manifest["arguments"].startswith("phaseprune prune ")
    code, out, err = run("prune", model, *files, "--remove", 2, "--calibration", 4, "--out", "p")
    assert code == 0 and "finished before" in err
    code, out, _ = run("export", "p", "--step", 1, "--out", "one", "--json")
    assert code == 0 and json.loads(out)["removed"] == manifest["result"]["removed"][:1]
    (tmp_path / "p/report.html").unlink()
    assert run("report", "p")[0] == 0 and (tmp_path / "p/report.html").is_file()
    code, out, _ = run("trace", "p/model", *files, "--quiet")
    assert code == 0 and out == ""
    code, out, _ = run("export", model, "--remove", "0,3", "--out", "direct", "--json")
    assert code == 0 and json.loads(out)["kept"] == [1, 2, 4]


@pytest.mark.slow
def test_json_is_all_there_is_on_stdout(run, tiny_dirs, question_file):
    model, files = tiny_dirs["gpt2"], ("--task", question_file, "--scoring", "text")
    code, out, _ = run("trace", model, *files, "--json")
    traced = json.loads(out)
    assert code == 0 and traced["scoring"] == "text" and len(traced["readouts"]) == 6
    assert set(traced["transition"]) == {
        "found",
        "readout",
        "ci",
        "silent_blocks",
        "decisive_blocks",
        "silent_level",
        "decisive_level",
        "sharpness",
        "sharpness_ci",
        "r2",
        "p_value",
        "reason",
        "questions",
        "shape",
        "rise",
        "rise_ci",
        "shape_r2",
        "informed",
    }
    code, out, _ = run("prune", model, *files, "--remove", 1, "--calibration", 4, "--json")
    pruned = json.loads(out)
    assert code == 0 and len(pruned["steps"]) == 2
    assert pruned["result"]["export"]["max_abs_logit_difference"] <= 1e-4
    code, out, _ = run("check", model, *files, "--full", "--json")
    checked = json.loads(out)
    assert code == 0 and checked["ok"] and checked["blocks"] == 5
    assert checked["trace_block_passes"] == 5 and checked["step_block_passes"] == 15
    code, out, _ = run("tasks", "demo", "--json")
    assert code == 0 and json.loads(out)["example"]["continuations"] == [" A", " B", " C", " D"]
    assert "demo" in json.loads(run("tasks", "--json")[1])["tasks"]


@pytest.mark.slow
def test_check_says_what_is_wrong(run, tiny_dirs, question_file):
    code, out, _ = run("check", tiny_dirs["llama"], "--task", question_file, "--full")
    assert code == 0 and "✗" not in out
    for part in (
        "family: llama",
        "blocks: 5",
        "readout",
        "labels",
        "trace: 5 block passes",
        "prune: 15 block passes",
        "memory",
    ):
        assert f"✓ {part}" in out
    code, out, err = run("check", tiny_dirs["llama"], "--task", "demp")
    assert code == 2 and "✗ task" in out and "Did you mean 'demo'" in sentence(err)
    code, out, err = run("check", "demo", "--task", question_file, "--json", "--limit", "0")
    assert code == 2 and json.loads(out)["ok"] is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("trac", "demo"), "'trac'. Did you mean 'trace'"),
        (("trace", "demo", "--limt", "3"), "--limt"),
        (("trace", "demo", "--limit", "many"), "Invalid value for '--limit'"),
        (("trace",), "MODEL"),
        (("trace", "some/model"), "--task"),
        (("prune", "demo", "--remove", "14"), "1 to 13"),
        (("prune", "demo", "--objective", "acuracy"), "Did you mean 'accuracy'"),
        (("prune", "demo", "--remove", "2", "--ratio", "0.5"), "give one of them"),
        (("prune", "demo", "--limit", "3", "--calibration", "3"), "3 questions: 3 for calibration"),
        (("export", "demo"), "--remove"),
        (("export", "demo", "--remove", "1,x", "--out", "o"), "block indices"),
        (("export", "demo", "--remove", "99", "--out", "o"), "blocks 0 to 13"),
        (("export", "demo", "--remove", "1"), "--out"),
        (("export", "nowhere", "--step", "1"), "no manifest.json"),
        (("report", "nowhere"), "nowhere"),
        (("paper", "demo", "--task", ","), "names nothing"),
        (("tasks", "dmo"), "Did you mean 'demo'"),
        (("trace", "demo", "--task", "none.jsonl"), "no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_sentence_and_exit_2(run, words, says):
    code, out, err = run(*words)
    assert code == 2 and out == ""
    assert says in sentence(err)


def test_bad_rows_exit_2(run, tmp_path):
    path = write_jsonl(tmp_path / "bad.jsonl", [{"question": "?", "choices": ["x"], "answer": 0}])
    code, _, err = run("trace", "demo", "--task", path)
    assert code == 2 and "line 1: a question needs at least 2 choices" in sentence(err)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), "lacks 1 of the model's weights"),
        (lambda w: w["model.layers.4.mlp.up_proj.weight"].fill_(float("nan")), "block 4 has NaN"),
    ],
    ids=["missing weights", "NaN weights"],
)
@pytest.mark.parametrize("command", ["check", "trace", "prune"])
def test_bad_checkpoints_exit_2(run, tiny_dirs, tmp_path, command, damage, says):
    directory = shutil.copytree(tiny_dirs["llama"], tmp_path / "model")
    weights = load_file(directory / "model.safetensors")
    damage(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    words = ("--full",) if command == "check" and "NaN" in says else ()
    code, _, err = run(command, directory, "--task", "demo", *words)
    assert code == 2 and says in sentence(err)
    assert not (tmp_path / "runs").exists()


def test_encoders_exit_2(run, tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    BertForMaskedLM(
        BertConfig(
            vocab_size=320,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).save_pretrained("bert")
    code, _, err = run("trace", "./bert", "--task", "demo")
    assert code == 2 and "not a causal (decoder-only) language model" in sentence(err)


def test_labels_that_do_not_tokenise_apart_exit_2(run, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "Answer": 1, ":": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained("words")
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).save_pretrained("words")
    code, _, err = run("trace", "./words", "--task", "demo", "--limit", "4")
    assert code == 2 and "labels are not single distinct tokens" in sentence(err)


@pytest.mark.slow
def test_what_cannot_be_exported_is_refused_before_the_search(
    run, tmp_path, question_file, monkeypatch
):
    from conftest import save_tiny

    def nothing(original):
        return False, "of single blocks none can be removed, as blocks are counted by a_field = 3"

    save_tiny(tmp_path / "bound")
    for module in ("export", "preflight"):
        monkeypatch.setattr(f"phaseprune.decoder.{module}.export_limits", nothing)
    words = ("prune", "./bound", "--task", question_file, "--remove", 1, "--calibration", 4)
    code, _, err = run(*words, "--out", "r")
    assert code == 2 and "a_field" in sentence(err) and "--no-export" in err
    assert not (tmp_path / "r").exists()
    for words_of_check in ((), ("--task", question_file), ("--full",)):
        code, out, _ = run("check", "./bound", *words_of_check)
        assert code == 0 and "✗ export" in out and "✗ weights" not in out
    assert run(*words, "--no-export", "--out", "r")[0] == 0


@pytest.mark.slow
def test_removals_that_could_not_be_exported_are_told_before_the_search(
    run, tmp_path, question_file
):
    """Which factor a block of this family has is computed from its number."""
    import torch
    from transformers import AutoModelForCausalLM

    from conftest import make_tokenizer
    from tiny_configs import tiny_config

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("diffllama")).save_pretrained("bound")
    make_tokenizer().save_pretrained("bound")
    words = ("--task", question_file, "--remove", 1, "--calibration", 4)
    err = run("prune", "./bound", *words, "--out", "r")[2]
    assert "not every removal of this model can be exported: of single blocks 5 can" in err
    code, _, err = run("export", "./bound", "--remove", "0", "--out", "x")
    assert code == 2 and "lambda_init of block 1 would be" in sentence(err)
    assert not (tmp_path / "x").exists()
    assert run("export", "./bound", "--remove", "5", "--out", "x")[0] == 0


def test_a_failure_of_ours_is_exit_1_with_its_traceback(run, monkeypatch):
    from phaseprune.questions import catalog

    def broken(*args, **kwargs):
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(catalog, "load_task", broken)
    code, out, err = run("trace", "demo", "--json")
    assert code == 1 and out == "" and "ZeroDivisionError" in err and "failure of phaseprune" in err


def test_the_demo_refuses_to_replace_what_is_not_its_own(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    code, _, err = run("demo", "--out", "mine")
    assert code == 2 and "not a former demo's run" in sentence(err)
    assert (tmp_path / "mine/file").read_text() == "x"


def test_the_installed_command():
    done = subprocess.run(
        [sys.executable, "-m", "phaseprune", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "prune" in done.stdout
