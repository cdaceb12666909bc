"""Files of questions as people have them: schemas, formats, ``--columns``, and what is refused."""

import csv
import gzip
import json
import math
import shlex

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import command, write_jsonl
from phaseprune.errors import UserError
from phaseprune.questions.catalog import load_task
from phaseprune.questions.files import read_file, read_questions
from phaseprune.questions.prompts import put

#: Questions in the terms of no schema: text, options, the right one.
WORLD = [
    ("Which planet is red?", ("Venus", "Mars", "Jupiter", "Saturn"), 1),
    ("What do plants take in?", ("Oxygen", "Carbon dioxide", "Helium", "Neon"), 1),
    ("How many legs has a spider?", ("6", "8", "10", "4"), 1),
    ("None of these: how many moons has Venus?", ("One", "Two", "None", "Three"), 2),
    ("Water boils at, in Celsius?", ("100", "50", "0", "75"), 0),
    ("Which is last, of a, b and c?", ("a", "b", "a; b", "c"), 3),
]
PAIRS = [(text, options[:2], right % 2) for text, options, right in WORLD]


def letter(number):
    return "ABCDE"[number]


def columns(names, options):
    return dict(zip(names, options, strict=True))


def arc(texts, **more):
    return {"text": list(texts), "label": [*"ABCDE"[: len(texts)]], **more}


def wrong(options, right):
    return [option for number, option in enumerate(options) if number != right]


def _one_right(names, right_name):
    return lambda q, o, r: {**columns(names, wrong(o, r)), right_name: o[r]}


#: Schema -> (a row of it by question, options and right one; what it is recognised as).
SCHEMAS = {
    "arc hub": (
        lambda q, o, r: {"id": "x" + q, "question": q, "choices": arc(o), "answerKey": letter(r)},
        "ARC (",
    ),
    "arc hub, numbers": (
        lambda q, o, r: {
            "question": q,
            "choices": {"text": list(o), "label": ["1", "2", "3", "4"]},
            "answerKey": str(r + 1),
        },
        "ARC (",
    ),
    "arc ai2": (
        lambda q, o, r: {
            "id": "x" + q,
            "question": {
                "stem": q,
                "choices": [{"text": t, "label": letter(i)} for i, t in enumerate(o)],
            },
            "answerKey": letter(r),
        },
        "ARC (AI2)",
    ),
    "arc csv": (
        lambda q, o, r: {
            "questionID": q,
            "question": q + "".join(f" ({letter(i)}) {t}" for i, t in enumerate(o)),
            "AnswerKey": letter(r),
        },
        "ARC (AI2)",
    ),
    "csqa hub": (
        lambda q, o, r: {
            "question": q,
            "question_concept": "x",
            "choices": arc(o),
            "answerKey": letter(r),
        },
        "CommonsenseQA",
    ),
    "csqa jsonl": (
        lambda q, o, r: {
            "answerKey": letter(r),
            "question": {
                "question_concept": "x",
                "stem": q,
                "choices": [{"label": letter(i), "text": t} for i, t in enumerate(o)],
            },
        },
        "CommonsenseQA",
    ),
    "obqa hub": (
        lambda q, o, r: {"question_stem": q, "choices": arc(o), "answerKey": letter(r)},
        "OpenBookQA",
    ),
    "qasc": (
        lambda q, o, r: {
            "question": q,
            "choices": arc(o),
            "answerKey": letter(r),
            "formatted_question": q,
        },
        "QASC",
    ),
    "exams": (
        lambda q, o, r: {
            "question": {"stem": q, "choices": arc(o, para=[""] * len(o))},
            "answerKey": letter(r),
        },
        "ARC (AI2)",
    ),
    "hellaswag ctx": (lambda q, o, r: {"ctx": q, "endings": list(o), "label": str(r)}, "HellaSwag"),
    "swag": (
        lambda q, o, r: {
            "startphrase": q,
            "sent1": "x",
            "sent2": "y",
            "label": r,
            **columns(["ending0", "ending1", "ending2", "ending3"], o),
        },
        "SWAG",
    ),
    "mmlu hub": (
        lambda q, o, r: {"question": q, "subject": "s", "choices": list(o), "answer": r},
        "plain questions",
    ),
    "mmlu columns": (
        lambda q, o, r: {"question": q, **columns("ABCD", o), "answer": letter(r)},
        "MMLU (",
    ),
    "cmmlu": (
        lambda q, o, r: {"": "0", "Question": q, **columns("ABCD", o), "Answer": letter(r)},
        "MMLU (",
    ),
    "kmmlu": (
        lambda q, o, r: {
            "question": q,
            "answer": r + 1,
            **columns("ABCD", o),
            "Category": "x",
            "Human Accuracy": 0.5,
        },
        "KMMLU",
    ),
    "global mmlu": (
        lambda q, o, r: {
            "sample_id": "x",
            "question": q,
            "answer": letter(r),
            **columns(["option_a", "option_b", "option_c", "option_d"], o),
        },
        "plain questions",
    ),
    "mmlu pro": (
        lambda q, o, r: {
            "question_id": 3,
            "question": q,
            "options": list(o),
            "answer": letter(r),
            "answer_index": r,
            "category": "x",
        },
        "MMLU-Pro",
    ),
    "ceval": (
        lambda q, o, r: {
            "id": 0,
            "question": q,
            **columns("ABCD", o),
            "answer": letter(r),
            "explanation": "why",
        },
        "C-Eval",
    ),
    "medmcqa": (
        lambda q, o, r: {
            "question": q,
            "cop": r,
            "exp": "x",
            "subject_name": "s",
            **columns(["opa", "opb", "opc", "opd"], o),
        },
        "MedMCQA",
    ),
    "medmcqa, as first published": (
        lambda q, o, r: {"question": q, "cop": r + 1, **columns(["opa", "opb", "opc", "opd"], o)},
        "MedMCQA",
    ),
    "medqa": (
        lambda q, o, r: {
            "question": q,
            "answer": o[r],
            "answer_idx": letter(r),
            "options": columns("ABCD", o),
            "meta_info": "x",
        },
        "MedQA",
    ),
    "medqa, bigbio": (
        lambda q, o, r: {
            "question": q,
            "answer": o[r],
            "answer_idx": letter(r),
            "options": [{"key": letter(i), "value": t} for i, t in enumerate(o)],
        },
        "MedQA",
    ),
    "medqa, hf": (
        lambda q, o, r: {
            "sent1": q,
            "sent2": "",
            "label": r,
            **columns(["ending0", "ending1", "ending2", "ending3"], o),
        },
        "MedQA",
    ),
    "headqa": (
        lambda q, o, r: {
            "qid": 1,
            "qtext": q,
            "ra": r + 1,
            "answers": [{"aid": i + 1, "atext": t} for i, t in enumerate(o)],
        },
        "HeadQA",
    ),
    "agieval": (
        lambda q, o, r: {
            "passage": None,
            "question": q,
            "label": letter(r),
            "answer": None,
            "options": [f"({letter(i)}){t}" for i, t in enumerate(o)],
        },
        "AGIEval",
    ),
    "agieval, hub": (
        lambda q, o, r: {
            "query": f"Q: {q} Answer Choices: (A)… \nA: Among A through D, the answer is",
            "choices": [f"({letter(i)}){t}" for i, t in enumerate(o)],
            "gold": [r],
        },
        "AGIEval",
    ),
    "lm-eval": (lambda q, o, r: {"query": q, "choices": list(o), "gold": r}, "lm-eval"),
    "aqua": (
        lambda q, o, r: {
            "question": q,
            "rationale": "x",
            "correct": letter(r),
            "options": [f"{letter(i)}){t}" for i, t in enumerate(o)],
        },
        "AQuA",
    ),
    "mathqa": (
        lambda q, o, r: {
            "Problem": q,
            "correct": letter(r).lower(),
            "Rationale": "x",
            "options": " , ".join(f"{letter(i).lower()} ) {t}" for i, t in enumerate(o)),
        },
        "MathQA",
    ),
    "race with a question a row": (
        lambda q, o, r: {
            "article": "Long ago.",
            "question": q,
            "options": list(o),
            "answer": letter(r),
        },
        "RACE",
    ),
    "race as published": (
        lambda q, o, r: {
            "article": "Long ago.",
            "questions": [q],
            "options": [list(o)],
            "answers": [letter(r)],
            "id": "high1.txt",
        },
        "RACE",
    ),
    "race of lm-eval": (
        lambda q, o, r: {
            "article": "Long ago.",
            "problems": repr([{"question": q, "options": list(o), "answer": letter(r)}]),
        },
        "RACE",
    ),
    "mutual": (lambda q, o, r: {"article": q, "options": list(o), "answers": letter(r)}, "MuTual"),
    "logiqa": (
        lambda q, o, r: {
            "context": "All.",
            "question": q,
            "options": list(o),
            "label": letter(r).lower(),
        },
        "LogiQA",
    ),
    "logiqa, hub": (
        lambda q, o, r: {"context": "All.", "query": q, "options": list(o), "correct_option": r},
        "LogiQA",
    ),
    "logiqa 2": (
        lambda q, o, r: {"id": 1, "text": "All.", "question": q, "options": list(o), "answer": r},
        "LogiQA",
    ),
    "reclor": (
        lambda q, o, r: {"context": "All.", "question": q, "answers": list(o), "label": r},
        "plain questions",
    ),
    "quail": (
        lambda q, o, r: {
            "context": "All.",
            "question": q,
            "answers": list(o),
            "correct_answer_id": r,
        },
        "plain questions",
    ),
    "cosmosqa": (
        lambda q, o, r: {
            "context": "All.",
            "question": q,
            "label": r,
            **columns(["answer0", "answer1", "answer2", "answer3"], o),
        },
        "CosmosQA",
    ),
    "belebele": (
        lambda q, o, r: {
            "flores_passage": "All.",
            "question": q,
            "correct_answer_num": str(r + 1),
            **columns(["mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4"], o),
        },
        "Belebele",
    ),
    "gpqa": (
        lambda q, o, r: {
            "Question": q,
            **_one_right([f"Incorrect Answer {i}" for i in (1, 2, 3)], "Correct Answer")(q, o, r),
        },
        "GPQA",
    ),
    "sciq": (
        lambda q, o, r: {
            "question": q,
            "support": "Because.",
            **_one_right([f"distractor{i}" for i in (1, 2, 3)], "correct_answer")(q, o, r),
        },
        "SciQ",
    ),
    "truthfulqa": (
        lambda q, o, r: {
            "question": q,
            "mc1_targets": {"choices": [o[r], *wrong(o, r)], "labels": [1, 0, 0, 0]},
        },
        "TruthfulQA",
    ),
    "truthfulqa, as published": (
        lambda q, o, r: {"question": q, "mc1_targets": {o[r]: 1, **dict.fromkeys(wrong(o, r), 0)}},
        "TruthfulQA",
    ),
    "quiz": (
        lambda q, o, r: {"question": q, "correct_answer": o[r], "incorrect_answers": wrong(o, r)},
        "quiz",
    ),
    "big-bench": (
        lambda q, o, r: {"input": q, "target_scores": {t: int(i == r) for i, t in enumerate(o)}},
        "BIG-bench",
    ),
    "big-bench, hub": (
        lambda q, o, r: {
            "inputs": q,
            "targets": [o[r]],
            "multiple_choice_targets": list(o),
            "multiple_choice_scores": [int(i == r) for i in range(len(o))],
        },
        "BIG-bench",
    ),
    "okapi": (
        lambda q, o, r: {
            "id": "x",
            "instruction": q,
            "answer": letter(r),
            **columns(["option_a", "option_b", "option_c", "option_d"], o),
            "option_e": None,
        },
        "plain questions",
    ),
    "arabic mmlu": (
        lambda q, o, r: {
            "Context": None,
            "Question": q,
            "Answer Key": letter(r),
            "Group": "g",
            **columns([f"Option {i}" for i in (1, 2, 3, 4)], o),
            "Option 5": "",
        },
        "plain questions",
    ),
    "dream": (
        lambda q, o, r: {
            "dialogue": ["M: Hello.", "W: Yes."],
            "question": q,
            "choice": list(o),
            "answer": o[r],
        },
        "plain questions",
    ),
    "musr": (
        lambda q, o, r: {
            "narrative": "Once.",
            "question": q,
            "choices": repr(list(o)),
            "answer_index": r,
            "answer_choice": o[r],
        },
        "plain questions",
    ),
    "bbq": (
        lambda q, o, r: {
            "context": "Once.",
            "question": q,
            "label": r,
            **columns(["ans0", "ans1", "ans2", "ans3"], o),
        },
        "plain questions",
    ),
    "answer as text": (
        lambda q, o, r: {"question": q, "choices": list(o), "answer": o[r]},
        "plain questions",
    ),
    "answer in brackets": (
        lambda q, o, r: {"question": q, "choices": list(o), "answer": f"({letter(r)})"},
        "plain questions",
    ),
    "answer with a dot": (
        lambda q, o, r: {"prompt": q, "options": list(o), "target": f"{letter(r).lower()}."},
        "plain questions",
    ),
    "numbered options": (
        lambda q, o, r: {
            "question": q,
            "answer": letter(r),
            **columns(["option1", "option2", "option3", "option4"], o),
        },
        "plain questions",
    ),
    "numbered options, and answers": (
        lambda q, o, r: {
            "question": q,
            "answer": r + 1,
            **columns(["option1", "option2", "option3", "option4"], o),
        },
        "plain questions",
    ),
    "own labels in a mapping": (
        lambda q, o, r: {
            "question": q,
            "choices": columns(["w", "x", "y", "z"], o),
            "answer": "wxyz"[r],
        },
        "plain questions",
    ),
    "one of noughts": (
        lambda q, o, r: {
            "question": q,
            "choices": list(o),
            "label": [int(i == r) for i in range(len(o))],
        },
        "plain questions",
    ),
}
#: The same of two options.
OF_TWO = {
    "piqa": (lambda q, o, r: {"goal": q, "sol1": o[0], "sol2": o[1], "label": r}, "PIQA"),
    "winogrande": (
        lambda q, o, r: {
            "sentence": q + " _ is.",
            "option1": o[0],
            "option2": o[1],
            "answer": "12"[r],
        },
        "WinoGrande",
    ),
    "copa": (
        lambda q, o, r: {
            "premise": q,
            "choice1": o[0],
            "choice2": o[1],
            "question": "cause",
            "label": r,
            "idx": 0,
        },
        "COPA",
    ),
    "xcopa": (
        lambda q, o, r: {
            "premise": q,
            "choice1": o[0],
            "choice2": o[1],
            "label": r,
            "question": "effect",
            "idx": 0,
            "changed": False,
        },
        "XCOPA",
    ),
    "storycloze": (
        lambda q, o, r: {
            "InputStoryid": q,
            **{f"InputSentence{i}": q for i in (1, 2, 3, 4)},
            "RandomFifthSentenceQuiz1": o[0],
            "RandomFifthSentenceQuiz2": o[1],
            "AnswerRightEnding": r + 1,
        },
        "StoryCloze",
    ),
    "storycloze, hub": (
        lambda q, o, r: {
            **{f"input_sentence_{i}": q for i in (1, 2, 3, 4)},
            "sentence_quiz1": o[0],
            "sentence_quiz2": o[1],
            "answer_right_ending": r + 1,
        },
        "StoryCloze",
    ),
    "blimp": (
        lambda q, o, r: {"sentence_good": o[r], "sentence_bad": o[1 - r], "UID": "x"},
        "BLiMP",
    ),
}
ALL = {name: (*made, WORLD) for name, made in SCHEMAS.items()} | {
    name: (*made, PAIRS) for name, made in OF_TWO.items()
}


