"""``lm_eval:NAME``: lm-eval's own tasks, scored as lm-eval scores them."""

import importlib.util
import os
import random
import sys

import numpy as np
import pytest
import yaml

from conftest import QUESTIONS, write_jsonl
from phaseprune.cli.main import main
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import option_pairs
from phaseprune.sweep.trace import trace

if importlib.util.find_spec("lm_eval") is None and os.environ.get("CI") != "true":
    pytest.skip("lm_eval is not installed", allow_module_level=True)

from harness import compare, lm_eval_samples  # noqa: E402

FIRST = [
    dict(
        row,
        answer="ABCDE".index(row["answer"]) if isinstance(row["answer"], str) else row["answer"],
    )
    for row in QUESTIONS
]
BLANKS = [
    {
        "sentence": f"the sky {i} is blue and _ is green snow",
        "option1": "grass",
        "option2": "coal",
        "answer": str(1 + i % 2),
    }
    for i in range(6)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """YAML tasks of different kinds over files of our own, and a group of two of them."""
    root = tmp_path_factory.mktemp("yaml")
    rows = write_jsonl(root / "rows.jsonl", FIRST)
    shots = write_jsonl(root / "shots.jsonl", FIRST[::-1])
    blanks = write_jsonl(root / "blanks.jsonl", BLANKS)
    files = {"test": str(rows), "train": str(shots)}
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_target": "answer",
        "doc_to_choice": "choices",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "training_split": "train",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    tasks = {
        "own_text": {},
        "own_described": {
            "description": "About the sky.\n\n",
            "target_delimiter": "",
            "doc_to_choice": "{{[' the sky', ' grass', ' snow', ' coal', ' A']}}",
        },
        "own_mutual": {"metric_list": [{"metric": "acc"}, {"metric": "acc_mutual_info"}]},
        "own_fixed": {"num_fewshot": 0},
        "own_two": {"num_fewshot": 2},
        "own_bare": {"doc_to_text": ""},
        "own_begun": {"gen_prefix": "The answer is"},
        "own_generation": {"output_type": "generate_until", "doc_to_choice": None},
        "own_several": {"doc_to_target": "{{[0, 1]}}"},
        "own_blanks": {
            "dataset_kwargs": {"data_files": {"test": str(blanks), "train": str(blanks)}},
            "doc_to_text": "{{answer|int - 1}}",
            "doc_to_target": "{{sentence.split('_')[1].strip()}}",
            "doc_to_choice": "{{[sentence.split('_')[0] ~ option1, sentence.split('_')[0] ~ "
            "option2]}}",
        },
    }
    for name, own in tasks.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump({"task": name} | common | own))
    group = {"group": "own_group", "task": ["own_text", "own_two"]}
    (root / "own_group.yaml").write_text(yaml.safe_dump(group))
    return root


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shots"),
    [
        ("own_text", 0),
        ("own_text", 3),
        ("own_described", 2),
        ("own_two", None),
        ("own_mutual", 0),
        ("own_bare", 0),
        ("own_begun", 1),
        ("own_blanks", 0),
        ("own_blanks", 2),
    ],
)
def test_parity_with_lm_eval(demo, folder, name, shots):
    """Examples drawn anew for each question, other delimiters, options in the context."""
    task = load_task(f"lm_eval:{name}", lm_eval_path=folder, shots=shots)
    assert len(task.questions) == len(BLANKS if name == "own_blanks" else FIRST)
    assert_same(compare(demo, task, lm_eval_samples(demo, folder, name, shots)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shots"),
    [("own_described", 2), ("own_begun", 1), ("own_mutual", 0), ("own_blanks", 1)],
)
def test_parity_in_a_chat(folder, name, shots):
    """Turns for the examples; an answer that a prefix begins; a template without a system turn."""
    model = load_model("demo")
    model.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    task = load_task(f"lm_eval:{name}", lm_eval_path=folder, shots=shots, chat=True)
    assert task.prompt_format.endswith(" + chat")
    chat = dict(apply_chat_template=True, fewshot_as_multiturn=True)
    assert_same(compare(model, task, lm_eval_samples(model, folder, name, shots, **chat)))
    context, continuation = option_pairs(task.questions[0], task, model.tokenizer)[0]
    assert context.startswith("<user>") and context.count("<assistant>") == 1 + shots
    assert context.endswith("The answer is" if name == "own_begun" else "<assistant>")


def assert_same(found):
    assert found.difference <= 1e-3
    np.testing.assert_array_equal(found.our_accuracy, found.accuracy)
    if not np.isnan(found.normalised).all():
        np.testing.assert_array_equal(found.our_normalised, found.normalised)


def test_groups_and_what_is_recorded(demo, folder):
    before = random.getstate()
    task = load_task("lm_eval:own_group", lm_eval_path=folder, limit=4)
    assert random.getstate() == before
    assert [q.group for q in task.questions] == ["own_text"] * 4 + ["own_two"] * 4
    assert task.questions[5].id == "own_two/1"
    assert task.prompt_format == "text/lm_eval 0.4.13, 0/2 shots by seed 1234"
    assert trace(demo, task).macro_accuracy is not None
    other = load_task("lm_eval:own_group", lm_eval_path=folder, limit=4, seed=1)
    assert other.fingerprint != task.fingerprint and "1235" in other.prompt_format
    fixed = load_task("lm_eval:own_fixed", lm_eval_path=folder)
    assert fixed.prompt_format == "text/lm_eval 0.4.13, 0 shots"


BAD = {
    "unknown": ("own_txt", {}, "knows no task, group or tag 'own_txt'.*'own_text'"),
    "generation": ("own_generation", {}, "not multiple choice: its output type is generate_until"),
    "several right": ("own_several", {}, r"document 0: its right answer is \[0, 1\]"),
    "fixed shots": ("own_fixed", {"shots": 3}, "YAML fixes 0 examples"),
    "many shots": ("own_text", {"shots": 99}, "lm-eval cannot build it"),
    "letters": ("own_text", {"scoring": "letter"}, "scoring='letter' does not go with"),
    "labels": ("own_text", {"labels": "1"}, "labels does not go with"),
    "shuffle": ("own_text", {"shuffle": True}, "shuffle does not go with"),
    "folder": ("own_text", {"lm_eval_path": "nowhere"}, "no such folder of YAML files"),
    "probability": ("own_text", {"probability": "vocabulary"}, "is for letter scoring"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(folder, name):
    task, options, says = BAD[name]
    with pytest.raises(UserError, match=says) as caught:
        load_task(f"lm_eval:{task}", **({"lm_eval_path": folder} | options))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_other_mistakes(monkeypatch, question_file, folder):
    with pytest.raises(UserError, match="lm_eval_path is for tasks lm_eval:NAME"):
        load_task(str(question_file), lm_eval_path=folder)
    with pytest.raises(UserError, match="lm-eval cannot load it.*needs a network once"):
        load_task("lm_eval:sciq")
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(UserError, match=r"pip install 'phaseprune\[lm-eval\]'"):
        load_task("lm_eval:sciq")


@pytest.mark.slow
def test_at_the_command_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["phaseprune"])
    words = ["--task", "lm_eval:own_blanks", "--lm-eval-path", str(folder)]
    with pytest.raises(SystemExit) as ended:
        main(["trace", "demo", *words])
    captured = capsys.readouterr()
    assert not ended.value.code and "it/s" not in captured.err
    assert f"--lm-eval-path {folder}" in " ".join(captured.out.split())
    with pytest.raises(SystemExit) as ended:
        main(["tasks", "lm_eval:own_blanks", "--lm-eval-path", str(folder)])
    assert not ended.value.code
    assert "the sky 0 is blue and grass" in capsys.readouterr().out
