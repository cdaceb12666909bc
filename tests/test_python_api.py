"""What Python can hand in: questions and models in memory, and what is refused in words."""

import json
from pathlib import Path

import numpy as np
import pytest

import phaseprune
from phaseprune import Question, UserError, load_model, load_task
from phaseprune.questions.given import GIVEN

ROWS = [
    {"question": f"Which is number {i}?", "choices": ["red", "blue", "green"], "answer": i % 3}
    for i in range(12)
]


def table(rows):
    return pytest.importorskip("pandas").DataFrame(rows)


def data_set(rows):
    return pytest.importorskip("datasets").Dataset.from_list(rows)


def asked(rows):
    return [
        Question(str(i), row["question"], tuple(row["choices"]), row["answer"])
        for i, row in enumerate(rows)
    ]


@pytest.mark.parametrize("make", [list, tuple, table, data_set, asked])
def test_questions_of_every_kind_are_those_of_a_file(make, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    of_file, given = load_task(file), load_task(make(ROWS))
    assert given.questions == of_file.questions and given.fingerprint == of_file.fingerprint
    assert given.scoring == of_file.scoring == "letter"
    assert given.name == f"questions-{given.fingerprint[:8]}"
    assert load_task(make(ROWS), name="colours", limit=5).name == "colours"
    assert len(load_task(make(ROWS), limit=5).questions) == 5
    assert given.settings == {GIVEN: True}


def test_a_path_is_as_good_as_its_text(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROWS))
    assert load_task(file) == load_task(str(file))
    assert load_task(Path("demo"), limit=3) == load_task("demo", limit=3)


def test_columns_and_empty_cells_of_a_table():
    rows = table(
        [
            {"q": "One?", "a": "x", "b": "y", "c": None, "key": "B"},
            {"q": "Two?", "a": "x", "b": "y", "c": "z", "key": "C"},
        ]
    )
    task = load_task(rows, columns="question=q,choices=a+b+c,answer=key")
    assert [question.choices for question in task.questions] == [("x", "y"), ("x", "y", "z")]
    assert task.gold.tolist() == [1, 2]


def test_numbers_of_numpy_are_plain_ones():
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame(ROWS)
    rows["answer"] = rows["answer"].astype(np.int64)
    rows["choices"] = [np.array(row["choices"], dtype=object) for row in ROWS]
    assert load_task(rows).questions == load_task(ROWS).questions
    question = Question("1", "Which?", ["a", "b"], np.int64(1))
    assert load_task([question]).questions == (Question("1", "Which?", ("a", "b"), 1),)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (5, "not an int"),
        (None, "not a NoneType"),
        (np.zeros(3), "not a numpy ndarray"),
        (iter(ROWS), "not a list_iterator"),
        ({"train": ROWS}, "a mapping (train); give one of its parts"),
        ([], "there are none"),
        ([3], "row 1: each question must be an object"),
        (ROWS[:1] + [{"question": "x"}], "row 2: the field 'choices' is missing"),
        ([{"question": "x", "choices": ["a", "b"], "answer": "z"}], "the answer 'z' is not among"),
        (asked(ROWS) + ROWS, "number 13: it is a mapping"),
        ([Question("1", "x", ("a",), 0)], "number 1: choices must be 2 to 26 texts"),
        ([Question("1", "x", ("a", "b"), 2)], "answer must be the 0-based number"),
        ([Question("1", " ", ("a", "b"), 0)], "the question must be a text"),
        ([Question("1", "x", ("a", ""), 0)], "a choice must be a text"),
        ([Question(1, "x", ("a", "b"), 0)], "id must be a text"),
    ],
)
def test_what_is_no_task_is_refused_in_words(given, says):
    with pytest.raises(UserError) as refused:
        load_task(given)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_tasks_data_set_dicts_and_double_columns_are_refused():
    with pytest.raises(UserError, match="which is one already"):
        load_task(load_task(ROWS))
    datasets = pytest.importorskip("datasets")
    with pytest.raises(UserError, match=r"a mapping \(test\); give one of its parts"):
        load_task(datasets.DatasetDict({"test": data_set(ROWS)}))
    twice = table(ROWS)[["question", "question", "choices", "answer"]]
    with pytest.raises(UserError, match="the column 'question' twice"):
        load_task(twice)
    with pytest.raises(UserError, match="these are Questions"):
        load_task(asked(ROWS), columns="question=q")


@pytest.mark.parametrize("name", ["demo", "arc_easy", "lm_eval:arc_easy", "", 3])
def test_names_that_stand_for_others_are_refused(name):
    with pytest.raises(UserError, match="name"):
        load_task(ROWS, name)