def check_world(read, world, ordered=True):
    """The same options and right ones; the question's text stands in what is asked."""
    assert len(read.questions) == len(world)
    for question, (text, options, right) in zip(read.questions, world, strict=True):
        if ordered:
            assert question.choices == options and question.answer == right
        assert sorted(question.choices) == sorted(options)
        assert question.choices[question.answer] == options[right]
        assert text.rstrip("?") in question.text or "acceptable" in question.text


ONE_PLACE = ("gpqa", "sciq", "truthfulqa", "truthfulqa, as published", "quiz", "blimp")


@pytest.mark.parametrize("name", ALL)
def test_public_schemas_are_recognised(tmp_path, name):
    make, recognised, world = ALL[name]
    path = write_jsonl(tmp_path / "q.jsonl", [make(*row) for row in world])
    read = read_file(path)
    assert read.recognised.startswith(recognised) or recognised in read.recognised
    check_world(read, world, ordered=name not in ONE_PLACE)
    # All that is needed is said in one row, so one row is recognised too.
    assert read_file(write_jsonl(tmp_path / "1.jsonl", [make(*world[0])])).recognised == (
        read.recognised
    )
    if name in ONE_PLACE:
        places = {question.answer for question in read.questions}
        assert len(places) > 1 and read.questions == read_questions(path)
        assert any("one place" in note for note in read.notes)
    for scoring in ("letter", "text"):
        task = load_task(str(path), scoring=scoring)
        pairs = put(task.questions[0], task).pairs()
        assert len(pairs) == len(world[0][1]) and all(ending.strip() for _, ending in pairs)


def test_context_stands_before_the_question(tmp_path):
    row = {"passage": "It was hot.", "question": "Was it?", "options": ["no", "yes"], "answer": 1}
    [question] = read_questions(write_jsonl(tmp_path / "q.jsonl", [row]))
    assert question.text == "It was hot.\nQuestion: Was it?"
    mapped = dict(question="question", choices="options", answer="answer")
    [question] = read_questions(write_jsonl(tmp_path / "q.jsonl", [row]), mapped)
    assert question.text == "Was it?"
    row |= {"passage": {"source": 5}}  # nothing that could be read before a question
    [question] = read_questions(write_jsonl(tmp_path / "q.jsonl", [row]))
    assert question.text == "Was it?"


def test_social_iqa_and_hellaswag(tmp_path):
    rows = [
        {
            "context": "Kai met dogs.",
            "question": "Why?",
            "answerA": "to play",
            "answerB": "by chance",
            "answerC": "to eat",
            "label": str(1 + i),
        }
        for i in range(3)
    ]
    read = read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    assert [q.answer for q in read.questions] == [0, 1, 2] and read.notes == ()
    assert read.recognised.startswith("Social IQa (context, question, answerA, answerB, answerC")
    assert read.questions[0].text == "Kai met dogs. Why?"
    row = {
        "ind": 1,
        "activity_label": "Cooking",
        "ctx_a": "A cook.",
        "ctx_b": "then he",
        "ctx": "A cook. then he",
        "endings": ["[step] eats  it.", "runs."],
        "label": "1",
    }
    [question] = read_questions(write_jsonl(tmp_path / "h.jsonl", [row]))
    assert question.text == "Cooking: A cook. Then he"
    assert question.choices == (" eats it.", "runs.") and question.answer == 1


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("answer", [True, False]),
        ("label", [1, 0]),
        ("answer", ["True", "False"]),
        ("answer", ["yes", "no"]),
        ("label", [1.0, 0.0]),
    ],
)
def test_boolq(tmp_path, field, values):
    rows = [
        {"passage": "Numbers.", "question": f"is {value} one", "title": "x", field: value}
        for value in values
    ]
    read = read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    assert read.recognised.startswith("BoolQ")
    assert [q.choices[q.answer] for q in read.questions] == ["yes", "no"]
    assert read.questions[0].text.startswith("Numbers.\nQuestion: is ")


