"""Prompt options: labels, shots, shuffling, chat; what is too long; bad input of these."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import QUESTIONS, make_tokenizer, write_jsonl
from phaseprune.cli.main import main
from phaseprune.errors import UserError
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_pair, encode_task, pieces
from phaseprune.questions.prompts import put
from phaseprune.questions.question import Question, Task
from phaseprune.report.trace import unequal_options_line
from phaseprune.report.words import input_lines
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.trace import trace
from phaseprune.sweep.walk import sweep_scores, trace_scores

CHAT = (
    "{{ eos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def examples(tmp_path):
    rows = [
        {
            "question": f"Is {colour} a colour",
            "choices": ["black", colour],
            "answer": 1,
            "group": group,
        }
        for group in ("x", "y")
        for colour in ("red", "blue", "green", "white")
    ]
    return write_jsonl(tmp_path / "examples.jsonl", rows)


def shown(path, **options):
    task = load_task(str(path), **options)
    return put(task.questions[0], task).pairs()


@pytest.mark.parametrize(
    ("labels", "line", "scored"),
    [
        ("A", "B. green grass", " B"),
        ("a", "b. green grass", " b"),
        ("1", "2. green grass", " 2"),
        ("(A)", "(B) green grass", " (B"),
        ("(a)", "(b) green grass", " (b"),
    ],
)
def test_label_styles(question_file, labels, line, scored):
    context, continuation = shown(question_file, labels=labels)[1]
    assert f"\n{line}\n" in context and continuation == scored
    task = load_task(str(question_file), labels=labels)
    assert all(len(c) == 1 for q in encode_task(task, make_tokenizer()) for c in q.continuations)
    # The default's format stays what finished runs recorded.
    assert task.prompt_format == "letter/mmlu" + (f" + labels {labels}" if labels != "A" else "")


def test_shots_stand_before_the_question(question_file, examples):
    context, continuation = shown(question_file, shots=2, shots_from=examples)[0]
    assert context == (
        "Is red a colour\nA. black\nB. red\nAnswer: B\n\n"
        "Is blue a colour\nA. black\nB. blue\nAnswer: B\n\n"
        "What is the colour of the sky\nA. blue\nB. green grass\nC. red\nAnswer:"
    )
    assert continuation == " A"
    context, continuation = shown(question_file, shots=1, shots_from=examples, scoring="text")[2]
    assert context == (
        "Question: Is red a colour\nAnswer: red\n\nQuestion: What is the colour of the sky\nAnswer:"
    )
    assert continuation == " red"
    context, _ = shown(question_file, shots=1, shots_from=examples, labels="(a)")[0]
    assert "(b) red\nAnswer: (b)\n\n" in context


def test_shots_are_of_the_questions_own_group(tmp_path, examples):
    rows = [dict(row, group="y") for row in QUESTIONS]
    task = load_task(str(write_jsonl(tmp_path / "q.jsonl", rows)), shots=2, shots_from=examples)
    assert {shot.group for shot in task.shots.of(task.questions[0])} == {"y"}
    rows[0]["group"] = "without examples"
    task = load_task(str(write_jsonl(tmp_path / "q.jsonl", rows)), shots=2, shots_from=examples)
    assert {shot.group for shot in task.shots.of(task.questions[1])} == {"x"}


def test_random_shots_are_drawn_by_seed_and_never_scored(question_file):
    def drawn(seed, limit):
        task = load_task(
            str(question_file),
            shots=3,
            shots_from=question_file,
            limit=limit,
            shot_order="random",
            seed=seed,
        )
        scored = {q.content for q in task.questions}
        assert not scored & {shot.content for shot in task.shots.of(task.questions[0])}
        return task.shots.fingerprint

    assert drawn(0, 3) == drawn(0, 3)
    assert len({drawn(seed, 3) for seed in range(5)}) > 1
    with pytest.raises(UserError, match="has 2 usable examples and shots=3 needs 3"):
        drawn(0, 6)


def test_shuffled_options_keep_the_right_one(question_file):
    plain = load_task(str(question_file))
    shuffled = load_task(str(question_file), shuffle=True, seed=1)
    assert shuffled == load_task(str(question_file), shuffle=True, seed=1)
    assert [q.choices for q in shuffled.questions] != [q.choices for q in plain.questions]
    for before, after in zip(plain.questions, shuffled.questions, strict=True):
        assert sorted(before.choices) == sorted(after.choices)
        assert before.choices[before.answer] == after.choices[after.answer]
    assert (
        load_task(str(question_file), shuffle=True, seed=1, limit=3).questions
        == (shuffled.questions[:3])
    )
    assert "shuffled by seed 1" in shuffled.prompt_format


def test_chat_puts_turns_and_writes_special_tokens_once(question_file, examples):
    tokenizer = make_tokenizer()
    tokenizer.bos_token, tokenizer.chat_template = "<eos>", CHAT
    task = load_task(str(question_file), shots=1, shots_from=examples, chat=True, limit=1)
    question = encode_task(task, tokenizer)[0]
    text = tokenizer.decode(question.context)
    assert text.startswith("<eos><user>Is red a colour") and text.count("<eos>") == 1
    assert "<assistant>B\n<user>What is the colour of the sky\n" in text
    assert text.endswith("Answer:\n<assistant>")
    assert tokenizer.convert_ids_to_tokens([c[0] for c in question.continuations]) == [*"ABC"]
    assert task.prompt_format == "letter/mmlu + 1 first shots + chat"


def tasks_command(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["phaseprune"])
    with pytest.raises(SystemExit) as ended:
        main(["tasks", *map(str, words)])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


def test_a_question_is_shown_token_by_token(question_file, tiny_dirs, monkeypatch, capsys):
    """Where the options begin, with the very ids that are run, by any model's tokenizer."""
    model = ("--model", tiny_dirs["llama"])
    words = (question_file, *model, "--scoring", "text")
    code, out, _ = tasks_command(monkeypatch, capsys, *words)
    assert code == 0 and "ending in" in out and "|⏎|A|ns|wer|:\n" in out
    assert "    scored: ·blue  <- right\n    scored: ·gree|n|·gras|s\n    scored: ·red\n" in out
    assert f"next: phaseprune check {tiny_dirs['llama']} --task {question_file}" in out
    _, out, _ = tasks_command(monkeypatch, capsys, *words, "--json")
    shown = json.loads(out)["example"]
    tokenizer = make_tokenizer()
    for option, context, continuation in zip(
        shown["tokens"], shown["contexts"], shown["continuations"], strict=True
    ):
        whole = tokenizer(context + continuation)["input_ids"]
        assert option["before"] + option["scored"] == whole
        assert "".join(option["scored_pieces"]) == continuation
        assert context.endswith("".join(option["before_pieces"]))
    # A bracketed label: what all labels share is context.
    _, out, _ = tasks_command(monkeypatch, capsys, question_file, *model, "--labels", "(a)")
    assert "|A|ns|wer|:|·|(\n    scored: a  <- right\n    scored: b\n" in out
    code, _, said = tasks_command(monkeypatch, capsys, question_file, *model, "--chat")
    assert code == 2 and "needs a chat template" in said


