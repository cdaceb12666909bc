"""The named benchmarks: on rows in the hub's schema, against lm-eval's own prompts."""

import importlib.util
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import command
from hub_rows import ROWS, SUBJECTS, write_hub
from phaseprune.cli.main import main
from phaseprune.errors import UserError
from phaseprune.questions.benchmarks import BENCHMARKS, find_benchmark, task_names
from phaseprune.questions.catalog import load_task
from phaseprune.questions.prompts import Prompt, put
from phaseprune.sweep.trace import trace

if importlib.util.find_spec("datasets") is None and os.environ.get("CI") != "true":
    pytest.skip("datasets is not installed", allow_module_level=True)
HAS_LM_EVAL = importlib.util.find_spec("lm_eval") is not None or os.environ.get("CI") == "true"
#: A task of ours that lm-eval has under one name: a subject where the benchmark has some.
SINGLE = {
    "mmlu": ("mmlu_us_foreign_policy", "mmlu_us_foreign_policy"),
    "ceval": ("ceval_law", "ceval-valid_law"),
}
WITH_LM_EVAL = [name for name, entry in BENCHMARKS.items() if entry.lm_eval]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path_factory):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_entry_reads_the_hubs_schema(name, tmp_path):
    entry, folder = BENCHMARKS[name], write_hub(tmp_path, name)
    task = load_task(name, data_dir=folder)
    assert len(task.questions) == 4 * len(SUBJECTS.get(name, [None]))
    assert task.scoring == entry.scoring and len({q.id for q in task.questions}) >= 4
    for scoring in ("letter", "text"):
        other = load_task(name, data_dir=folder, scoring=scoring)
        context, continuation = put(other.questions[0], other).pairs()[0]
        assert context.strip() and continuation.startswith(" ")
        assert (other.shuffled == 0) == (entry.one_place and scoring == "letter")
    if entry.shots_split:
        few = load_task(name, data_dir=folder, shots=2)
        assert few.shots.count == 2
        first = put(few.questions[0], few)
        assert len(first.examples) == 2 and few.prompt_format.endswith(" + 2 first shots")
    else:
        with pytest.raises(UserError, match="has no few-shot split"):
            load_task(name, data_dir=folder, shots=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_where_golds_in_one_place_mean_nothing(name, tmp_path):
    """In texts that are not shown, unless one text is right whatever is asked, as in these rows."""
    folder = write_hub(tmp_path, name)
    for scoring in ("letter", "text"):
        task = load_task(name, data_dir=folder, scoring=scoring)
        assert not task.exchangeable
        others = [
            replace(q, choices=tuple(f"{choice} {number}" for choice in q.choices))
            for number, q in enumerate(task.questions)
        ]
        in_one_place = BENCHMARKS[name].one_place or name == "mmlu_pro"
        assert task.with_questions(others).exchangeable == (in_one_place and scoring == "text")
        shown = replace(task, questions=tuple(others), prompt=Prompt("own", "{options}"))
        assert not shown.exchangeable
        pairs = [replace(q, pairs=tuple((f"{q.choices}", c) for c in q.choices)) for q in others]
        assert not task.with_questions(pairs).exchangeable


@pytest.fixture(scope="module")
def manager():
    from lm_eval.tasks import TaskManager

    return TaskManager()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LM_EVAL, reason="lm_eval is not installed")