def test_a_passage_with_another_answer_is_not_boolq(tmp_path):
    path = write_jsonl(
        tmp_path / "q.jsonl", [{"passage": "It.", "question": "What?", "answer": "a number"}]
    )
    with pytest.raises(UserError, match="not recognised: the field 'choices' is missing"):
        read_file(path)
    rows = [{"question": "is it", "answer": "true", "passage": "It."}]
    assert read_file(write_table(tmp_path / "q.csv", rows)).recognised.startswith("BoolQ")


def test_pubmedqa(tmp_path):
    rows = [
        {
            "pubid": 1,
            "question": "Does it?",
            "context": {"contexts": ["One.", "Two."]},
            "final_decision": said,
        }
        for said in ("maybe", "yes")
    ]
    read = read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    assert [q.choices[q.answer] for q in read.questions] == ["maybe", "yes"]
    assert read.questions[0].text == "One.\nTwo.\nQuestion: Does it?"


def test_several_questions_of_an_article(tmp_path):
    row = {
        "article": "Long ago.",
        "id": "h1",
        "questions": ["Who?", "When?"],
        "options": [["I", "you"], ["now", "then"]],
        "answers": ["B", "A"],
    }
    questions = read_questions(write_jsonl(tmp_path / "q.jsonl", [row, row | {"id": "h2"}]))
    assert [q.id for q in questions] == ["h1/0", "h1/1", "h2/0", "h2/1"]
    assert [q.choices[q.answer] for q in questions] == ["you", "now"] * 2
    assert questions[1].text == "Article: Long ago.\n\nWhen?"
    with pytest.raises(UserError, match="line 1: questions, options and answers must be lists, on"):
        read_questions(write_jsonl(tmp_path / "q.jsonl", [row | {"answers": ["B"]}]))


# Formats


def rows_of(name, world=WORLD):
    make = SCHEMAS[name][0]
    return [make(*row) for row in world]


def write_table(path, rows, header=True, delimiter=",", encoding="utf-8", **options):
    with open(path, "w", newline="", encoding=encoding) as handle:
        writer = csv.writer(handle, delimiter=delimiter, **options)
        if header:
            writer.writerow(list(rows[0]))
        writer.writerows(
            [json.dumps(v) if isinstance(v, list | dict) else v for v in row.values()]
            for row in rows
        )
    return path


def as_json(path, document):
    path.write_text(json.dumps(document))
    return path


def lettered(rows):
    return [row | {"answer": letter(row["answer"])} for row in rows]


FORMATS = {
    "json": lambda d, rows: as_json(d / "q.json", rows),
    "json with indents": lambda d, rows: (
        (d / "q.json").write_text(json.dumps(rows, indent=1)) and d / "q.json"
    ),
    "one array in jsonl": lambda d, rows: as_json(d / "q.jsonl", rows),
    "an indented array in jsonl": lambda d, rows: (
        (d / "q.jsonl").write_text(json.dumps(rows, indent=1)) and d / "q.jsonl"
    ),
    "jsonl in json": lambda d, rows: write_jsonl(d / "q.json", rows),
    "json with data": lambda d, rows: as_json(d / "q.json", {"version": "1", "data": rows}),
    "json of the hub": lambda d, rows: as_json(
        d / "q.json", {"rows": [{"row_idx": i, "row": row} for i, row in enumerate(rows)]}
    ),
    "json by id": lambda d, rows: as_json(d / "q.json", {f"q{i}": r for i, r in enumerate(rows)}),
    "json of columns": lambda d, rows: as_json(
        d / "q.json", {name: {str(i): r[name] for i, r in enumerate(rows)} for name in rows[0]}
    ),
    "json of lists": lambda d, rows: as_json(
        d / "q.json", {name: [row[name] for row in rows] for name in rows[0]}
    ),
    "json under a name of its own": lambda d, rows: as_json(d / "q.json", {"quiz": rows}),
    "json of pandas, split": lambda d, rows: as_json(
        d / "q.json",
        {
            "columns": [*rows[0]],
            "index": [*range(len(rows))],
            "data": [[*row.values()] for row in rows],
        },
    ),
    "json.gz": lambda d, rows: (
        (d / "q.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode())) and d / "q.json.gz"
    ),
    "jsonl.gz": lambda d, rows: (
        (d / "q.jsonl.gz").write_bytes(gzip.compress(write_jsonl(d / "q", rows).read_bytes()))
        and d / "q.jsonl.gz"
    ),
    "jsonl with a mark and Windows' ends": lambda d, rows: (
        (d / "q.JSONL").write_bytes(
            b"\xef\xbb\xbf" + write_jsonl(d / "q", rows).read_bytes().replace(b"\n", b"\r\n")
        )
        and d / "q.JSONL"
    ),
    "ndjson": lambda d, rows: write_jsonl(d / "q.ndjson", rows),
    "csv": lambda d, rows: write_table(d / "q.csv", rows),
    "csv of Excel": lambda d, rows: write_table(
        d / "q.csv", rows, delimiter=";", encoding="utf-8-sig"
    ),
    "csv of Excel with sep": lambda d, rows: (
        (d / "q.csv").write_text(
            "sep=|\n" + write_table(d / "r.csv", rows, delimiter="|").read_text()
        )
        and d / "q.csv"
    ),
    "csv.gz": lambda d, rows: (
        (d / "q.csv.gz").write_bytes(gzip.compress(write_table(d / "q.csv", rows).read_bytes()))
        and d / "q.csv.gz"
    ),
    "unicode text of Excel": lambda d, rows: write_table(
        d / "q.tsv", rows, delimiter="\t", encoding="utf-16"
    ),
    "tsv": lambda d, rows: write_table(d / "q.tsv", rows, delimiter="\t"),
    "tabs in csv": lambda d, rows: write_table(d / "q.csv", rows, delimiter="\t"),
    "semicolons in tsv": lambda d, rows: write_table(d / "q.tsv", rows, delimiter=";"),
    "csv, all quoted": lambda d, rows: write_table(d / "q.csv", rows, quoting=csv.QUOTE_ALL),
    "parquet": lambda d, rows: (
        pq.write_table(pa.Table.from_pylist(rows), d / "q.parquet") or d / "q.parquet"
    ),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("schema", ["mmlu hub", "mmlu columns", "arc hub"])
def test_formats(tmp_path, name, schema):
    check_world(read_file(FORMATS[name](tmp_path, rows_of(schema))), WORLD)


@pytest.mark.parametrize("lead", [False, True])
@pytest.mark.parametrize("brackets", ["{}", "({})"])
@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".tsv", "\t")])
def test_tables_without_a_header(tmp_path, suffix, delimiter, brackets, lead):
    rows = [row | {"answer": brackets.format(row["answer"])} for row in rows_of("mmlu columns")]
    if lead:
        rows = [{"id": number, **row} for number, row in enumerate(rows, start=7)]
    path = write_table(tmp_path / f"q{suffix}", rows, header=False, delimiter=delimiter)
    read = read_file(path)
    check_world(read, WORLD)
    assert read.questions[0].id == ("7" if lead else "0") and read.recognised.startswith("MMLU")


def test_a_table_of_lists_without_a_header(tmp_path):
    rows = [{"q": q, "c": list(o), "a": letter(r)} for q, o, r in WORLD]
    check_world(read_file(write_table(tmp_path / "q.csv", rows, header=False)), WORLD)


def test_other_tables_without_a_header_are_refused_with_numbers(tmp_path):
    rows = [{"a": letter(r), **columns("wxyz", o), "q": q} for q, o, r in WORLD]
    path = write_table(tmp_path / "q.csv", rows, header=False)
    check_proposal(path, "no header")
    check_world(read_file(path, "question=6,choices=2+3+4+5,answer=1"), WORLD)


NUMBERED = [(q, o, r + 1) for q, o, r in WORLD] + [("Nine plus one?", ("7", "8", "9", "10"), 4)]


@pytest.mark.parametrize("last", ["1-based", "text"])
def test_tables_without_a_header_whose_first_row_has_numbers(tmp_path, last):
    """A cell of the first row may look like a column's number, or stand there twice."""
    rows = [
        {"q": q, **columns("wxyz", o), "a": r if last == "1-based" else o[r - 1]}
        for q, o, r in [NUMBERED[2], *NUMBERED]
    ]
    path = write_table(tmp_path / "q.csv", rows, header=False)
    world = [(q, o, r - 1) for q, o, r in [NUMBERED[2], *NUMBERED]]
    mapping = "question=1,choices=2+3+4+5,answer=6"
    if last == "text":
        read = read_file(path)
        assert read.recognised.startswith("MMLU without a header")
        check_world(read, world)
        check_world(read_file(path, mapping), world)
        return
    with pytest.raises(UserError, match="answer 8?.*columns|look 1-based"):
        read_file(path)
    for given in ("answers=1-based", f"{mapping},answers=1-based"):
        check_world(read_file(path, given), world)
    moved = [{"a": row.pop("a"), **row} for row in rows]
    path = write_table(tmp_path / "r.csv", moved, header=False)
    check_world(check_proposal(path, "no header"), world)