def test_a_tokenizer_needs_no_weights(question_file, tiny_dirs, tmp_path, monkeypatch, capsys):
    shutil.copytree(tiny_dirs["llama"], tmp_path / "m", ignore=shutil.ignore_patterns("*.safe*"))
    assert tasks_command(monkeypatch, capsys, question_file, "--model", tmp_path / "m")[0] == 0
    code, _, said = tasks_command(monkeypatch, capsys, question_file, "--model", tmp_path)
    assert code == 2 and "no config.json" in said


@given(st.text(st.sampled_from("ABC bluegrn sky.\n\té中🙂"), max_size=30))
def test_pieces_are_the_text_in_parts(text):
    tokenizer = make_tokenizer()
    ids = tokenizer(text)["input_ids"]
    parts = pieces(tokenizer, ids)
    assert "".join(parts) == text and len(parts) == len(ids)


def test_chat_templates_that_take_no_system_turn():
    from phaseprune.questions.prompts import Prompt

    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + CHAT
    )
    prompt = Prompt("own", description="Questions about {group}.\n\n")
    question = Question("0", "What is A", ("red", "blue"), 0, "the_sky")
    task = Task("t", (question,), prompt=prompt, chat=True)
    assert put(question, task).pairs()[0][0].startswith("Questions about the sky.\n\nWhat is A")
    text = tokenizer.decode(encode_task(task, tokenizer)[0].context)
    assert "Questions about" not in text and "<user>What is A" in text


