"""Chat templates: other people's programs, run within limits; what they leave out; ended texts."""

import os
import shutil
import time

import pytest
from tokenizers import processors

from conftest import command, make_tokenizer, write_jsonl
from phaseprune.errors import UserError
from phaseprune.questions import chat
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_task
from phaseprune.questions.question import Question, Task


def turns(content):
    return "{% for m in messages %}<{{ m['role'] }}>" + content + "\n{% endfor %}<assistant>"


QUESTION = Question("0", "What is the sky", ("red", "blue"), 1)


def put(template, tokenizer=None, question=QUESTION):
    """The context of a question in a template, as text."""
    tokenizer = tokenizer or make_tokenizer()
    tokenizer.chat_template = template
    [encoded] = encode_task(Task("t", (question,), chat=True), tokenizer)
    return tokenizer.decode(encoded.context)


@pytest.mark.parametrize(
    "content",
    [
        "{{ m['content'] }}",
        "{{ m['content'] | trim }}",
        "{% for p in m['content'] %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}",
        "{{ m['content'][0]['text'] }}",
        "{{ m.content[0].text | trim }}",
        "{{ m['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join }}",
        "{% if m['content'] is string %}{{ raise_exception('parts only') }}{% endif %}"
        "{{ m['content'][0]['text'] }}",
    ],
)
def test_texts_and_content_parts(content):
    """Templates that take parts silently leave a mere text out, or raise."""
    text = put(turns(content))  # a line's end behind a block is no text
    assert text.replace("\n<assistant>", "<assistant>") == (
        "<user>What is the sky\nA. red\nB. blue\nAnswer:<assistant>"
    )


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('no system, no user') }}", "TemplateError: no system, no user"),
        ("{{ messages[0].content + 5 }}", "TypeError"),
        ("{{ messages[0]['content'].nothing.at_all }}", "UndefinedError"),
        ("{% for m in messages %}", "TemplateSyntaxError"),
        ("{{ messages[7]['content'] }}", "UndefinedError|leaves out"),
        ("{{ messages.__class__.__mro__ }}", "SecurityError|leaves out"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "without end"),
        ("a template that says nothing", "leaves out the question's text"),
        ("{% for m in messages %}{{ m['content'][:9] }}{% endfor %}", "leaves out"),
        ("{% for m in messages %}{{ m['text'] }}{% endfor %}", "leaves out"),
    ],
)
def test_templates_that_fail_are_one_sentence(template, says):
    with pytest.raises(UserError, match=says) as caught:
        put(template)
    assert "\n" not in str(caught.value) and "chat template" in str(caught.value)


FOR_EVER = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = (
    "{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = n.x + n.x %}"
    "{% endfor %}{{ messages[0].content }}{{ n.x }}"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="templates are run in a process of their own")
@pytest.mark.parametrize(
    ("template", "says"),
    [
        (FOR_EVER, "more than 0.5 seconds"),
        ("{{ 9 ** (9 ** 9) }}", "more than 0.5 seconds"),
        (DOUBLED, "too much memory"),
        ("{{ messages[0].content * 10**9 }}", "too much memory"),
        ("{{ messages[0].content }}{{ 'x' * 10**7 }}", "10,000,038 characters"),
        ("{% for a in range(99999) %}{{ messages[0].content }}{% endfor %}", "3,799,962 char"),
    ],
)
def test_templates_that_loop_or_explode_are_ended(monkeypatch, template, says):
    monkeypatch.setattr(chat, "MEMORY", 1 << 28)
    if "seconds" in says:
        monkeypatch.setattr(chat, "SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(UserError, match=says) as caught:
        put(template)
    assert "\n" not in str(caught.value) and time.monotonic() - began < 20
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # nothing is left of it


def test_the_system_turn_may_be_refused_by_templates_of_parts():
    from phaseprune.questions.question import Prompt

    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + turns("{{ m['content'][0]['text'] }}")
    )
    prompt = Prompt("own", description="Questions about {group}.\n\n")
    task = Task("t", (QUESTION,), prompt=prompt, chat=True)
    text = tokenizer.decode(encode_task(task, tokenizer)[0].context)
    assert text.startswith("<user>What is the sky") and "Questions about" not in text


def test_several_templates_without_a_default_are_named():
    several = {"tool_use": turns("{{ m['content'] }}"), "rag": "{{ 1 }}"}
    with pytest.raises(UserError, match=r"several \(rag, tool_use\) and none called default"):
        put(several)
    several["default"] = turns("{{ m['content'] }}")
    assert put(several).startswith("<user>What is the sky")


def test_a_long_question_is_no_explosion(monkeypatch):
    monkeypatch.setattr(chat, "SIZE", 100)
    long = Question("0", "word" + 400 * " word", ("red", "blue"), 1)
    assert put(turns("{{ m['content'] }}"), question=long).count(" word") == 400


def ended(token="<eos>", **more):
    tokenizer = make_tokenizer()
    for name, value in more.items():
        setattr(tokenizer, name, value)
    number = tokenizer.convert_tokens_to_ids(token)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {token}", special_tokens=[(token, number)]
    )
    return tokenizer


@pytest.mark.parametrize("more", [{}, {"unk_token": "<eos>"}, {"bos_token": "<eos>"}])
@pytest.mark.parametrize("scoring", ["letter", "text"])
def test_a_tokenizer_that_ends_texts_is_refused(tmp_path, scoring, more):
    """Of each option the end would be scored, so all would be the same."""
    path = write_jsonl(
        tmp_path / "q.jsonl", [{"question": "What", "choices": ["red", "blue"], "answer": 0}]
    )
    task = load_task(str(path), scoring=scoring)
    with pytest.raises(UserError, match="ends every text with '<eos>'.*add_eos_token") as caught:
        encode_task(task, ended(**more))
    assert "\n" not in str(caught.value)
    begun = make_tokenizer()
    begun.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", 0)]
    )
    assert encode_task(task, begun)[0].context[0] == 0


def test_check_refuses_it_without_a_task(tiny_dirs, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(tiny_dirs["llama"], tmp_path / "model")
    ended().save_pretrained(folder)
    code, out, err = command(monkeypatch, capsys, "check", folder)
    assert code == 2 and "✗ tokens: this model's tokenizer ends every text" in out
    assert "ends every text with '<eos>'" in err