def test_answers_count_from_1_in_a_plain_table(tmp_path):
    """What is proposed can be read, though no cell of it names a column but by its number."""
    path = tmp_path / "q.csv"
    path.write_text("".join(f"q{i},w,x,y,z,{i % 4 + 1}\n" for i in range(8)))
    with pytest.raises(UserError, match="line 4: .*0-based index .0 to 3.*look 1-based .1 to 4"):
        read_file(path)
    for given in ("", "question=1,choices=2+3+4+5,answer=6,"):
        read = read_file(path, given + "answers=1-based")
        assert [q.answer for q in read.questions] == [0, 1, 2, 3] * 2
        assert read.questions[0].choices == tuple("wxyz")


LEADS = {
    "ids": lambda i: [f"id-{i}"],
    "subjects": lambda i: ["high school physics" if i < 4 else "virology"],
    "one subject": lambda i: ["virology"],
    "numbers and subjects": lambda i: [i, "high school physics" if i < 4 else "virology"],
}


@pytest.mark.parametrize("name", LEADS)
def test_what_stands_before_the_question_is_not_taken_for_it(tmp_path, name):
    rows = [[*LEADS[name](i), q, *o, letter(r)] for i, (q, o, r) in enumerate(WORLD)]
    path = write_table(tmp_path / "q.csv", [dict(enumerate(row)) for row in rows], header=False)
    read = check_proposal(path, "no header, and column [12] may be the question or stand before it")
    check_world(read, WORLD)
    if name == "ids":
        assert [q.id for q in read.questions] == [row[0] for row in rows]
    else:
        assert [q.group for q in read.questions] == [row[-7] for row in rows]


@pytest.mark.parametrize(
    "header",
    [
        "Q,opt1,opt2,opt3,opt4,A",
        "question,opt1,opt2,opt3,opt4,A",
        "Frage,a1,a2,a3,a4,A",
        "Frage,rot,grün,blau,gelb,A",
        "Die Frage,w_a,w_b,w_c,w_d,B",
        "nr,Frage,w1,w2,w3,w4,D",
    ],
)
def test_a_header_that_ends_with_a_letter_is_none_of_the_questions(tmp_path, header):
    rows = [
        [*([i] if header.startswith("nr") else []), q, *o, letter(r)]
        for i, (q, o, r) in enumerate(WORLD)
    ]
    rows = [dict(zip(header.split(","), row, strict=True)) for row in rows]
    check_world(check_proposal(write_table(tmp_path / "q.csv", rows)), WORLD)


def test_a_first_row_that_counts_is_a_question(tmp_path):
    """Options of the first row alone make it no header."""
    for options in (("0", "1", "2", "3"), ("Vitamin A", "Vitamin B", "Vitamin C", "Vitamin D")):
        world = [("Which one of them is it?", options, 2), *WORLD]
        rows = [{"q": q, **columns("wxyz", o), "a": letter(r)} for q, o, r in world]
        check_world(read_file(write_table(tmp_path / "q.csv", rows, header=False)), world)


def test_titles_above_a_table_are_refused(tmp_path):
    path = write_table(tmp_path / "q.csv", rows_of("mmlu columns"))
    for title in ("# made by me", "# made by me,,,,,"):
        (tmp_path / "t.csv").write_text(f"{title}\n{path.read_text()}")
        with pytest.raises(UserError, match="line 1: '# made by me' stands alone.* 6 fields"):
            read_file(tmp_path / "t.csv")


def test_quotes_that_are_of_the_text(tmp_path):
    plain = 'question\tA\tB\tanswer\n"Yes" or no?\tx\t"y" z\tA\n"Open\tx\ty\tB\n'
    for suffix, text in ((".tsv", plain), (".csv", plain.replace("\t", ","))):
        path = tmp_path / f"q{suffix}"
        path.write_text(text)
        questions = read_questions(path)
        assert [q.text for q in questions] == ['"Yes" or no?', '"Open']
        assert questions[0].choices == ("x", '"y" z')
        path.write_text(text.replace("Open", 'Open", "it', 1).replace("B\n", '"B"\n'))
        with pytest.raises(UserError, match="line 2: .*quote.*written twice"):
            read_questions(path)


def test_lists_that_pandas_and_numpy_wrote(tmp_path):
    """A text of Python where a list was."""
    for written in (
        lambda o: repr(list(o)),
        lambda o: str(np.array(o, dtype=object)),
        lambda o: str(np.array([*o, "It's"])),
        lambda o: repr({"text": np.array(o, dtype=object), "label": np.array([*"ABCD"])}),
        lambda o: repr({"text": list(o), "label": [*"ABCD"]}),
    ):
        rows = [{"question": q, "choices": written(o), "answer": letter(r)} for q, o, r in WORLD]
        world = [(q, (*o, "It's"), r) if "It's" in written(o) else (q, o, r) for q, o, r in WORLD]
        check_world(read_file(write_table(tmp_path / "q.csv", rows)), world)
    rows = [{"question": "?", "choices": str(np.array([7, 10, 8])), "answer": 1}]
    assert read_questions(write_table(tmp_path / "q.csv", rows))[0].choices == ("7", "10", "8")
    for choices, says in (
        ("['x', nan, 'y']", "choice 1 is NaN and must be a text"),
        ("['x', None]", "choice 1 is missing"),
        ("['x' 'y', 'z']", "choices must be a list"),
    ):
        path = write_table(tmp_path / "q.csv", [dict(question="?", choices=choices, answer=0)])
        with pytest.raises(UserError, match=f"line 2: {says}"):
            read_questions(path)


def test_options_that_are_not_there(tmp_path):
    """Columns for five options hold three to five; null fields of an object are none."""
    rows = [
        {"question": "?", "A": "u", "B": "v", "C": "w", "D": d, "E": e, "answer": a}
        for d, e, a in (("x", "y", "E"), ("x", None, "D"), (None, None, "A"))
    ]
    for path in (write_table(tmp_path / "q.csv", rows), write_jsonl(tmp_path / "q.jsonl", rows)):
        questions = read_questions(path)
        assert [len(q.choices) for q in questions] == [5, 4, 3]
        assert [q.answer for q in questions] == [4, 3, 0]
    for wrong_row, says in (
        (rows[2] | {"answer": "D"}, "line 2: the answer 'D' is not among the 3 choices"),
        (rows[0] | {"B": None}, "line 2: choice 1 is missing"),
        (rows[0] | {"B": " "}, "line 2: choice 1 is (empty|missing)"),
    ):
        for path in (
            write_table(tmp_path / "q.csv", [wrong_row]),
            write_jsonl(tmp_path / "q.jsonl", [rows[0], wrong_row]),
        ):
            with pytest.raises(UserError, match=says):
                read_questions(path)
    objects = [
        {"question": "?", "options": {"A": "u", "B": "v", "C": c}, "answer_idx": "B"}
        for c in ("w", None)
    ]
    pq.write_table(pa.Table.from_pylist(objects), tmp_path / "q.parquet")
    assert [len(q.choices) for q in read_questions(tmp_path / "q.parquet")] == [3, 2]


# How the right option is named


@pytest.mark.parametrize("labels", [["1", "2", "3"], [1, 2, 3], [1.0, 2.0, 3.0]])
@pytest.mark.parametrize("answer", [2, "2", 2.0, " 2 ", "(2)", [2]])
@pytest.mark.parametrize("layout", ["arc", "objects", "mapping"])
def test_own_labels_come_first_by_value(tmp_path, labels, answer, layout):
    texts = ["a", "b", "c"]
    choices = {
        "arc": {"text": texts, "label": labels},
        "objects": [{"text": t, "label": n} for t, n in zip(texts, labels, strict=True)],
        "mapping": {str(int(n)): t for t, n in zip(texts, labels, strict=True)},
    }[layout]
    row = {"question": "?", "choices": choices, "answer": answer}
    assert read_questions(write_jsonl(tmp_path / "q.jsonl", [row]))[0].answer == 1
    with pytest.raises(UserError, match="line 1: the answer '?0'? is not among the 3 choices"):
        read_questions(write_jsonl(tmp_path / "q.jsonl", [row | {"answer": 0}]))


def test_an_index_beside_own_letters(tmp_path):
    row = {"question": "?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answer": 1}
    assert read_questions(write_jsonl(tmp_path / "q.jsonl", [row]))[0].answer == 1


def numbered(answers, options=4):
    return [
        {"question": f"q{i}", "choices": [f"x{n}" for n in range(options)], "answer": a}
        for i, a in enumerate(answers)
    ]


@pytest.mark.parametrize("as_type", [int, str, float])
def test_answers_that_look_one_based_are_told(tmp_path, as_type):
    def read(answers, **options):
        rows = numbered([as_type(answer) for answer in answers])
        return read_file(write_jsonl(tmp_path / "q.jsonl", rows), **options)

    some = [2, 2, 1, 3, 1, 2]
    found = read(some)
    assert [q.answer for q in found.questions] == some
    assert "look 1-based (1 to 3, never 0)" in found.notes[0]
    assert "--columns answers=1-based" in found.notes[0]
    found = read(some, columns="answers=1-based")
    assert [q.answer for q in found.questions] == [a - 1 for a in some] and not found.notes
    assert read(some, columns="answers=0-based").notes == ()
    assert not any("1-based" in note for note in read([0, 2, 1, 3, 1, 2]).notes)
    assert not any("1-based" in note for note in read([1, 2]).notes)  # by chance
    assert "look 1-based (always 2, never 0)" in read([2] * 6).notes[0]
    with pytest.raises(UserError, match="line 4: the answer .*0 to 3.*look 1-based .1 to 4, never"):
        read([1, 2, 3, 4])
    found = read([1, 2, 3, 4], columns="answers=1-based")
    assert [q.answer for q in found.questions] == [0, 1, 2, 3]
    with pytest.raises(UserError) as caught:
        read([0, 2, 4])
    assert "1-based" not in str(caught.value)
    make = SCHEMAS["medmcqa"][0]  # published with both
    for shift, notes in ((0, []), (1, ["count from 1"])):
        rows = [make(q, o, r + shift) for q, o, r in WORLD]
        found = read_file(write_jsonl(tmp_path / "m.jsonl", rows))
        check_world(found, WORLD)
        assert all(a in b for a, b in zip(notes, found.notes, strict=True))
    rows = [make(q, o, r + 1) for q, o, r in WORLD[:5]]  # none is the last
    assert "look 1-based" in read_file(write_jsonl(tmp_path / "m.jsonl", rows)).notes[0]