def test_without_a_context_the_start_token_stands_in_for_it():
    tokenizer = make_tokenizer()
    assert encode_pair(tokenizer, "", " red") == ([0], tokenizer(" red")["input_ids"])
    assert encode_pair(tokenizer, "", "<eos>red") == ([0], tokenizer("red")["input_ids"])
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="empty context"):
        encode_pair(tokenizer, "", " red")


def test_what_is_too_long_is_cut_on_the_left_and_counted(question_file, tiny, tmp_path):
    tokenizer = make_tokenizer()
    task = load_task(str(question_file), scoring="text")
    for whole, cut in zip(
        encode_task(task, tokenizer), encode_task(task, tokenizer, 8), strict=True
    ):
        for option, ending in enumerate(whole.continuations):
            expected = (whole.context + ending)[-9:]
            kept = cut.context + cut.continuations[option]
            assert kept == expected
            assert cut.continuations[option][cut.first_scored(option) :] == ending
        longest = max(len(whole.context) + len(e) for e in whole.continuations)
        assert cut.cut == longest - 9
    decoder = tiny["llama"]
    long = QUESTIONS[0] | {"question": "the sky " * 300}
    path = write_jsonl(tmp_path / "long.jsonl", [*QUESTIONS, long])
    for scoring in ("letter", "text"):
        state = trace(decoder, load_task(str(path), scoring=scoring), out=tmp_path / scoring).state
        manifest = json.loads((tmp_path / scoring / "manifest.json").read_text())
        assert state == "new" and manifest["truncated_questions"] == 1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_contexts_of_an_options_own(tiny, family):
    """Options that stand in the context, an ending in common; as trees and as plain rows."""
    decoder = tiny[family]
    pairs = (("the sky", "is blue"), ("the grass", "is blue"), ("snow", "is blue"))
    question = Question("0", "?", ("sky", "grass", "snow"), 0, pairs=pairs)
    task = Task("t", (question, Question("1", "What", ("red", "A B"), 0)), "text")
    encoded = encode_task(task, decoder.tokenizer)[0]
    assert encoded.unscored and all(encoded.unscored)
    prepared = prepare(decoder, task)
    found = trace_scores(decoder, prepared.rows, True, output_only=True)[0, 0]
    for option, (context, ending) in enumerate(pairs):
        before, after = encode_pair(decoder.tokenizer, context, " " + ending)
        with torch.no_grad():
            logits = decoder.model(torch.tensor([before + after])).logits[0].log_softmax(-1)
        expected = sum(logits[len(before) - 1 + i, t].item() for i, t in enumerate(after))
        assert abs(found[option] - expected) < 1e-3