@pytest.mark.parametrize("name", WITH_LM_EVAL)
def test_prompts_are_lm_evals(name, tmp_path, manager, monkeypatch):
    """Contexts, continuations, right options and examples, on the same rows."""
    import datasets
    from lm_eval.api.samplers import FirstNSampler

    entry, folder = BENCHMARKS[name], write_hub(tmp_path, name)
    ours, theirs = SINGLE.get(name, (name, entry.lm_eval))
    real = datasets.load_dataset

    def from_folder(path, name=None, **_):
        assert path == entry.hub
        column = entry.subject_column
        part = entry.configuration if column else name
        assert column or part == (entry.configuration or None) or part in entry.subjects
        files = {f.name.split("-")[0]: str(f) for f in (folder / path / (part or "data")).iterdir()}
        loaded = real("parquet", data_files=files)
        return loaded.filter(lambda row: row[column] == name) if column else loaded

    monkeypatch.setattr(datasets, "load_dataset", from_folder)
    task = manager.load([theirs])["tasks"][theirs]
    monkeypatch.setattr(datasets, "load_dataset", real)
    for shots in (0, 2) if entry.shots_split else (0,):
        questions = load_task(ours, data_dir=folder, shots=shots)
        task.set_config("num_fewshot", shots)
        if shots:
            task.sampler = FirstNSampler(list(task.fewshot_docs()))
        task.build_all_requests(limit=None, rank=0, world_size=1)
        asked = {}
        for instance in task.instances:
            asked.setdefault(instance.doc_id, []).append(instance)
        assert len(asked) == len(questions.questions) == 4
        for question, instances in zip(questions.questions, asked.values(), strict=True):
            assert put(question, questions).pairs() == [instance.args for instance in instances]
            doc = instances[0].doc
            gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
            choices = task.doc_to_choice(doc)
            assert question.answer == (choices.index(gold) if isinstance(gold, str) else gold)
            if entry.scoring == "text" and not question.pairs:
                assert list(question.choices) == choices  # what acc_norm divides by


def test_subjects_and_groups(tmp_path):
    folder = write_hub(tmp_path, "mmlu")
    anatomy = load_task("mmlu_anatomy", data_dir=folder, shots=1)
    assert {q.group for q in anatomy.questions} == {"anatomy"}
    stem = load_task("mmlu_stem", data_dir=folder)
    assert {q.group for q in stem.questions} == {"anatomy"}
    assert len(find_benchmark("mmlu_stem")[1]) == 19 and len(BENCHMARKS["mmlu"].subjects) == 57
    everything = load_task("mmlu", data_dir=folder, limit=2)
    assert [q.group for q in everything.questions] == [
        s for s in SUBJECTS["mmlu"] for _ in range(2)
    ]
    text = put(anatomy.questions[0], anatomy).pairs()[0][0]
    assert text.startswith("The following are multiple choice questions (with answers) about anat")
    assert find_benchmark("mmlu_pro_computer_science")[1] == ("computer science",)
    assert "mmlu_pro_law" in task_names() and "ceval_law" in task_names()


@pytest.mark.slow
def test_micro_and_macro_average(demo, tmp_path, monkeypatch, capsys):
    write_hub(tmp_path, "mmlu", rows=5)
    task = load_task("mmlu", data_dir=tmp_path)
    task = task.with_questions(task.questions[:12])  # 5, 5 and 2 of a subject
    result = trace(demo, task).to_dict()
    groups = result["accuracy_by_group"]
    assert {name: g["questions"] for name, g in groups.items()} == dict(
        zip(SUBJECTS["mmlu"], (5, 5, 2), strict=True)
    )
    right = sum(g["questions"] * g["accuracy"] for g in groups.values())
    assert abs(right / 12 - result["accuracy"]["mean"][-1]) < 1e-12
    assert abs(sum(g["accuracy"] for g in groups.values()) / 3 - result["macro_accuracy"]) < 1e-12
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["phaseprune"])
    with pytest.raises(SystemExit) as ended:
        main(["trace", "demo", "--task", "mmlu", "--data-dir", str(tmp_path), "--limit", "4"])
    out = capsys.readouterr().out
    assert not ended.value.code and "(micro)" in out and "mean of 3 groups (macro)" in out
    assert f"--data-dir {tmp_path}" in " ".join(out.split())


