"""Prompts: how a question, its options and solved examples become text.

The default prompts are those of lm-evaluation-harness: ``letter`` is put as its MMLU, ``text`` as
its ARC. docs/questions.md shows both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase

from phaseprune.questions.question import DEFAULT_PROMPTS, Prompt, Question, Task

#: Label styles, each named by its first label: the labels and what stands behind one in a list.
LABEL_STYLES: dict[str, tuple[Sequence[str], str]] = {
    "A": (ascii_uppercase, ". "),
    "a": (ascii_lowercase, ". "),
    "1": ([str(number) for number in range(1, 27)], ". "),
    "(A)": ([f"({letter})" for letter in ascii_uppercase], " "),
    "(a)": ([f"({letter})" for letter in ascii_lowercase], " "),
}
#: Between solved examples.
EXAMPLE_DELIMITER = "\n\n"


@dataclass(frozen=True)
class Rendered:
    """A question as it is put to a model.

    Attributes:
        description: the text before everything else.
        examples: solved examples, (question, answer).
        contexts: the context of each option (mostly the same one).
        endings: what is scored of each option, without the delimiter before it.
        delimiter: stands before each ending and each example's answer.
        messages: whether the contexts are JSON lists of all messages of the chat.
    """

    description: str
    examples: tuple[tuple[str, str], ...]
    contexts: tuple[str, ...]
    endings: tuple[str, ...]
    delimiter: str = " "
    messages: bool = False

    def pairs(self, chat: Callable[[list[dict]], str] | None = None) -> list[tuple[str, str]]:
        """Context and continuation of each option, as lm-eval makes them.

        Args:
            chat: makes a text of chat messages, ending where the answer begins; the examples are
                turns of the chat then, and no space stands before what is scored.
        """
        if chat is None:
            lead = self.description + "".join(
                f"{question}{self.delimiter}{answer}{EXAMPLE_DELIMITER}"
                for question, answer in self.examples
            )
            return [
                (lead + context, self.delimiter + ending)
                for context, ending in zip(self.contexts, self.endings, strict=True)
            ]
        texts = {context: chat(self._turns(context)) for context in set(self.contexts)}
        return [(texts[c], e) for c, e in zip(self.contexts, self.endings, strict=True)]

    def _turns(self, context: str) -> list[dict]:
        """The messages of a chat that asks for what follows a context."""
        if self.messages:
            return json.loads(context)
        turns = [{"role": "system", "content": self.description}] if self.description else []
        for question, answer in self.examples:
            turns.append({"role": "user", "content": question})
            turns.append({"role": "assistant", "content": answer})
        return [*turns, {"role": "user", "content": context}]


def option_labels(options: int, style: str = "A") -> tuple[str, ...]:
    """``A``, ``B``, … (or another style's) for that many options."""
    return tuple(LABEL_STYLES[style][0][:options])


def render(
    question: Question, scoring: str, prompt: Prompt | None = None, labels: str = "A"
) -> tuple[str, list[str]]:
    """The context of a question alone and one continuation an option.

    ``letter``: the options stand in the context and the continuations are `` A``, `` B``, …;
    ``text``: each option's own text is a continuation.
    """
    prompt = prompt or DEFAULT_PROMPTS[scoring]
    behind = LABEL_STYLES[labels][1]
    names = option_labels(len(question.choices), labels)
    lines = [f"{name}{behind}{c}" for name, c in zip(names, question.choices, strict=True)]
    options = "\n".join(lines)
    if scoring == "text":
        context = prompt.text.format(question=question.text, options=options)
        return context, [prompt.delimiter + choice for choice in question.choices]
    text = question.text.strip() if prompt.strip else question.text
    context = prompt.letter.format(question=text, options=options)
    return context, [prompt.delimiter + name for name in names]


def put(question: Question, task: Task) -> Rendered:
    """A question with the task's description, solved examples and prompt."""
    prompt = task.prompt or DEFAULT_PROMPTS[task.scoring]
    pairs = _pairs(question, task)
    examples = []
    for shot in task.shots.of(question) if task.shots else ():
        context, ending = _pairs(shot, task)[shot.answer]
        examples.append((context, ending))
    group = question.group or ""
    group = prompt.groups.get(group, group.replace("_", " "))
    contexts, endings = zip(*pairs, strict=True)
    if task.scoring == "letter":
        # A closing bracket is not scored: behind the letter it tells nothing about the decision.
        endings = tuple(ending.removesuffix(")") for ending in endings)
    description = prompt.description.format(group=group)
    return Rendered(
        description, tuple(examples), contexts, endings, prompt.delimiter, prompt.messages
    )


def _pairs(question: Question, task: Task) -> list[tuple[str, str]]:
    """Context and what follows the delimiter, for each option."""
    if task.scoring == "text" and question.pairs is not None:
        return list(question.pairs)
    context, continuations = render(question, task.scoring, task.prompt, task.labels)
    delimiter = (task.prompt or DEFAULT_PROMPTS[task.scoring]).delimiter
    return [(context, c.removeprefix(delimiter)) for c in continuations]