def test_an_option_that_is_the_beginning_of_another(tiny, tmp_path):
    row = {"question": "What is it", "choices": ["sky", "sky blue", "sky blue green"], "answer": 0}
    path = str(write_jsonl(tmp_path / "q.jsonl", [row]))
    task = load_task(path, scoring="text")
    decoder = tiny["llama"]
    prepared = prepare(decoder, task)
    scores = trace_scores(decoder, prepared.rows, True, output_only=True)[0, 0]
    assert scores[0] > scores[1] > scores[2]  # each adds a token's log-probability
    assert prepared.input_counts["begun_options"] == 1
    (line,) = input_lines(prepared.input_counts)
    assert "1 question with an option that begins another" in line and "--length-norm" in line
    for fair in (dict(length_norm="chars"), dict(scoring="letter")):
        assert load_task(path, **{"scoring": "text"} | fair).begun == 0


BAD = {
    "labels": (dict(labels="B"), "labels is 'B' and must be one of A, a, 1"),
    "labels for texts": (dict(labels="1", scoring="text"), "labels is for letter scoring"),
    "shots": (dict(shots=-1), "shots must be at least 0"),
    "order": (dict(shot_order="frist"), "shot_order is 'frist'.*Did you mean 'first'"),
    "no split": (dict(shots=2), "has no few-shot split of its own.*shots_from"),
    "from without shots": (dict(shots_from="x.jsonl"), "say how many with shots"),
    "no such file": (dict(shots=1, shots_from="x.jsonl"), "x.jsonl: there is no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_sentence(question_file, name):
    options, says = BAD[name]
    with pytest.raises(UserError, match=says):
        load_task(str(question_file), **options)


def test_bad_questions_are_one_sentence(question_file):
    with pytest.raises(UserError, match="chat needs a chat template"):
        encode_task(load_task(str(question_file), chat=True), make_tokenizer())
    question = Question("7", "What", ("red", "the sky is blue " * 3), 0)
    with pytest.raises(UserError, match="question 7 of t: an option alone has .* takes 6"):
        encode_task(Task("t", (question,), "text"), make_tokenizer(), max_length=6)
    question = Question("8", "What", ("red", "blue"), 0, pairs=(("What", ""), ("What", "x")))
    tokenizer = make_tokenizer()
    with pytest.raises(UserError, match="question 8 of t: an option has no tokens"):
        encode_task(
            Task("t", (question,), "text"),
            lambda text, **_: {"input_ids": tokenizer(text.rstrip())["input_ids"]},
        )


@pytest.mark.slow
def test_options_that_stand_twice_are_counted(tmp_path, monkeypatch, capsys):
    rows = [*QUESTIONS, dict(QUESTIONS[0], choices=["red", "blue", "red"])]
    path = write_jsonl(tmp_path / "q.jsonl", rows)
    assert load_task(str(path)).duplicated == 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["phaseprune"])
    with pytest.raises(SystemExit):
        main(["trace", "demo", "--task", str(path), "--out", "run"])
    said = " ".join(capsys.readouterr().err.split())
    assert "1 question with an option that stands twice" in said
    assert json.loads((tmp_path / "run/manifest.json").read_text())["duplicated_options"] == 1
    with pytest.raises(SystemExit):
        main(["check", "demo", "--task", str(path), "--json"])
    assert json.loads(capsys.readouterr().out)["duplicated_options"] == 1


@pytest.mark.slow
def test_what_changes_the_prompt_is_another_run(tmp_path, monkeypatch, capsys, examples):
    """Each option by itself makes a finished run refuse to be gone on with."""
    monkeypatch.chdir(tmp_path)
    path = write_jsonl(tmp_path / "q.jsonl", QUESTIONS)
    base = ["trace", "demo", "--task", str(path), "--out", "run"]
    few = ["--shots", "1", "--shots-from", str(examples)]
    for words, code in (([], 0), ([], 0), (["--labels", "1"], 2), (few, 2), (["--shuffle"], 2)):
        with pytest.raises(SystemExit) as ended:
            main([*base, *words])
        assert (ended.value.code or 0) == code, capsys.readouterr().err
    assert "prompt_format" in capsys.readouterr().err


@pytest.mark.slow
def test_the_next_command_has_the_same_prompt(tmp_path, monkeypatch, capsys, examples):
    monkeypatch.chdir(tmp_path)
    path = write_jsonl(tmp_path / "q.jsonl", QUESTIONS)
    words = ["--shots", "1", "--shots-from", str(examples), "--labels", "1", "--shuffle"]
    with pytest.raises(SystemExit):
        main(["trace", "demo", "--task", str(path), "--out", "run", *words])
    following = " ".join(capsys.readouterr().out.split())
    for word in words:
        assert word in following.split("next: ")[1]


def test_shots_share_the_beginning_of_prompts(question_file, examples):
    task = load_task(str(question_file), shots=4, shots_from=examples)
    contexts = [q.context for q in encode_task(task, make_tokenizer())]
    shared = np.array([len({c[i] for c in contexts}) == 1 for i in range(min(map(len, contexts)))])
    assert shared[:40].all()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_permuted_scores_are_the_mean_over_rotations(question_file, tiny, family):
    """Each option's scores at the places to which it comes; questions have 2 to 5 options."""
    decoder = tiny[family]
    task = load_task(str(question_file), permute=True)
    prepared = prepare(decoder, task)
    found = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary)
    plain = load_task(str(question_file))
    for number, question in enumerate(plain.questions):
        turned = [question.reordered(order) for _, order in question.rotations()]
        rows = prepare(decoder, plain.with_questions(turned))
        raw = trace_scores(decoder, rows.rows, rows.needs_vocabulary)
        for option, choice in enumerate(question.choices):
            scores = [raw[t, :, q.choices.index(choice)] for t, q in enumerate(turned)]
            np.testing.assert_allclose(found[number, :, option], np.mean(scores, axis=0), atol=1e-4)
    swept = sweep_scores(decoder, prepared.rows, prepared.needs_vocabulary, [0, 1])
    assert np.isfinite(swept.scores).sum() == 2 * task.options.sum()