def test_answers_as_texts_are_a_matter_of_the_whole_file(tmp_path):
    """One that could also be an index is a text where the others can only be that."""
    rows = [
        {"question": "2+1", "choices": ["1", "2", "3", "0"], "answer": 3},
        {"question": "4+4", "choices": ["7", "8", "9", "0"], "answer": "8"},
        {"question": "1+0", "choices": ["3", "2", "1", "0"], "answer": "1"},
    ]
    read = read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    assert [q.choices[q.answer] for q in read.questions] == ["3", "8", "1"]
    both = rows[:1] + rows[2:]
    read = read_file(write_jsonl(tmp_path / "q.jsonl", both))
    assert [q.answer for q in read.questions] == [3, 1]
    assert any("give --columns answers=text" in note for note in read.notes)
    read = read_file(write_jsonl(tmp_path / "q.jsonl", both), {"answers": "text"})
    assert [q.answer for q in read.questions] == [2, 2] and not read.notes
    mixed = [*rows, {"question": "?", "choices": ["x", "y"], "answer": "B"}]
    with pytest.raises(UserError, match="line 1: the answer 3 is a label or number and also"):
        read_file(write_jsonl(tmp_path / "q.jsonl", mixed))


LABEL_FORMS = ["({})", "[{}]", "{}.", "{})"]


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_own_numbers_in_brackets_are_labels(tmp_path, form):
    def read(answers):
        labels = [form.format(number) for number in (1, 2, 3, 4)]
        rows = [
            {"question": "?", "choices": {"text": [*"pqrs"], "label": labels}, "answer": a}
            for a in answers
        ]
        return read_file(write_jsonl(tmp_path / "q.jsonl", rows))

    found = read([1, 2, "3", "(4)", "2.0"])
    assert [q.answer for q in found.questions] == [0, 1, 2, 3, 1] and found.notes == ()
    with pytest.raises(UserError, match="line 1: the answer 0 is not among the 4 choices; give a"):
        read([0, 1, 2])


def test_numbers_that_pandas_wrote_with_a_point(tmp_path):
    rows = [{"question": "?", **columns("ABC", "pqr"), "answer": a} for a in ("1.0", "0.0", "2.0")]
    questions = read_questions(write_table(tmp_path / "q.csv", rows))
    assert [q.answer for q in questions] == [1, 0, 2]
    rows = [{"question": "?", **columns("ABC", ["6", "8", "10"]), "answer": "8.0"}]
    assert read_questions(write_table(tmp_path / "q.csv", rows))[0].answer == 1
    rows[0]["answer"] = "1.5"
    with pytest.raises(UserError, match="the answer '1.5' is not among the 3 choices"):
        read_questions(write_table(tmp_path / "q.csv", rows))


def test_texts_that_differ_by_blanks_alone(tmp_path):
    row = {"question": "?", "choices": ["x y", "x  y", "z"], "answer": "x  y"}
    assert read_questions(write_jsonl(tmp_path / "q.jsonl", [row]))[0].answer == 1
    path = write_jsonl(tmp_path / "q.jsonl", [row | {"answer": " z\n"}])
    assert read_questions(path)[0].answer == 2
    with pytest.raises(UserError, match="line 1: the answer 'x   y' is not among"):
        read_questions(write_jsonl(tmp_path / "q.jsonl", [row | {"answer": "x   y"}]))


def test_a_number_is_no_text_where_others_are_places(tmp_path):
    def social(first, label):
        return {
            "context": "Kai.",
            "question": "Why?",
            "answerA": first,
            "answerB": "p",
            "answerC": "r",
            "label": label,
        }

    rows = [social("o", 1), social("o", 2), social("0", 0)]
    with pytest.raises(UserError, match="line 3: the answer 0 is the text of an option and no lab"):
        read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    rows = numbered([1, 2, 3, 4])
    rows[3]["choices"][0] = "4"
    with pytest.raises(UserError, match="line 4: the answer 4 is the text.*look 1-based: 1 to 4"):
        read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    rows = [{"question": "?", "choices": ["p", "q", "E"], "answer": a} for a in "AE"]
    with pytest.raises(UserError, match="line 2: the answer 'E' is the text of an option"):
        read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    # A text beside labels is plain, and so is a number beside letters.
    rows = numbered(["B", "x3", "8"])
    rows[2]["choices"][1] = "8"
    read = read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    assert [q.answer for q in read.questions] == [1, 3, 1] and read.notes == ()


def test_texts_that_are_numbers_do_not_look_1_based(tmp_path):
    rows = [{"question": "?", "choices": ["1", "2", "3"], "answer": a} for a in ("2", "3")]
    read = read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    assert [q.answer for q in read.questions] == [1, 2] and read.notes == ()


#: No number is an option.
PLAIN = [WORLD[0], WORLD[1], ("Which is first?", ("o", "p", "q", "r"), 0), WORLD[5]]


@pytest.mark.parametrize(
    ("name", "world", "says"),
    [
        ("winogrande", PAIRS, "give a 1-based index .1 to 2., a label .A, B. or an option's text"),
        ("kmmlu", PLAIN, "give a 1-based index .1 to 4., a label .A, B, C, D. or"),
        ("belebele", PLAIN, "give a 1-based index .1 to 4.*"),
    ],
)
def test_schemas_that_count_from_1_and_answers_from_0(tmp_path, name, world, says):
    field = {"belebele": "correct_answer_num"}.get(name, "answer")
    rows = [ALL[name][0](*row) for row in world]
    for row in rows:
        row[field] = int(row[field]) - 1
    path = write_jsonl(tmp_path / "q.jsonl", rows)
    with pytest.raises(UserError, match=f" 0 is not among .*{says}.*from 0, give .*0-based"):
        read_file(path)
    check_world(read_file(path, "answers=0-based"), world)
    with pytest.raises(UserError, match=r"1-based index \(1 to [24]\) or a label \([A-D, ]+\)$"):
        read_file(path, "answers=1-based")


def test_own_number_labels_offer_no_places(tmp_path):
    rows = [SCHEMAS["headqa"][0](*row) | {"ra": 0} for row in WORLD]
    with pytest.raises(UserError, match="; give a label .1, 2, 3, 4. or an option's text$"):
        read_file(write_jsonl(tmp_path / "q.jsonl", rows))


NAMED = [["option1", "option2"], ["opa", "opb"], ["Option A", "Option B"], ["sol1", "sol2"]]


@pytest.mark.parametrize("names", NAMED)
def test_an_answer_may_name_the_column_of_an_option(tmp_path, names):
    rows = [{"question": "Which?", **columns(names, "xy"), "answer": name} for name in names]
    read = read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    assert [q.answer for q in read.questions] == [0, 1] and read.notes == ()
    rows = [{"frage": "Which?", "rot": "x", "grün": "y", "key": key} for key in ("grün", "rot")]
    read = check_proposal(write_table(tmp_path / "q.csv", rows))
    assert [q.choices[q.answer] for q in read.questions] == ["y", "x"]


@pytest.mark.parametrize("flag", ["is_correct", "correct", "isCorrect"])
def test_options_may_say_whether_they_are_right(tmp_path, flag):
    def rows(named, right=1, **more):
        return [
            {
                named: q,
                "options": [
                    {"text": t, flag: [i == r, int(i == r)][right]} for i, t in enumerate(o)
                ],
                **more,
            }
            for q, o, r in WORLD
        ]

    for right in (0, 1):
        check_world(read_file(write_jsonl(tmp_path / "q.jsonl", rows("question", right))), WORLD)
        path = write_jsonl(tmp_path / "f.jsonl", rows("frage", right))
        check_world(check_proposal(path), WORLD)
    with pytest.raises(UserError, match=f"line 1: answer 0 and options.{flag} .* different"):
        read_file(write_jsonl(tmp_path / "q.jsonl", rows("question", answer=0)))
    several = rows("question")
    for option in several[0]["options"]:
        option[flag] = True
    with pytest.raises(UserError, match="line 1: .*the list .*exactly one right option"):
        read_file(write_jsonl(tmp_path / "q.jsonl", several))


DISAGREE = [
    {"answer": 0, "label": 1},
    {"answer": "o", "correct_answer": "p"},
    {"gold": 0, "label": 1},
    {"answerKey": "A", "target": "p"},
]


@pytest.mark.parametrize("fields", DISAGREE)
def test_any_two_fields_that_say_the_right_option_must_agree(tmp_path, fields):
    (first, value), (second, _) = fields.items()
    row = {"question": "?", "choices": ["o", "p"]}
    agreeing = row | {first: value, second: value}
    path = write_jsonl(tmp_path / "q.jsonl", [agreeing, row | fields])
    with pytest.raises(UserError, match=f"line 2: .*{first}.* and .*{second}.* differe") as e:
        read_file(path)
    given = shlex.split(e.value.typed.rpartition("give ")[2])[1]
    assert [q.answer for q in read_questions(path, given)] == [0, 0]
    assert read_questions(write_jsonl(tmp_path / "a.jsonl", [agreeing]))[0].answer == 0
    # A field that says something else in any row says it in all.
    path = write_jsonl(tmp_path / "q.jsonl", [row | fields, agreeing | {second: "hard"}])
    assert [q.answer for q in read_questions(path)] == [0, 0]


