"""Questions: files, their errors, prompts, splits, tokenisation."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import QUESTIONS, make_tokenizer, write_jsonl
from phaseprune.errors import UserError
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_pair, encode_task
from phaseprune.questions.files import read_questions
from phaseprune.questions.prompts import render
from phaseprune.questions.question import Question, Task
from phaseprune.questions.split import split

ROW = {"question": "Which?", "choices": ["x", "y", "z"], "answer": 1}


def test_the_three_formats_agree(tmp_path):
    rows = [dict(row, id=f"q{i}", subject="s") for i, row in enumerate(QUESTIONS)]
    jsonl = write_jsonl(tmp_path / "q.jsonl", rows)
    with open(tmp_path / "q.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, ["id", "question", "choices", "answer", "subject"])
        writer.writeheader()
        writer.writerows(dict(row, choices=json.dumps(row["choices"])) for row in rows)
    indexed = [dict(row, answer=read_questions(jsonl)[i].answer) for i, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(indexed), tmp_path / "q.parquet")
    expected = read_questions(jsonl)
    assert [q.answer for q in expected] == [0, 1, 1, 2, 3, 0, 2, 1]
    assert expected[0].id == "q0" and expected[0].group == "s"
    assert read_questions(tmp_path / "q.csv") == expected
    assert read_questions(tmp_path / "q.parquet") == expected


@pytest.mark.parametrize(
    ("answer", "choices", "expected"),
    [
        (2, ["x", "y", "z"], 2),
        ("2", ["x", "y", "z"], 2),
        ("C", ["x", "y", "z"], 2),
        ("C ", ["x", "y", "z"], 2),
        (1.0, ["x", "y", "z"], 1),
        ("3", {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, 2),
        ("B", {"text": ["x", "y"], "label": ["A", "B"]}, 1),
    ],
)
def test_answers_as_index_or_label(tmp_path, answer, choices, expected):
    path = write_jsonl(
        tmp_path / "q.jsonl", [{"question": "?", "choices": choices, "answer": answer}]
    )
    assert read_questions(path)[0].answer == expected


BAD = {
    "no question": ([{"choices": ["x", "y"], "answer": 0}], "line 1", "'question' is missing"),
    "no choices": ([ROW, {"question": "?", "answer": 0}], "line 2", "'choices' is missing"),
    "no answer": ([{"question": "?", "choices": ["x", "y"]}], "line 1", "'answer' is missing"),
    "answer outside": ([dict(ROW, answer=3)], "line 1", "0 to 2"),
    "negative answer": ([dict(ROW, answer=-1)], "line 1", "not among the 3 choices"),
    "label outside": ([dict(ROW, answer="E")], "line 1", "A, B, C"),
    "boolean answer": ([dict(ROW, answer=True)], "line 1", "not among"),
    "one choice": ([dict(ROW, choices=["x"], answer=0)], "line 1", "at least 2 choices"),
    "no list": ([dict(ROW, choices="xyz")], "line 1", "must be a list"),
    "empty choice": ([dict(ROW, choices=["x", " "])], "line 1", "choice 1 is empty"),
    "empty question": ([dict(ROW, question="")], "line 1", "question must be a text"),
    "no object": ([[1, 2]], "line 1", "must be an object"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_one_sentence_with_the_place(tmp_path, name):
    rows, place, what = BAD[name]
    path = write_jsonl(tmp_path / "bad.jsonl", rows)
    with pytest.raises(UserError) as caught:
        load_task(str(path))
    message = str(caught.value)
    assert str(path) in message and place in message and what in message
    assert "\n" not in message


def test_broken_json_names_its_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + '{"question": "?", "choices": [\n')
    with pytest.raises(UserError, match="line 2: broken JSON"):
        load_task(str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [("e.jsonl", ""), ("e.csv", "question,choices,answer\n"), ("b.jsonl", "\n\n")],
)
def test_empty_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="holds no questions"):
        load_task(str(tmp_path / name))


def test_other_unreadable_files(tmp_path):
    (tmp_path / "q.parquet").write_text("not parquet")
    with pytest.raises(UserError, match="not a readable parquet"):
        load_task(str(tmp_path / "q.parquet"))
    (tmp_path / "q.csv").write_text("question,choices,answer\nwhich,x|y,0\n")
    with pytest.raises(UserError, match="line 2.*JSON list"):
        load_task(str(tmp_path / "q.csv"))
    (tmp_path / "q.jsonl").write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(UserError, match="not UTF-8"):
        load_task(str(tmp_path / "q.jsonl"))
    (tmp_path / "q.txt").write_text("x")
    with pytest.raises(UserError, match="jsonl"):
        load_task(str(tmp_path / "q.txt"))


def test_unknown_names_come_with_near_matches(tmp_path):
    with pytest.raises(UserError, match="unknown task 'dmo'.*Did you mean 'demo'"):
        load_task("dmo")
    write_jsonl(tmp_path / "science.jsonl", [ROW])
    with pytest.raises(UserError, match="no such file.*'science.jsonl'"):
        load_task(str(tmp_path / "scince.jsonl"))
    with pytest.raises(UserError, match="scoring is 'leter'.*'letter'"):
        load_task("demo", scoring="leter")


def test_options_that_do_not_go_together():
    with pytest.raises(UserError, match="length_norm is for text"):
        load_task("demo", length_norm="chars")
    with pytest.raises(UserError, match="probability='vocabulary' is for letter"):
        load_task("demo", scoring="text", probability="vocabulary")
    with pytest.raises(UserError, match="limit"):
        load_task("demo", limit=0)


def test_default_prompts_are_lm_evals():
    question = Question("0", "Which? ", ("x", "y"), 0)
    assert render(question, "letter") == ("Which?\nA. x\nB. y\nAnswer:", [" A", " B"])
    assert render(question, "text") == ("Question: Which? \nAnswer:", [" x", " y"])


@given(st.integers(4, 60), st.integers(0, 5), st.data())
def test_split_is_disjoint_seeded_and_in_order(total, seed, data):
    questions = tuple(Question(str(i), f"q{i % 17}", ("x", "y"), 0) for i in range(total))
    task = Task("t", questions)
    wanted = data.draw(st.integers(1, max(1, total // 3)))
    first = split(task, wanted, None, seed)
    assert first == split(task, wanted, None, seed)
    calibration, evaluation = first
    assert len(calibration.questions) == wanted
    shared = {q.content for q in calibration.questions} & {q.content for q in evaluation.questions}
    assert not shared
    for side in first:
        positions = [int(q.id) for q in side.questions]
        assert positions == sorted(set(positions))


def test_split_says_when_questions_do_not_suffice():
    task = Task("t", tuple(Question(str(i), f"q{i}", ("x", "y"), 0) for i in range(10)))
    with pytest.raises(UserError, match="10 questions: 8 for calibration leave 2"):
        split(task, 8, 5)
    with pytest.raises(UserError, match="at least 1"):
        split(task, 0)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=10))
def test_pairs_are_tokenised_together(context, continuation):
    """What is scored: what the whole has behind the context alone (as lm-eval: test_parity.py)."""
    tokenizer = make_tokenizer_once()
    before, after = encode_pair(tokenizer, "Q" + context, continuation)
    whole = tokenizer("Q" + context + continuation)["input_ids"]
    assert after == whole[len(before) :]
    assert before == tokenizer(("Q" + context).rstrip())["input_ids"]


_tokenizer = []


def make_tokenizer_once():
    if not _tokenizer:
        _tokenizer.append(make_tokenizer())
    return _tokenizer[0]


def test_trailing_space_of_the_context_moves():
    tokenizer = make_tokenizer_once()
    _, with_space = encode_pair(tokenizer, "Answer: ", "blue")
    _, without = encode_pair(tokenizer, "Answer:", " blue")
    assert with_space == without


def test_labels_are_the_spaced_tokens(question_file):
    tokenizer = make_tokenizer_once()
    encoded = encode_task(load_task(str(question_file), scoring="letter"), tokenizer)
    first = [ending[0] for ending in encoded[0].continuations]
    assert tokenizer.convert_ids_to_tokens(first) == ["ĠA", "ĠB", "ĠC"]


def test_labels_that_are_not_distinct_tokens_are_refused(question_file):
    class Byteless:
        """Every letter is the same unknown token."""

        def __call__(self, text):
            return {"input_ids": [1 if c.isalpha() else 2 for c in text.replace(" ", "")]}

        def convert_ids_to_tokens(self, ids):
            return ["<unk>"] * len(ids)

    with pytest.raises(UserError, match="not single distinct tokens.*scoring='text'"):
        encode_task(load_task(str(question_file), scoring="letter"), Byteless())


def test_an_option_longer_than_the_model_takes_is_named(question_file):
    task = load_task(str(question_file), scoring="text")
    with pytest.raises(UserError, match="question 0 of .* tokens and the model takes 1"):
        encode_task(task, make_tokenizer_once(), max_length=1)


@pytest.mark.parametrize("norm", ["none", "chars", "bytes", "tokens"])
def test_units_of_normalisation(tmp_path, norm):
    row = {"question": "?", "choices": ["blüe", "red"], "answer": 0}
    task = load_task(
        str(write_jsonl(tmp_path / "q.jsonl", [row])), scoring="text", length_norm=norm
    )
    encoded = encode_task(task, make_tokenizer_once())[0]
    tokens = tuple(len(c) for c in encoded.continuations)
    expected = {"none": (1, 1), "chars": (4, 3), "bytes": (5, 3), "tokens": tokens}
    assert encoded.units == expected[norm]