def test_the_list_fits_and_a_task_is_shown(tmp_path, monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, "tasks")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    assert all(f"\n{name} " in out for name in BENCHMARKS)
    code, out, _ = command(monkeypatch, capsys, "tasks", "--json")
    listed = json.loads(out)["benchmarks"]
    assert set(listed) == set(BENCHMARKS) and listed["arc_easy"]["hub"] == "allenai/ai2_arc"
    write_hub(tmp_path, "winogrande")
    code, out, _ = command(monkeypatch, capsys, "tasks", "winogrande", "--data-dir", tmp_path)
    assert code == 0
    assert "Ann gave Eve 0 figs because Ann" in out and "Ann gave Eve 0 figs because Eve" in out
    assert "scored: ' was hungry.'  <- right" in out


def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys):
    def refused(*words):
        code, _, err = command(monkeypatch, capsys, "tasks", *words)
        assert code == 2 and "Traceback" not in err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    assert "Did you mean 'hellaswag'" in refused("helaswag")
    assert "Did you mean 'mmlu_anatomy'" in refused("mmlu_anatomi")
    said = refused("sciq")
    assert "cannot be loaded from the hub" in said
    assert "HF_HUB_OFFLINE=1" in said and "--data-dir DIR" in said
    assert "has no parquet files of the split 'test'" in refused("sciq", "--data-dir", tmp_path)
    write_hub(tmp_path, "sciq")
    said = refused("sciq", "--data-dir", tmp_path, "--shots", "9")
    assert "the split train of sciq has 4 usable examples and --shots 9 needs 9" in said
    ROW = ROWS["sciq"](0)
    for change, says in (
        ({"correct_answer": None, "support": None}, "its schema may have changed"),
    ):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(
            pa.Table.from_pylist([ROW | change]),
            tmp_path / "allenai/sciq/data/test-00000-of-00001.parquet",
        )
        assert says in refused("sciq", "--data-dir", tmp_path)


def test_the_docs_have_every_entry():
    page = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text()
    for name, entry in BENCHMARKS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        for value in (entry.hub, entry.split, entry.scoring, entry.comparable, entry.licence):
            assert value in row


def test_rows_without_an_answer_are_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_hub(tmp_path, "piqa")
    file = tmp_path / "baber/piqa/data/validation-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist([ROWS["piqa"](0) | {"label": -1}]), file)
    with pytest.raises(UserError, match="row 0: the answer .label. -1 is not.*without an an"):
        load_task("piqa", data_dir=tmp_path)


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    write_hub(tmp_path, "piqa")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'phaseprune\[tasks\]'"):
        load_task("piqa", data_dir=tmp_path)


def test_what_is_a_script_on_the_hub_is_read_from_its_conversion(tmp_path, monkeypatch):
    """`datasets` runs no script since 4.0; the hub keeps parquet files of most such sets."""
    import datasets

    folder = write_hub(tmp_path, "logiqa")
    [file] = (folder / "EleutherAI/logiqa").rglob("test*.parquet")
    expected = load_task("logiqa", data_dir=folder).questions
    asked = []

    def load_dataset(name, configuration=None, **options):
        asked.append((name, configuration, options))
        if "revision" not in options:
            raise RuntimeError("Dataset scripts are no longer supported, but found logiqa.py")
        return real("parquet", data_files={"test": str(file)}, split=options["split"])

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_task("logiqa").questions == expected
    files = {"test": "logiqa/test/*.parquet"}
    assert asked[1] == (
        "EleutherAI/logiqa",
        None,
        {"data_files": files, "revision": "refs/convert/parquet", "split": "test"},
    )
    monkeypatch.setattr(datasets, "load_dataset", real)
    # A copy of that conversion is laid out in another way.
    converted = tmp_path / "converted" / "EleutherAI/logiqa/logiqa/test/0000.parquet"
    converted.parent.mkdir(parents=True)
    file.rename(converted)
    assert load_task("logiqa", data_dir=tmp_path / "converted").questions == expected


@pytest.mark.network
@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_real_data_set(name, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    task = load_task(name, limit=20, shots=1 if BENCHMARKS[name].shots_split else 0)
    assert len(task.questions) >= 20 and task.chance <= 0.5