def test_permuting_takes_a_letter_bias_out(question_file, tiny):
    """A constant added to one letter's score changes no decision and no Option Frequency."""
    decoder = tiny["llama"]
    task = load_task(str(question_file), permute=True)
    equal = task.with_questions([q for q in task.questions if len(q.choices) == 4])
    before = trace(decoder, equal)
    letter = decoder.tokenizer(" A")["input_ids"][0]
    bias = torch.zeros(decoder.head.weight.shape[0])
    bias[letter] = 50.0
    from phaseprune.sweep import scoring

    real = scoring.read_logits
    scoring.read_logits = lambda d, states, rows=None: real(d, states)[:, rows] + bias[rows]
    try:
        after = trace(decoder, equal)
    finally:
        scoring.read_logits = real
    np.testing.assert_allclose(after.raw_scores - before.raw_scores, 50 / 4, atol=1e-3)
    np.testing.assert_array_equal(after.option_frequency, before.option_frequency)


def test_permuting_is_for_letters_and_another_run(question_file):
    with pytest.raises(UserError, match="permute is for letter scoring"):
        load_task(str(question_file), scoring="text", permute=True)
    assert "cyclic permutations" in load_task(str(question_file), permute=True).prompt_format


def test_option_frequency_with_unequal_numbers_of_options(question_file, tiny):
    traced = trace(tiny["llama"], load_task(str(question_file)))
    result = traced.to_dict()
    present = result["where_present"]
    assert present["questions"] == [8, 8, 7, 3, 1]  # k is 3, 2, 5, 3, 4, 4, 3, 3
    decided = traced.decisions.decided[:, -1]
    options = traced.decisions.options
    for option, count in enumerate(present["questions"]):
        assert count == (options > option).sum()
        share = (decided == option).sum() / count
        assert abs(present["option_frequency"][-1][option] - share) < 1e-12
    assert abs(sum(result["option_frequency"][-1]) - 1) < 1e-12
    assert "of 1" in unequal_options_line(result)
