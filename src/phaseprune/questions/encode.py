"""Tokenising questions the way lm-evaluation-harness does, so that figures can be compared.

Context and continuation are tokenised together; what is scored begins at the length of the
tokenised context alone. Trailing spaces of the context move to the continuation. A label or option
is therefore never tokenised by itself. What is longer than the model takes is cut on the left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from phaseprune.errors import UserError
from phaseprune.questions.chat import Chat, chat_template
from phaseprune.questions.prompts import option_labels, put
from phaseprune.questions.question import Question, Task


@dataclass(frozen=True)
class EncodedQuestion:
    """Token ids of one question.

    Attributes:
        context: the tokens all options share.
        continuations: each option's own tokens; a single one each for letters.
        units: each option's length in the task's unit of ``length_norm`` (1 for ``none``).
        unscored: how many tokens at the beginning of each continuation are context of that option
            alone and are not scored (at least 1 where ``context`` is empty); empty for none.
        cut: the most tokens that an option's context lost on the left.
    """

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    units: tuple[int, ...]
    unscored: tuple[int, ...] = ()
    cut: int = 0

    def first_scored(self, option: int) -> int:
        """Position in an option's continuation of the first token that is scored."""
        return self.unscored[option] if self.unscored else 0


def encode_task(task: Task, tokenizer, max_length: int | None = None) -> list[EncodedQuestion]:
    """Tokenise all questions of a task.

    Args:
        task: the questions and their scoring.
        tokenizer: a transformers tokenizer.
        max_length: tokens that the model can take, if it says so. Longer inputs lose tokens on
            the left, as in lm-eval.

    Raises:
        UserError: labels that are not single distinct tokens, options that have no tokens, an
            option that alone is longer than ``max_length``, each with the question's name; a
            tokenizer that ends every text with a token of its own; or one without the chat template
            asked for (``questions.chat``).
    """
    refuse_ended(tokenizer)
    with _chat(task, tokenizer) as chat:
        return [_encode(question, task, tokenizer, chat, max_length) for question in task.questions]


def option_pairs(question: Question, task: Task, tokenizer) -> list[tuple[str, str]]:
    """Context and continuation of each option as texts, in the chat template if the task says so.

    Raises:
        UserError: the tokenizer has no chat template that can be used (``questions.chat``).
    """
    with _chat(task, tokenizer) as chat:
        return put(question, task).pairs(chat)