def test_the_first_row_need_not_have_all_fields(tmp_path):
    row = {"question": "Was it?", "choices": ["o", "p"], "answer": 0}
    for lacking in ({}, {"passage": None}, {"passage": math.nan}, {"passage": ""}):
        rows = [row | lacking, row | {"passage": "It was hot."}]
        read = read_file(write_jsonl(tmp_path / "q.jsonl", rows))
        assert [q.text for q in read.questions] == ["Was it?", "It was hot.\nQuestion: Was it?"]
        assert "passage" in read.recognised
    path = write_jsonl(tmp_path / "q.jsonl", [row, row | {"answer_idx": 1}])
    with pytest.raises(UserError, match="line 2: answer_idx 1 and answer 0 name different options"):
        read_file(path)
    right = {"question": "?", "correct_answer": "x", "incorrect_answers": ["y"]}
    path = write_jsonl(tmp_path / "q.jsonl", [right, right | {"answer": "y"}])
    with pytest.raises(UserError, match="line 2: the right option 'x' and answer 'y' name diff"):
        read_file(path)


def test_an_instruction_and_its_input_are_asked_both(tmp_path):
    row = {"instruction": "Pick the best.", "input": "Tea?", "choices": ["o", "p"], "answer": 0}
    for given, text in (
        (row, "Pick the best.\nTea?"),
        (row | {"input": ""}, "Pick the best."),
        (row | {"passage": "Hot."}, "Hot.\nQuestion: Pick the best.\nTea?"),
    ):
        read = read_file(write_jsonl(tmp_path / "q.jsonl", [given]))
        assert read.questions[0].text == text and read.notes == ()


LONG = "A text of some length that may be what the question is asked of."


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"text": "It was hot."}, "text"),
        ({"hintergrund": LONG}, "hintergrund"),
        ({"prompt": "Tea?", "instruction": "Choose."}, "prompt, instruction"),
        ({"hintergrund": ["很久以前" * 12]}, "hintergrund"),
    ],
)
@pytest.mark.parametrize("layout", ["arc hub", "mmlu columns", "mmlu hub"])
def test_texts_that_are_not_asked_are_told(tmp_path, layout, more, named):
    rows = rows_of(layout)
    rows[1:] = [row | more for row in rows[1:]]
    path = write_jsonl(tmp_path / "q.jsonl", rows)
    (note,) = read_file(path).notes
    assert f" {named} " in note and "not used" in note
    given = shlex.split(note.rpartition("give ")[2])[1]
    read = read_file(path, given)
    assert read.notes == () and read.questions[1].text.endswith("\nQuestion: " + WORLD[1][0])


@pytest.mark.parametrize(
    "more",
    [
        {"explanation": LONG},
        {"rationale": LONG},
        {"id": LONG},
        {"category": LONG},
        {"note": "short"},
        {"url": "https://" + "x" * 50},
        {"copy": WORLD[3][0] + " "},
        {"n": 5},
    ],
)
def test_what_explains_or_names_a_question_is_not_told(tmp_path, more):
    rows = rows_of("mmlu columns")
    rows[3] |= more
    assert read_file(write_jsonl(tmp_path / "q.jsonl", rows)).notes == ()


def test_quartz_and_c3(tmp_path):
    rows = [SCHEMAS["arc hub"][0](*row) | {"para": "It was hot."} for row in WORLD]
    (note,) = read_file(write_jsonl(tmp_path / "q.jsonl", rows)).notes
    assert "para" in note and "context=para" in note
    row = {"documents": ["很久", "以前"], "question": "谁?", "choice": ["o", "p"], "answer": "p"}
    [question] = read_questions(write_jsonl(tmp_path / "q.jsonl", [row]))
    assert question.text == "很久\n以前\nQuestion: 谁?"


def test_fields_that_disagree_are_refused(tmp_path):
    make = SCHEMAS["mmlu pro"][0]
    rows = [make(*row) for row in WORLD]
    rows[2]["answer"] = "D"
    with pytest.raises(UserError, match="line 3: answer_index 1 and answer 'D' name different opt"):
        read_questions(write_jsonl(tmp_path / "q.jsonl", rows))
    rows[2]["answer"] = "a long explanation"
    assert read_questions(write_jsonl(tmp_path / "q.jsonl", rows))[2].answer == 1


def test_doubled_ids_and_one_place_are_told(tmp_path):
    rows = [dict(row, id="x" if i in (1, 3) else i) for i, row in enumerate(numbered([0] * 8))]
    read = read_file(write_jsonl(tmp_path / "q.jsonl", rows))
    assert "1 id stands at several questions, the first 'x'" in read.notes[0]
    assert "always number 1" in read.notes[1] and "--shuffle" in read.notes[1]
    assert read_file(write_jsonl(tmp_path / "q.jsonl", numbered([0, 1, 2, 3] * 2))).notes == ()


@pytest.mark.parametrize("form", ["{}) {}", "({}) {}", "{}. {}", "({}){}", "{}){}"])
def test_options_that_have_labels_already_are_told(tmp_path, form):
    rows = numbered([0, 1, 2, 3] * 2)
    for row in rows:
        row["choices"] = [form.format(*named) for named in zip("ABCD", row["choices"], strict=True)]
    (note,) = read_file(write_jsonl(tmp_path / "q.jsonl", rows)).notes
    assert "begin with labels of their own" in note and repr(rows[0]["choices"][0]) in note
    rows[-1]["choices"][0] = "a plain text"
    assert read_file(write_jsonl(tmp_path / "q.jsonl", rows)).notes == ()


@pytest.mark.parametrize("form", ["{}", "({})", "{}."])
def test_options_that_are_labels_alone_are_told(tmp_path, form):
    rows = numbered([0, 1, 2, 3] * 2)
    for row in rows:
        row["choices"] = [form.format(label) for label in "abcd"]
    (note,) = read_file(write_jsonl(tmp_path / "q.jsonl", rows)).notes
    assert "the options are labels alone" in note and "give the texts that they stand for" in note
    rows[-1]["choices"][0] = "b"
    assert read_file(write_jsonl(tmp_path / "q.jsonl", rows)).notes == ()


def test_an_answer_that_may_be_a_place_or_a_text_is_said_to_look_1_based(tmp_path):
    rows = [
        {"question": "2 + 2", "choices": ["3", "5", "4"], "answer": 3},
        {"question": "2 + 1", "choices": ["2", "3", "6"], "answer": 2},
        {"question": "Snow", "choices": ["red", "white", "x"], "answer": 2},
    ]
    with pytest.raises(UserError, match="line 2: .* the text of another .*look 1-based: 2 to 3"):
        read_file(write_jsonl(tmp_path / "q.jsonl", rows))


# --columns


def test_columns(tmp_path):
    rows = [
        {"q": q, **columns(["A one", *"BCD"], o), "key": letter(r), "nr": f"i{r}", "topic": "t"}
        for q, o, r in WORLD
    ]
    for path in (write_jsonl(tmp_path / "q.jsonl", rows), write_table(tmp_path / "q.csv", rows)):
        text = "question=q,choices=A one+B+C+D,answer=key,id=nr,group=topic"
        named = {
            "question": "q",
            "choices": ["A one", "B", "C", "D"],
            "answer": "key",
            "id": "nr",
            "group": "topic",
        }
        for given in (text, named, text.replace("=", " = ").replace(",", " , ")):
            read = read_file(path, given)
            check_world(read, WORLD)
            assert read.questions[0].id == "i1" and read.questions[0].group == "t"
        task = load_task(str(path), columns=named, scoring="text")
        assert json.loads(json.dumps(task.settings))["columns"] == named
        assert load_task(str(path), **task.settings).questions == task.questions
        # What is not mapped is found by its usual name; a question may be put together.
        read = read_file(path, "choices=A one+B+C+D,question={topic}: {q},answer=key")
        assert read.questions[0].text == f"t: {WORLD[0][0]}"
    nested = [{"it": {"ask": q, "of": list(o)}, "key": r} for q, o, r in WORLD]
    path = write_jsonl(tmp_path / "q.jsonl", nested)
    check_world(read_file(path, "question=it.ask,choices=it.of,answer=key"), WORLD)


def test_columns_of_examples_too(tmp_path):
    rows = [{"q": q, "o": list(o), "k": r} for q, o, r in WORLD]
    scored = write_jsonl(tmp_path / "q.jsonl", rows[:3])
    others = write_jsonl(tmp_path / "e.jsonl", rows[3:])
    given = "question=q,choices=o,answer=k"
    task = load_task(str(scored), columns=given, shots=2, shots_from=others)
    assert task.shots.count == 2
    task = load_task("demo", columns=given, shots=2, shots_from=others)
    assert task.shots.of(task.questions[0])[0].text == WORLD[3][0]