def test_a_name_is_for_questions_without_one():
    with pytest.raises(UserError, match="demo has a name"):
        load_task("demo", name="mine")


@pytest.fixture(scope="module")
def parts():
    """The bundled model as transformers has it, and its tokenizer."""
    import torch
    import transformers

    folder = Path(phaseprune.__file__).parent / "demo" / "model"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.train(), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def decoder(parts):
    return load_model(*parts)


@pytest.mark.slow
def test_a_model_in_memory_is_traced_like_one_by_name(decoder):
    task = load_task("demo", limit=12)
    by_name = phaseprune.trace(load_model("demo"), task)
    assert np.array_equal(phaseprune.trace(decoder, task).raw_scores, by_name.raw_scores)
    assert not decoder.model.training


def test_its_fingerprint_is_of_its_weights(parts, decoder):
    import torch

    model, tokenizer = parts
    before = decoder.source.identity
    assert before["in_memory"] and len(before["fingerprint"]) == len(before["tokenizer"]) == 64
    assert load_model(model, tokenizer=tokenizer).source.identity == before
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        kept = weight[3, 3].clone()
        weight[3, 3] += 0.5
        other = load_model(model, tokenizer).source.identity
        weight[3, 3] = kept
    assert other["fingerprint"] != before["fingerprint"]
    assert other["tokenizer"] == before["tokenizer"]


@pytest.mark.slow
def test_an_export_of_it_has_the_weights_of_one_by_name(decoder, tmp_path):
    from safetensors.torch import load_file

    found = phaseprune.export(decoder, [12, 5], tmp_path / "memory")
    phaseprune.export(load_model("demo"), [12, 5], tmp_path / "name")
    assert found.max_abs_logit_difference == 0
    memory, name = (
        load_file(tmp_path / which / "model.safetensors") for which in ("memory", "name")
    )
    assert memory.keys() == name.keys()
    assert all((memory[key] == name[key]).all() for key in name)
    assert not (tmp_path / "memory" / "mergekit.yaml").exists()  # it would name another model
    assert (
        load_model(tmp_path / "memory").tokenizer("A b").input_ids
        == decoder.tokenizer("A b").input_ids
    )


@pytest.mark.slow
def test_its_run_goes_on_and_cannot_be_healed(decoder, tmp_path):
    task = load_task("demo", limit=40)
    settings = {"remove": 1, "out": tmp_path / "run"}
    first = phaseprune.prune(decoder, task, **settings)
    assert phaseprune.prune(decoder, task, **settings).state == "finished"
    with pytest.raises(UserError, match="its weights differ"):
        phaseprune.prune(load_model("demo"), task, **settings)
    with pytest.raises(UserError, match="was given in memory, and healing loads it again"):
        phaseprune.heal(tmp_path / "run")
    assert first.removed
    given = load_task(list(task.questions), name="mine")
    phaseprune.prune(decoder, given, remove=1, out=tmp_path / "given")
    with pytest.raises(UserError, match="were given in Python, and healing loads them again"):
        phaseprune.heal(tmp_path / "given")


@pytest.mark.slow
def test_what_needs_files_is_refused_in_a_sentence(decoder, tmp_path):
    exported = phaseprune.export(decoder, [12], tmp_path / "one")
    with pytest.raises(UserError, match="there are no files for this; save model and tokenizer"):
        phaseprune.measure_saving(decoder, exported.path)


def test_what_is_no_model_is_refused_in_words(parts):
    import torch

    model, tokenizer = parts
    for wrong, says in (
        (5, "not int 5"),
        (None, "not NoneType"),
        ([model], "not list"),
        (torch.nn.Linear(2, 2), "not a torch Linear"),
        (model.model, "is not a causal"),
    ):
        with pytest.raises(UserError) as refused:
            load_model(wrong, tokenizer=tokenizer)
        assert says in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(UserError, match="needs its tokenizer too"):
        load_model(model)
    with pytest.raises(UserError, match="must be a transformers tokenizer and is str"):
        load_model(model, tokenizer="demo")
    with pytest.raises(UserError, match="is loaded with its own tokenizer"):
        load_model("demo", tokenizer=tokenizer)
    for option in ({"dtype": "bfloat16"}, {"device": "cpu"}, {"stream": True}, {"revision": "x"}):
        with pytest.raises(UserError, match=f"{[*option][0]} is for loading by name"):
            load_model(model, tokenizer=tokenizer, **option)
    with torch.device("meta"):
        empty = type(model)(model.config)
    with pytest.raises(UserError, match="not all on one device"):
        load_model(empty, tokenizer=tokenizer)