def encode_pair(tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Context and continuation ids of one pair (lm-eval's ``_encode_pair``).

    Where the tokenizer merges across the boundary, both keep what lm-eval keeps: the context
    tokenised alone, and of the whole what lies behind that many tokens.
    """
    if not context:
        return _without_context(tokenizer, continuation)
    trailing = len(context) - len(context.rstrip())
    if trailing:
        context, continuation = context[:-trailing], context[-trailing:] + continuation
    whole = _ids(tokenizer, context + continuation)
    alone = _ids(tokenizer, context)
    return alone, whole[len(alone) :]


def _ids(tokenizer, text: str) -> list[int]:
    """Token ids with the tokenizer's special tokens, unless the text begins with them already."""
    start = _start_token(tokenizer)
    if start and text.startswith(start):  # a chat template has written it
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokenizer(text)["input_ids"]


def _start_token(tokenizer) -> str | None:
    return getattr(tokenizer, "bos_token", None) or getattr(tokenizer, "eos_token", None)


def _without_context(tokenizer, continuation: str) -> tuple[list[int], list[int]]:
    """An empty context is the tokenizer's start token."""
    start = _start_token(tokenizer)
    if not start:
        raise UserError(
            "a question has an empty context and the tokenizer has no start token to put in its "
            "place; give the question a text"
        )
    start = tokenizer.convert_tokens_to_ids(start)
    ids = tokenizer(continuation, add_special_tokens=False)["input_ids"]
    return ([start], ids[1:]) if ids[:1] == [start] else ([start], ids)


@contextmanager
def _chat(task: Task, tokenizer) -> Iterator[Chat | None]:
    """The tokenizer's chat template, where the task is put in it."""
    if not task.chat:
        yield None
        return
    with chat_template(tokenizer) as chat:
        yield chat


def refuse_ended(tokenizer) -> None:
    """Refuse a tokenizer that ends each text with a special token, as ``</s>``.

    Raises:
        UserError: it does.
    """
    special = getattr(tokenizer, "all_special_ids", ())
    ids = tokenizer("A B")["input_ids"] if special else []
    if ids and ids[-1] in special:
        plain = tokenizer("A B", add_special_tokens=False)["input_ids"]
        if ids[-len(plain) :] == plain:
            return
        [token] = tokenizer.convert_ids_to_tokens([ids[-1]])
        raise UserError(
            f"this model's tokenizer ends every text with {token!r}, so of every option that token "
            "would be scored; set add_eos_token to false in its tokenizer_config.json, or take the "
            "token out of the post_processor of its tokenizer.json"
        )


def _encode(question: Question, task: Task, tokenizer, chat, max_length) -> EncodedQuestion:
    where = f"question {question.id} of {task.name}"
    contexts, endings, cut = [], [], 0
    for context, continuation in put(question, task).pairs(chat):
        context, ending = encode_pair(tokenizer, context, continuation)
        if not context or not ending:
            raise UserError(f"{where}: an option has no tokens to score")
        if max_length is not None:
            if len(ending) > max_length:
                raise UserError(
                    f"{where}: an option alone has {len(ending)} tokens and the model takes "
                    f"{max_length}; shorten it or leave the question out"
                )
            # The last token is only predicted, so one more than the model takes may stay.
            surplus = max(0, len(context) + len(ending) - (max_length + 1))
            context, cut = context[surplus:], max(cut, surplus)
        contexts.append(context)
        endings.append(ending)
    units = {
        "none": lambda choice, ending: 1,
        "chars": lambda choice, ending: len(choice),
        "bytes": lambda choice, ending: len(choice.encode()),
        "tokens": lambda choice, ending: len(ending),
    }[task.length_norm]
    lengths = tuple(units(c, e) for c, e in zip(question.choices, endings, strict=True))
    shared, unscored = contexts[0], ()
    if any(context != shared for context in contexts):
        shared = _common_prefix(contexts)
        unscored = tuple(len(context) - len(shared) for context in contexts)
        endings = [c[len(shared) :] + e for c, e in zip(contexts, endings, strict=True)]
    if task.scoring == "letter":
        shared, endings = _single_labels(where, task, tokenizer, list(shared), endings)
    return EncodedQuestion(tuple(shared), tuple(map(tuple, endings)), lengths, unscored, cut)


def _single_labels(where: str, task: Task, tokenizer, context, endings):
    """Labels as one distinct token each; a lead that all labels share joins the context."""
    shared = _common_prefix(endings)
    if shared and len(shared) < min(map(len, endings)):
        context, endings = context + shared, [ending[len(shared) :] for ending in endings]
    labels = option_labels(len(endings), task.labels)
    if any(len(ending) != 1 for ending in endings) or len({e[0] for e in endings}) < len(endings):
        shown = ", ".join(
            f"{label!r} -> {tokenizer.convert_ids_to_tokens(list(ending))}"
            for label, ending in zip(labels, endings, strict=True)
        )
        raise UserError(
            f"{where}: the labels are not single distinct tokens in "
            f"this tokenizer ({shown}); use --scoring=text"
        )
    return context, endings


def _common_prefix(sequences) -> list[int]:
    shared = []
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared


@dataclass(frozen=True)
class OptionTokens:
    """The tokens of one option, as ids and as the text that each adds.

    Attributes:
        before: ids of the context, the whole of it.
        scored: ids of what is scored.
        before_pieces: text of the last tokens of the context.
        scored_pieces: text of each scored token.
    """

    before: tuple[int, ...]
    scored: tuple[int, ...]
    before_pieces: tuple[str, ...]
    scored_pieces: tuple[str, ...]


def option_tokens(question: EncodedQuestion, tokenizer, last: int = 8) -> list[OptionTokens]:
    """Each option's tokens, with the texts of its ``last`` context tokens and of its own."""
    shown = []
    for option, continuation in enumerate(question.continuations):
        first = question.first_scored(option)
        before, scored = question.context + continuation[:first], continuation[first:]
        texts = pieces(tokenizer, before[-last:] + scored)
        cut = len(texts) - len(scored)
        shown.append(OptionTokens(before, scored, tuple(texts[:cut]), tuple(texts[cut:])))
    return shown


def pieces(tokenizer, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to those before it.

    A token by itself may decode to less: SentencePiece drops a leading space, and one character
    may need several tokens, of which the last shows it.
    """
    texts, before = [], ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        if whole.endswith("\N{REPLACEMENT CHARACTER}") and end < len(ids):
            texts.append("")
            continue
        texts.append(whole[len(before) :])
        before = whole
    return texts