BAD_COLUMNS = {
    "no role": ("q", "must say which field is what, as question=q"),
    "unknown role": ("question=q,chioces=o", "names 'chioces'.*Did you mean 'choices'"),
    "twice": ("question=q,question=r", "names question twice"),
    "empty": ("question=,choices=o", "question must be the name of a field"),
    "numbers": ({"question": 5}, "question must be the name of a field and is 5"),
    "a list": ({"question": ["a", "b"]}, "question must be the name of a field"),
    "answers": ("answers=1based", "answers is '1based'.*Did you mean '1-based'"),
    "another type": (7, "columns must be names with values or a text and is 7"),
    "no such field": (
        "question=qq,choices=o,answer=k",
        "there is no field 'qq' .fields found: q, o, k.*Did you mean 'q'",
    ),
    "no such option": ("question=q,choices=o+p,answer=k", "choices=p: there is no field 'p'"),
    "commas": ("question=q,choices=o,k,answer=k", "several fields are joined by [+], as o[+]k"),
    "in a template": ("question={x} {q},choices=o,answer=k", "there is no field 'x'"),
    "not all of them": ("question=q", "the field.* 'choices' and 'answer' are missing.*columns"),
}


@pytest.mark.parametrize("name", BAD_COLUMNS)
def test_bad_columns_are_one_sentence(tmp_path, name):
    given, says = BAD_COLUMNS[name]
    path = write_jsonl(tmp_path / "q.jsonl", [{"q": "?", "o": ["x", "y"], "k": 0}])
    with pytest.raises(UserError, match=says) as caught:
        load_task(str(path), columns=given)
    assert "\n" not in str(caught.value)


def test_columns_are_of_files():
    with pytest.raises(UserError, match="columns says what the fields of a file are, and demo"):
        load_task("demo", columns="question=q")
    with pytest.raises(UserError, match="columns does not go with lm_eval:x"):
        load_task("lm_eval:x", columns="question=q")


def check_proposal(path, says="not recognised"):
    """A file that is not recognised names its fields and a mapping that works."""
    with pytest.raises(UserError, match=f"{says}.*fields found: .*columns") as caught:
        read_file(path)
    assert "\n" not in str(caught.value)
    given = shlex.split(caught.value.typed.rpartition("with ")[2])
    assert given[0] == "--columns" and len(given) == 2
    return read_file(path, given[1])


UNKNOWN = {
    "short names": lambda q, o, r: {"frage": q, **columns("wxyz", o), "r": letter(r)},
    "words": lambda q, o, r: {"Die Frage": q, **columns(["w1", "w2", "w3", "w4"], o), "r": r},
    "a list": lambda q, o, r: {"nr": 5, "frage": q, "wahl": list(o), "richtig": o[r]},
    "an object": lambda q, o, r: {"frage": q, "wahl": columns("ABCD", o), "richtig": letter(r)},
    "no question": lambda q, o, r: {"frage": q, "choices": list(o), "answer": r},
    "no choices": lambda q, o, r: {"question": q, **columns("wxyz", o), "answer": letter(r)},
    "no answer": lambda q, o, r: {"question": q, "choices": list(o), "richtig": letter(r)},
    "no stem": lambda q, o, r: {
        "frage": q,
        **columns(["rot", "grün", "blau", "gelb"], o),
        "richtig": o[r],
    },
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_recognised_is_refused_with_a_mapping(tmp_path, name):
    rows = [UNKNOWN[name](*row) for row in WORLD]
    check_world(check_proposal(write_jsonl(tmp_path / "q.jsonl", rows)), WORLD)
    if not any(isinstance(value, list | dict) for value in rows[0].values()):
        check_world(check_proposal(write_table(tmp_path / "q.csv", rows)), WORLD)


def test_no_questions_at_all(tmp_path):
    for rows in ([{"text": "Once."}], [{"a": 1}], [{"prompt": "x", "completion": "y"}]):
        with pytest.raises(UserError, match="not recognised.*fields found.*columns") as caught:
            read_file(write_jsonl(tmp_path / "q.jsonl", rows))
        assert "FIELD" not in str(caught.value) and "as question=q,choices" in str(caught.value)


def test_fields_in_an_object_are_proposed(tmp_path):
    for names in (["Question", *"ABCD", "Correct"], ["Frage", *"wxyz", "gut"]):
        rows = [
            {"id": i, "data": columns(names, [q, *o, letter(r)])}
            for i, (q, o, r) in enumerate(WORLD)
        ]
        check_world(check_proposal(write_jsonl(tmp_path / "q.jsonl", rows)), WORLD)


# What is refused, by row and field

GOOD = {"question": "?", "choices": ["x", "y"], "answer": 0}
DEEP = "[" * 100_000 + "]" * 100_000
LINES = {
    "labels that are no list": (
        {"choices": {"text": ["a", "b"], "label": 5}},
        "the labels .choices.label. must be a list and are 5",
    ),
    "labels that are texts": ({"choices": {"text": ["a", "b"], "label": "AB"}}, "must be a list"),
    "texts that are no list": (
        {"choices": {"text": "ab", "label": ["A"]}},
        "choices.text must be a list of texts and is 'ab'",
    ),
    "more labels than texts": (
        {"choices": {"text": ["a", "b"], "label": [*"ABC"]}, "answer": "A"},
        "choices has 2 texts and 3 labels",
    ),
    "fewer labels than texts": (
        {"choices": {"text": ["a", "b", "c"], "label": [*"AB"]}},
        "choices has 3 texts and 2 labels",
    ),
    "a label twice": ({"choices": {"text": ["a", "b"], "label": ["A", "A"]}}, "'A' .*twice"),
    "a label that is none": ({"choices": {"text": ["a", "b"], "label": ["A", None]}}, "None"),
    "a label that is a list": ({"choices": {"text": ["a", "b"], "label": ["A", ["B"]]}}, "labels"),
    "NaN among choices": ({"choices": ["a", math.nan]}, "choice 1 is NaN and must be a text"),
    "infinity among choices": ({"choices": ["a", math.inf]}, "choice 1 is inf"),
    "null among choices": ({"choices": ["a", None]}, "choice 1 is missing"),
    "a list among choices": ({"choices": ["a", ["b"]]}, "choice 1 is not: .'b'"),
    "NaN in an object": ({"choices": {"A": "x", "B": math.nan}}, "choice 1 is NaN"),
    "objects without texts": ({"choices": [{"a": 1}, {"a": 2}]}, "objects with a text"),
    "NaN as the answer": ({"answer": math.nan}, "the answer nan is not among the 2 choices"),
    "NaN as the question": ({"question": math.nan}, "the question must be a text and is nan"),
    "NaN as the id": ({"id": math.nan}, "the id must be a text or a number and is nan"),
    "a superscript": ({"answer": "²"}, "the answer '²' is not among the 2 choices"),
    "another script's digit": ({"answer": "١"}, "not among the 2 choices"),
    "a circled digit": ({"answer": "①"}, "not among the 2 choices"),
    "half": ({"answer": 0.5}, "the answer 0.5 is not among"),
    "true": ({"answer": True}, "the answer True is not among"),
    "an object": ({"answer": {"a": 1}}, "the answer .'a': 1. is not among"),
    "several answers": (
        {"choices": [*"xyz"], "answer": [0, 1]},
        "is the list .0, 1., and a question needs exactly one",
    ),
    "no answers": ({"answer": []}, "is the list"),
    "an empty answer": ({"answer": ""}, "the answer is empty"),
    "digits without end": ({"answer": "1" * 5000}, "the answer '1111.* is not among"),
    "a surrogate id": ({"id": "\ud800x"}, "the id has half a surrogate pair"),
    "a surrogate question": ({"question": "\ud800x"}, "the question has half a surrogate pair"),
    "a surrogate choice": ({"choices": ["x", "\udfff"]}, "choice 1 has half a surrogate pair"),
    "a surrogate group": ({"group": "\ud800"}, "the group has half a surrogate pair"),
    "a surrogate subject": ({"subject": "\ud800"}, "the group .subject. has half a surrogate"),
    "a list as id": ({"id": [1]}, "the id must be a text or a number"),
    "27 choices": ({"choices": [*"abcdefghijklmnopqrstuvwxyz1"]}, "at most 26 choices"),
    "no choices": ({"choices": []}, "at least 2 choices"),
    "an empty question": ({"question": " "}, "the question must be a text and is ' '"),
}


@pytest.mark.parametrize("name", LINES)
def test_wrong_rows_are_refused_by_row_and_field(tmp_path, name):
    change, says = LINES[name]
    path = write_jsonl(tmp_path / "q.jsonl", [GOOD, GOOD | change])
    with pytest.raises(UserError, match=says) as caught:
        load_task(str(path))
    assert f"{path}, line 2: " in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_numbers_with_too_many_digits(tmp_path):
    """Python reads no number of 5,000 digits; in a field that is not read it does not matter."""
    line = json.dumps(GOOD)[:-1] + ', "x": ' + "1" * 5000 + "}\n"
    (tmp_path / "q.jsonl").write_text(line)
    assert len(read_questions(tmp_path / "q.jsonl")) == 1
    for field, says in (
        ("answer", "'answer' cannot be read .a number of 5,000 digits"),
        ("choices", "must be a list of texts|cannot be read"),
        ("question", "'question' cannot be read"),
        ("id", "the id must be"),
    ):
        (tmp_path / "q.jsonl").write_text(
            json.dumps(GOOD | {field: 0}).replace(f'"{field}": 0', f'"{field}": {"1" * 5000}')
        )
        with pytest.raises(UserError, match=f"line 1: .*{says}"):
            read_questions(tmp_path / "q.jsonl")


@pytest.mark.parametrize("where", ["answer", "choices", "question", "id", "x", "choices of csv"])
def test_nested_without_end(tmp_path, where):
    if where == "choices of csv":
        (tmp_path / "q.csv").write_text(f'question,choices,answer\n?,"{DEEP[:100_000]}",0\n')
        path, says = tmp_path / "q.csv", "line 2: choices must be a list"
    else:
        line = json.dumps(GOOD)[:-1] + f', "{where}": {DEEP}}}\n'
        (tmp_path / "q.jsonl").write_text(json.dumps(GOOD) + "\n" + line)
        path, says = tmp_path / "q.jsonl", "line 2: broken JSON .nested too deeply"
    with pytest.raises(UserError, match=says) as caught:
        load_task(str(path))
    assert len(str(caught.value)) < 500
    (tmp_path / "d.json").write_text(DEEP)
    with pytest.raises(UserError, match="line 1: broken JSON .nested too deeply"):
        load_task(str(tmp_path / "d.json"))


def test_nested_as_deep_as_python_reads(tmp_path):
    """What can be read is refused by what it is, not by its depth."""
    for depth in (100, 400, 700, 900, 940, 960):
        line = json.dumps(GOOD)[:-1] + f', "answer": {"[" * depth + "1" + "]" * depth}}}\n'
        (tmp_path / "q.jsonl").write_text(line)
        with pytest.raises(UserError, match="line 1: "):
            load_task(str(tmp_path / "q.jsonl"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_fields_without_end(tmp_path, suffix):
    """A field of more than 131,072 characters is mostly a quote that was left open."""
    delimiter = {".csv": ",", ".tsv": "\t"}[suffix]
    rows = rows_of("mmlu columns")
    path = write_table(tmp_path / f"q{suffix}", rows, delimiter=delimiter)
    path.write_text(path.read_text() + f'"{"x" * 200_000}"\n')
    with pytest.raises(UserError, match="line [0-9]+: field larger than .*is a quote left open"):
        load_task(str(path))


def test_tables_are_refused_by_line(tmp_path):
    path = tmp_path / "q.csv"
    lines = ["question,A,B,answer", "which,x,y,A", "this, or that,x,y,B", "", "who,x,y,B"]
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match="line 3: 5 fields, and the file has 4 columns"):
        load_task(str(path))
    path.write_text("question,A,A,answer\nwhich,x,y,A\n")
    with pytest.raises(UserError, match="line 1: the header has 'A' twice"):
        load_task(str(path))
    path.write_bytes("question,A,B,answer\nwhich,x,y,A\nfür,x,y,A\n".encode("latin-1"))
    with pytest.raises(UserError, match="line 3: not UTF-8"):
        load_task(str(path))
    path.write_text("question,A,B,answer\nwhich,x,y\n")
    with pytest.raises(UserError, match="line 2: the field 'answer' is missing"):
        load_task(str(path))
    path.write_text("\n\n")
    with pytest.raises(UserError, match="holds no questions"):
        load_task(str(path))


def test_compressed_files_that_are_none(tmp_path):
    whole = gzip.compress(json.dumps(GOOD).encode())
    for content in (b"no gzip", whole[:-6], whole[:12] + b"\xff" * 9):
        (tmp_path / "q.jsonl.gz").write_bytes(content)
        with pytest.raises(UserError, match="q.jsonl.gz: cannot be read"):
            load_task(str(tmp_path / "q.jsonl.gz"))
    (tmp_path / "q.parquet.gz").write_bytes(whole)
    with pytest.raises(UserError, match="questions are read from"):
        load_task(str(tmp_path / "q.parquet.gz"))


def test_documents_that_are_none(tmp_path):
    for text, says in (
        ('{"train": [{"a": 1}], "test": [{"a": 1}]}', "several lists of questions .train, test"),
        ("5", "line 1: each question must be an object"),
        ('"x"', "line 1: each question must be an object"),
        ("[1, 2]", "line 1: each question must be an object"),
        ("[]", "holds no questions"),
        ('{"columns": ["a", "b"], "index": [0], "data": [[1]]}', "line 1: not recognised"),
        ('{"columns": 5, "index": [0], "data": 7}', "line 1: not recognised"),
        ('[\n{"question": "?",\n "choices": [}]\n', "line 3: broken JSON"),
        ("", "holds no questions"),
        ('[{"question": "?", "choices": ["x", "y"], "answer": 0}, 5]', "must be an object"),
    ):
        (tmp_path / "q.json").write_text(text)
        with pytest.raises(UserError, match=says):
            load_task(str(tmp_path / "q.json"))


def parquet(path, **columns_):
    names = {"question": ["a?", "b?"], "choices": [["x", "y"]] * 2, "answer": [0, 1]} | columns_
    pq.write_table(pa.table(names), path)
    return path


def test_values_that_python_cannot_hold(tmp_path):
    """Dates out of range and bytes that are no text: refused where they are read, by row."""
    late = pa.array([0, 2**62], pa.int64()).cast(pa.timestamp("ms"))
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], "int32")), pa.py_buffer(b"a\xff")]
    )
    path = tmp_path / "q.parquet"
    for name, column in (
        ("answer", late),
        ("answer", text),
        ("question", late),
        ("question", text),
        ("choices", text),
    ):
        with pytest.raises(UserError, match=f"row [12]: .*{name}") as caught:
            load_task(str(parquet(path, **{name: column})))
        assert "\n" not in str(caught.value)
    for name, column in (("when", late), ("note", text)):
        assert len(read_questions(parquet(path, **{name: column}))) == 2
    with pytest.raises(UserError, match="row 2: .*the id must be"):
        load_task(str(parquet(path, id=text)))


def test_a_column_whose_name_is_no_text(tmp_path):
    path = parquet(tmp_path / "q.parquet")
    path.write_bytes(path.read_bytes().replace(b"choices", b"\xd5hoices"))
    with pytest.raises(UserError, match="row 1: .*'choices' is missing.*name is not UTF-8"):
        load_task(str(path))


# The command line


def test_what_the_commands_say(tmp_path, monkeypatch, capsys):
    rows = [dict(row, id=1) for row in numbered([1, 2, 1, 3])]
    path = write_jsonl(tmp_path / "q.jsonl", rows)
    code, out, _ = command(monkeypatch, capsys, "tasks", path)
    said = " ".join(out.split())
    assert code == 0 and "read as plain questions (question, choices, answer)" in said
    assert "note: the answers look 1-based" in said and "note: 1 id stands at several" in said
    code, out, _ = command(monkeypatch, capsys, "tasks", path, "--json")
    shown = json.loads(out)
    assert shown["recognised"].startswith("plain questions") and len(shown["notes"]) == 2
    code, out, _ = command(monkeypatch, capsys, "check", "demo", "--task", path)
    said = " ".join(out.split())
    assert code == 0 and "read as plain questions" in said and "look 1-based" in said
    given = ("--columns", "answers=1-based")
    code, out, _ = command(monkeypatch, capsys, "tasks", path, *given)
    said = " ".join(out.split())
    assert code == 0 and "look 1-based" not in said and "--columns answers=1-based" in said
    monkeypatch.chdir(tmp_path)
    code, _, err = command(monkeypatch, capsys, "trace", "./no-model", "--task", path)
    said = " ".join(err.split())
    assert code == 2 and "is read as plain questions" in said and "look 1-based" in said
    write_jsonl(tmp_path / "u.jsonl", [UNKNOWN["a list"](*row) for row in WORLD])
    code, _, err = command(monkeypatch, capsys, "check", "demo", "--task", "u.jsonl")
    assert code == 2 and "Traceback" not in err
    assert "--columns question=frage,choices=wahl,answer=richtig" in " ".join(err.split())


def test_groups_and_ids_command_no_terminal(tmp_path, monkeypatch, capsys):
    row = GOOD | {"id": "\x1b[31mred", "group": "[bold]\x00nul", "question": "\x1b[2Jwhat"}
    path = write_jsonl(tmp_path / "[q].jsonl", [row])
    code, out, _ = command(monkeypatch, capsys, "tasks", path)
    assert code == 0 and "\x1b[31m" not in out and "\x1b[2J" not in out and "\x00" not in out
    assert "[bold]\\x00nul 1" in out and "\\x1b[31mred" in out


def test_a_configuration_says_columns(tmp_path):
    from phaseprune.cli.paper import configuration

    (tmp_path / "c.yaml").write_text(
        "model: demo\ntasks:\n  q.csv:\n    columns: {question: q, choices: [a, b], answer: k}\n"
        "  r.csv:\n    columns: question=q,choices=a+b,answer=k\n"
    )
    read = configuration(tmp_path / "c.yaml")
    assert read.tasks["q.csv"]["columns"] == {"question": "q", "choices": ["a", "b"], "answer": "k"}
    assert read.tasks["r.csv"]["columns"] == "question=q,choices=a+b,answer=k"
    (tmp_path / "c.yaml").write_text("model: demo\ntasks: [q.csv]\ncolumns: 5\n")
    with pytest.raises(UserError, match="`columns` must be names with values or a text and is 5"):
        configuration(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text(
        "model: demo\ntasks:\n  q.csv:\n    columns: {question: [a, b]}\n"
    )
    with pytest.raises(UserError, match="c.yaml: `columns` of q.csv: .*question must be the name"):
        configuration(tmp_path / "c.yaml")


ODD = [None, True, -1, math.nan, "", "²", "\ud800", [], [["a"]], {}, {"text": "a"}, "[[", 10**30]


@pytest.mark.parametrize("name", ALL)
def test_any_value_in_any_field_is_read_or_refused(tmp_path, name):
    make, _, world = ALL[name]
    good = make(*world[0])
    for field in good:
        for value in ODD:
            path = write_jsonl(tmp_path / "q.jsonl", [good, make(*world[1]) | {field: value}])
            try:
                questions = read_questions(path)
            except UserError as error:
                assert "q.jsonl, line " in str(error) and "\n" not in str(error)
            else:
                assert all(0 <= q.answer < len(q.choices) for q in questions)
                assert all(q.text.strip().encode() for q in questions)
