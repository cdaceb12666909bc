"""Schemas: where a row has its question, its options and its right answer. One entry each.

The named benchmarks read their rows by these entries, and files of questions are recognised by
them. A file that is as none of them is read by the usual names of columns, or by those that
``--columns`` gives. To add a schema, add an entry.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

from phaseprune.errors import UserError, near_matches
from phaseprune.questions.rows import (
    ON,
    Item,
    Options,
    Record,
    is_blank,
    plain_name,
    read_options,
    read_scores,
)

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Schema:
    """Where the fields of a question stand in a row.

    A field is named as in ``rows.Record``. Several options in fields of their own are ``A…``, the
    first one of fields that count on, or one field each.

    Attributes:
        name: what a file is said to be recognised as.
        question: a field, a template with fields in braces, or fields that follow one another,
            each on lines of its own, where a row has them.
        choices: the options, as ``rows.read_options`` takes them.
        answer: the field with the right one, by label, number or text; of several that a row has,
            the first, and the others must agree.
        first: the number of the first option; two, where the data were published with both.
        right: where the right option has a field of its own, that field.
        wrong: the other options then.
        scores: where each option has a score, as ``rows.read_scores`` takes them.
        texts: options that are the same in every row.
        context: a field with a passage that stands before the question, in rows that have it.
        also: further fields that a row must have to be of this schema.
        one_place: whether the right option always stands at the same place.
        common: whether others' data may have the same fields, and so more of the question in
            further ones; of a published data set it is known what its further fields are.
        compose: makes the text that is asked, passage and all, where ``question`` is not enough to
            say it.
        clean: changes the options' texts.
        pairs: the (context, ending) of each option, as of ``Question``.
        unpack: makes rows of a row that holds several questions.
    """

    name: str
    question: str | Texts = ""
    choices: str | Texts = ()
    answer: str | Texts = ()
    first: int | tuple[int, int] = 0
    right: str | None = None
    wrong: str | Texts = ()
    scores: str | tuple[str, str] | None = None
    texts: Texts = ()
    context: str | None = None
    also: Texts = ()
    one_place: bool = False
    common: bool = False
    compose: Callable[[Record], str] | None = None
    clean: Callable[[Texts], Texts] | None = None
    pairs: Callable[[Record, Texts], tuple[tuple[str, str], ...]] | None = None
    unpack: Callable[[Record], list[dict[str, Any]]] | None = None

    @property
    def answers(self) -> Texts:
        """The fields that may say the right option."""
        return (self.answer,) if isinstance(self.answer, str) else self.answer

    @property
    def firsts(self) -> tuple[int, ...]:
        """The numbers that the first option may have."""
        return (self.first,) if isinstance(self.first, int) else self.first

    def fits(self, record: Record) -> bool:
        """Whether a row has all fields of the schema."""
        if self.unpack:
            return all(record.name(name) is not None for name in self.also)
        needed = [*self._question_fields, *self.also]
        for columns in filter(None, (self.choices, self.wrong, self.scores)):
            found = _fields(record, columns)
            if isinstance(columns, str) and columns.endswith(ON) and len(found) < 2:
                return False
            needed += found
        needed += [self.right] if self.right else []
        told = [name for name in self.answers if record.name(name) is not None]
        if (self.answer and not told) or any(record.name(name) is None for name in needed):
            return False
        # Fixed options say nothing of a row, so the answer must be one of them.
        item = Item(record, "", Options(self.texts))
        values = (self._told(record, name) for name in told if record.get(name) is not None)
        return not self.texts or any(
            item.by_label(value) is not None or item.by_text(value) is not None for value in values
        )

    def fields(self, record: Record) -> list[str]:
        """The fields of a row that are read, as it names them."""
        names = [self.context] if self.context else []
        if not self.unpack:
            names += self._question_fields
            for columns in filter(None, (self.choices, self.right, self.wrong, self.scores)):
                names += _fields(record, columns)
            names += self.answers
        names += self.also
        return list(dict.fromkeys(filter(None, map(record.name, names))))

    def used(self, record: Record) -> str:
        """What a file was recognised as and which of its fields are read, in words."""
        return f"{self.name} ({', '.join(self.fields(record))})"

    def items(self, record: Record) -> list[Item]:
        """The questions of a row; mostly one.

        Raises:
            UserError: a field is missing or wrong; says which and what it must be.
        """
        if self.unpack is None:
            return [self._item(record)]
        return [self._item(Record(row, record.place)) for row in self.unpack(record)]

    @property
    def _question_fields(self) -> list[str]:
        return list(field_names(self.question)) if self.question else []

    def _item(self, record: Record) -> Item:
        text = self.compose(record) if self.compose else record.fill(self.question)
        if self.context and not self.compose and not is_blank(record.get(self.context)):
            text = f"{record.text(self.context).strip()}\nQuestion: {text}"
        right, given = None, ()
        if self.right:
            wrong = read_options(record, self.wrong).texts
            found = read_options(record, [self.right]).texts
            if not found:
                raise record.refuse(f"the right option ({self.right}) is empty")
            options, right = Options((*wrong, *found)), len(wrong)
        elif self.scores:
            texts, right = read_scores(record, self.scores)
            options = Options(texts)
        elif self.texts:
            options = Options(self.texts)
        else:
            options = read_options(record, self.choices)
        if right is None:
            told = [name for name in self.answers if not is_blank(record.get(name))]
            given = tuple((name, self._told(record, name)) for name in told or self.answers[:1])
        if self.clean:
            options = replace(options, texts=self.clean(options.texts))
        pairs = self.pairs and self.pairs(record, options.texts)
        return Item(record, text, options, given, right, pairs)

    def _told(self, record: Record, name: str) -> Any:
        """What a field says of the right option; of two fixed ones, true is the second."""
        value = record.value(name)
        if len(self.texts) == 2:
            words = {"false": 0, "true": 1}
            value = words.get(str(value).strip().casefold(), value)
        return value


def field_names(fields: str | Sequence[str]) -> Texts:
    """The fields that a role of ``--columns`` names: those of a template, of ``a+b``, of a list."""
    if not isinstance(fields, str):
        return tuple(fields)
    return tuple(re.findall(r"\{([^{}]+)\}", fields)) or (fields,)


def _fields(record: Record, columns: str | Sequence[str]) -> list[str]:
    if isinstance(columns, str):
        return record.counted(columns[:-1]) if columns.endswith(ON) else [columns]
    return list(columns)


def _without_marks(text: str) -> str:
    """Without WikiHow's marks."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _hellaswag(record: Record) -> str:
    """The context with its activity, cleaned of WikiHow's marks."""
    if record.name("ctx_a") is None or record.name("ctx_b") is None:
        context = record.text("ctx")
    else:
        context = f"{record.text('ctx_a')} {(record.get('ctx_b') or '').capitalize()}"
    activity = record.get("activity_label")
    return _without_marks(context if activity is None else f"{activity}: {context}")


def _blank_filled(record: Record, options: Texts) -> tuple[tuple[str, str], ...]:
    """Each option fills the blank of a sentence, and what follows the blank is scored."""
    before, blank, after = record.text("sentence").partition("_")
    if not blank:
        raise record.refuse("the sentence has no blank, which is written _")
    return tuple((before + option, after.strip()) for option in options)


def _copa(record: Record) -> str:
    """A premise that goes on with its cause or its effect."""
    asked = record.text("question").strip().casefold()
    connectors = {"cause": "because", "effect": "therefore"}
    if asked not in connectors:
        raise record.refuse(f"the question must be cause or effect and is {asked[:40]!r}")
    return f"{record.text('premise').strip()[:-1]} {connectors[asked]}"


def _copa_pairs(record: Record, options: Texts) -> tuple[tuple[str, str], ...]:
    # lm-eval's endings begin with a space besides the delimiter's, so two are scored.
    return tuple((_copa(record), f" {option[:1].lower()}{option[1:]}") for option in options)


def _sciq(record: Record) -> str:
    """A supporting passage and a question."""
    support = record.get("support")
    question = record.text("question", "the question")
    return (
        question
        if support is None
        else (f"{record.text('support').lstrip()}\nQuestion: {question}")
    )


def _tidy(texts: Texts) -> Texts:
    """GPQA's options as lm-eval cleans them."""
    return tuple(
        (text or " ").strip().replace(" [title]", ". ").replace("  ", " ") for text in texts
    )


def labelled(texts: Texts, labels: str) -> Texts | None:
    """Options without the labels of their own before them, (A) or A) and so on; else None."""
    found = [
        re.fullmatch(rf"\s*(?:\({label}\)|{label}\)|{label}[.:]\s)\s*(\S.*)", text, re.DOTALL)
        for label, text in zip(labels, texts, strict=False)
    ]
    return tuple(one[1] for one in found) if len(found) == len(texts) and all(found) else None


def _without_labels(texts: Texts) -> Texts:
    return labelled(texts, ascii_uppercase) or texts


def _asked_of_query(record: Record) -> str:
    """A query that may name its options too: they are put by the prompt."""
    query = record.text("query", "the question")
    asked, named, _ = query.partition("Answer Choices:")
    return asked.strip().removeprefix("Q:").strip() if named else query


def _race_problems(record: Record) -> list[dict[str, Any]]:
    """An article with several problems: all but the last stand solved, the last is asked."""
    try:
        *solved, asked = ast.literal_eval(record.text("problems"))
        text = f"Article: {record.text('article')}\n\n"
        for problem in solved:
            right = problem["options"][ascii_uppercase.index(problem["answer"])]
            if problem["question"].endswith("  _  ."):
                text += f"{problem['question'][:-5]}{right}\n"
            else:
                text += f"Question: {problem['question']}\nAnswer: {right}\n"
        asked = {name: asked[name] for name in ("question", "options", "answer")}
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, RecursionError, MemoryError):
        raise record.refuse(
            "the field 'problems' must be a list of problems with question, options and answer"
        ) from None
    return [asked | {"question": text + str(asked["question"])}]


def _race_article(record: Record) -> list[dict[str, Any]]:
    """An article with several questions, each asked by itself."""
    lists = {name: record.value(name) for name in ("questions", "options", "answers")}
    lengths = {len(one) if isinstance(one, list) else 0 for one in lists.values()}
    if len(lengths) > 1 or 0 in lengths:
        raise record.refuse("questions, options and answers must be lists, one entry a question")
    return [
        {
            "article": record.value("article"),
            "question": question,
            "options": options,
            "answer": answer,
        }
        for question, options, answer in zip(*lists.values(), strict=True)
    ]


def _named_in_text(record: Record) -> list[dict[str, Any]]:
    """A question that names its options itself: ``… (A) red (B) blue``."""
    text = record.text("question", "the question")
    found = re.split(r"\s*\(([A-Z])\)\s*", text)
    labels, options = found[1::2], found[2::2]
    if len(labels) < 2 or labels != [*ascii_uppercase[: len(labels)]]:
        raise record.refuse("the question must name its options as (A) … (B) …")
    return [{"question": found[0], "choices": options, "answerKey": record.value("answerKey")}]


def _options_of_mathqa(record: Record) -> list[dict[str, Any]]:
    """``a ) 38 , b ) 27.675``."""
    found = re.split(r"(?:^|\s*,\s*)([a-e]) \) ", record.text("options"))
    return [
        {
            "question": record.text("Problem"),
            "choices": found[2::2],
            "correct": record.value("correct"),
        }
    ]


ARC = Schema("ARC", "question", "choices", "answerKey", common=True)
COMMONSENSE_QA = replace(ARC, name="CommonsenseQA", common=False, also=("question_concept",))
OPENBOOKQA = Schema("OpenBookQA", "question_stem", "choices", "answerKey")
HELLASWAG = Schema(
    "HellaSwag",
    "{activity_label} {ctx_a} {ctx_b}",
    "endings",
    "label",
    compose=_hellaswag,
    clean=lambda texts: tuple(_without_marks(text) for text in texts),
)
#: The hub's MMLU; it is also how a file of one's own is best written.
MMLU = Schema("MMLU", "question", "choices", "answer")
MMLU_PRO = Schema(
    "MMLU-Pro", "question", "options", ("answer_index", "answer"), also=("answer_index",)
)
PIQA = Schema("PIQA", "goal", ("sol1", "sol2"), "label")
SOCIAL_IQA = Schema(
    "Social IQa",
    "{context} {question}",
    ("answerA", "answerB", "answerC"),
    ("label", "correct"),
    first=1,
)
WINOGRANDE = Schema(
    "WinoGrande", "sentence", ("option1", "option2"), "answer", first=1, pairs=_blank_filled
)
BOOLQ = Schema(
    "BoolQ", "{passage}\nQuestion: {question}?", texts=("no", "yes"), answer=("label", "answer")
)
RACE = Schema(
    "RACE", "question", "options", "answer", also=("article", "problems"), unpack=_race_problems
)
SCIQ = Schema(
    "SciQ",
    "question",
    right="correct_answer",
    context="support",
    compose=_sciq,
    wrong=("distractor1", "distractor2", "distractor3"),
    one_place=True,
)
COPA = Schema(
    "COPA",
    "{premise} {question}",
    ("choice1", "choice2"),
    "label",
    compose=_copa,
    pairs=_copa_pairs,
)
TRUTHFULQA = Schema("TruthfulQA", "question", scores="mc1_targets", one_place=True)
LOGIQA = Schema("LogiQA", "Passage: {context}\nQuestion: {question}", "options", "label")
GPQA = Schema(
    "GPQA",
    "Question",
    right="Correct Answer",
    one_place=True,
    clean=_tidy,
    wrong=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
)
MEDMCQA = Schema("MedMCQA", "question", ("opa", "opb", "opc", "opd"), "cop", first=(0, 1))
CEVAL = Schema("C-Eval", "question", ("A", "B", "C", "D"), "answer", also=("explanation",))

#: What a file may be, the more special before the less.
SCHEMAS: tuple[Schema, ...] = (
    Schema(
        "CommonsenseQA",
        "question.stem",
        "question.choices",
        "answerKey",
        also=("question.question_concept",),
    ),
    Schema("ARC (AI2)", "question.stem", "question.choices", "answerKey", common=True),
    COMMONSENSE_QA,
    replace(ARC, name="QASC", common=False, also=("formatted_question",)),
    ARC,
    OPENBOOKQA,
    HELLASWAG,
    replace(HELLASWAG, question="{activity_label} {ctx}"),
    replace(HELLASWAG, question="ctx"),
    Schema("SWAG", "startphrase", "ending0…", "label"),
    PIQA,
    SOCIAL_IQA,
    Schema("CosmosQA", "{context} {question}", "answer0…", "label"),
    WINOGRANDE,
    SCIQ,
    GPQA,
    RACE,
    Schema(
        "RACE",
        "Article: {article}\n\n{question}",
        "options",
        "answer",
        unpack=_race_article,
        also=("article", "questions", "options", "answers"),
    ),
    Schema("RACE", "Article: {article}\n\n{question}", "options", "answer"),
    Schema("MuTual", "article", "options", "answers"),
    Schema(
        "XCOPA",
        "{premise}\nWhich is the {question}?",
        ("choice1", "choice2"),
        "label",
        also=("changed",),
    ),
    COPA,
    TRUTHFULQA,
    Schema("LogiQA", "Passage: {text}\nQuestion: {question}", "options", "answer"),
    Schema("LogiQA", "Passage: {context}\nQuestion: {query}", "options", "correct_option"),
    LOGIQA,
    Schema(
        "Belebele",
        "{flores_passage}\nQuestion: {question}",
        "mc_answer1…",
        "correct_answer_num",
        first=1,
    ),
    Schema(
        "StoryCloze",
        "{input_sentence_1} {input_sentence_2} {input_sentence_3} {input_sentence_4}",
        ("sentence_quiz1", "sentence_quiz2"),
        "answer_right_ending",
        first=1,
    ),
    Schema(
        "StoryCloze",
        "{InputSentence1} {InputSentence2} {InputSentence3} {InputSentence4}",
        ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2"),
        "AnswerRightEnding",
        first=1,
    ),
    Schema(
        "BLiMP",
        right="sentence_good",
        wrong=("sentence_bad",),
        one_place=True,
        compose=lambda record: "Which sentence is acceptable?",
        pairs=lambda record, options: tuple(("", option) for option in options),
    ),
    Schema(
        "AGIEval",
        "question",
        "options",
        "label",
        context="passage",
        also=("passage",),
        clean=_without_labels,
    ),
    Schema(
        "lm-eval or AGIEval",
        "query",
        "choices",
        "gold",
        compose=_asked_of_query,
        clean=_without_labels,
        common=True,
    ),
    Schema(
        "MathQA",
        "question",
        "choices",
        "correct",
        also=("Problem", "options", "correct"),
        unpack=_options_of_mathqa,
    ),
    Schema("AQuA", "question", "options", "correct", clean=_without_labels, common=True),
    Schema("HeadQA", "qtext", "answers", "ra", first=1),
    Schema(
        "KMMLU",
        "question",
        "A…",
        "answer",
        first=1,
        also=("Human Accuracy",),
    ),
    MEDMCQA,
    MMLU_PRO,
    Schema("MedQA", "question", "options", ("answer_idx", "answer"), also=("answer_idx",)),
    Schema("MedQA", "sent1", "ending0…", "label"),
    CEVAL,
    Schema("MMLU", "question", "A…", "answer", common=True),
    Schema("BIG-bench", "input", scores="target_scores"),
    Schema("BIG-bench", "inputs", scores=("multiple_choice_targets", "multiple_choice_scores")),
    Schema(
        "TruthfulQA",
        "question",
        right="best_answer",
        wrong=("best_incorrect_answer",),
        one_place=True,
    ),
    Schema(
        "TruthfulQA", "question", right="best_answer", wrong="incorrect_answers", one_place=True
    ),
    Schema(
        "quiz questions",
        "question",
        right="correct_answer",
        wrong="incorrect_answers",
        one_place=True,
        common=True,
    ),
)
#: What a file may be that has no options of its own: tried after everything else.
WITHOUT_OPTIONS: tuple[Schema, ...] = (
    BOOLQ,
    Schema(
        "PubMedQA",
        "question",
        texts=("yes", "no", "maybe"),
        answer="final_decision",
        context="context.contexts",
        also=("context.contexts",),
    ),
    Schema(
        "ARC (AI2)",
        "question",
        "choices",
        "answerKey",
        also=("question", "answerKey"),
        unpack=_named_in_text,
    ),
)

#: The usual names of fields, in the order in which they are looked for.
QUESTIONS = (
    "question",
    "question_stem",
    "query",
    "stem",
    "question_text",
    "qtext",
    "prompt",
    "problem",
    "instruction",
    "sent1",
    "input",
    "goal",
    "ctx",
    "sentence",
    "premise",
    "q",
    "context",
    "text",
    "passage",
    "article",
)
CHOICES = (
    "choices",
    "options",
    "candidates",
    "endings",
    "answers",
    "answer_choices",
    "answer_options",
    "alternatives",
    "possible_answers",
    "choice",
    "mc_answers",
)
#: Names before the letter or number of options that have a field each.
STEMS = (
    "",
    "option",
    "choice",
    "answer",
    "opt",
    "op",
    "ending",
    "sol",
    "ans",
    "alternative",
    "candidate",
    "mc_answer",
    "answer_option",
    "response",
)
ANSWERS = ("answer_idx", "answer_index", "answerKey", "answer_key", "answer")
#: Looked for where there is none of the above.
OTHER_ANSWERS = (
    "gold",
    "gold_index",
    "gold_idx",
    "label",
    "target",
    "target_idx",
    "correct",
    "correct_answer",
    "correct_option",
    "correct_index",
    "correct_idx",
    "correct_choice",
    "correct_answer_id",
    "correct_answer_idx",
    "correct_answer_num",
    "correct_answer_index",
    "right_answer",
    "key",
    "answer_id",
    "answer_letter",
    "ans",
    "cop",
    "ra",
    "solution",
)
CONTEXTS = (
    "context",
    "passage",
    "article",
    "support",
    "paragraph",
    "para",
    "story",
    "dialogue",
    "narrative",
    "document",
    "documents",
    "premise",
)
#: Fields of an option in a list of objects that say whether it is right.
FLAGS = ("is_correct", "correct", "is_right", "is_answer")
#: What stands in an instruction and its input belongs together, as in Alpaca's data.
INSTRUCTION, INPUT = "instruction", "input"
#: Fields that would tell the answer, and so are left out of the question.
EXPLANATIONS = (
    "explanation",
    "explanations",
    "rationale",
    "rationales",
    "reasoning",
    "reason",
    "cot",
    "cot_content",
    "solution",
    "exp",
    "feedback",
    "justification",
)
IDS = ("id", "question_id", "qid")
GROUPS = ("group", "subject", "kind", "category", "subject_name")
#: What ``--columns`` may say, beside the numbers of options.
ROLES = ("question", "choices", "answer", "context", "id", "group")
#: What ``answers=`` may say: how the right option is named.
ANSWER_KINDS = ("0-based", "1-based", "text")


def recognise(record: Record) -> Schema | None:
    """The schema of a file by its first row; None for none."""
    for schema in SCHEMAS:
        if schema.fits(record):
            return schema
    found = find_roles(record)
    if not missing_roles(found):
        return by_roles(found)
    return next((schema for schema in WITHOUT_OPTIONS if schema.fits(record)), None)


def find_roles(record: Record, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of a question by the usual names, or by those given.

    Args:
        record: the first row.
        given: fields by role, of ``parse_columns``.

    Returns:
        Of ``question``, ``choices``, ``answer`` and ``context`` those that are found.
    """
    found = {
        role: given[role]
        for role in ("question", "choices", "answer", "context")
        if given and role in given
    }
    taken = {record.name(name) for name in field_names(found.get("question", ()))}

    def first(names: Sequence[str]) -> str | None:
        known = (record.name(name) for name in names)
        return next((name for name in known if name is not None and name not in taken), None)

    if "question" not in found and (name := first(QUESTIONS)):
        taken.add(name)
        instructed = plain_name(name) == INSTRUCTION and record.name(INPUT)
        found["question"] = (name, instructed) if instructed else name
    if "choices" not in found and (choices := first(CHOICES) or _counted(record)):
        found["choices"] = choices
    if "answer" not in found:
        several = tuple(name for name in map(record.name, ANSWERS) if name is not None)
        others = (*OTHER_ANSWERS, *flags(found.get("choices")))
        if answer := tuple(dict.fromkeys(several)) or first(others):
            found["answer"] = answer
    whole = given and {"question", "choices", "answer"} <= {*given}
    name = None if whole else first(CONTEXTS)
    if "context" not in found and name and isinstance(record.get(name), str | list | None):
        found["context"] = name
    return found


def flags(choices: Any) -> Texts:
    """The fields that may say of each of a list of options whether it is right."""
    plain = isinstance(choices, str) and not choices.endswith(ON)
    return tuple(f"{choices}.{flag}" for flag in FLAGS) if plain else ()


def missing_roles(found: Mapping[str, Any]) -> list[str]:
    """The roles that every question has and that are not found."""
    return [role for role in ("question", "choices", "answer") if role not in found]


def by_roles(found: Mapping[str, Any]) -> Schema:
    """The schema of fields by role."""
    from_one = str(found["choices"]).endswith("1" + ON)
    return Schema(
        "plain questions",
        found["question"],
        found["choices"],
        found["answer"],
        first=(0, 1) if from_one else 0,
        context=found.get("context"),
        common=True,
    )


def _counted(record: Record) -> str | None:
    """Fields that count on, by the usual names: ``A…`` or ``option1…``."""
    for stem in STEMS:
        for start in ("a", "0", "1") if stem else ("a",):
            if len(record.counted(stem + start)) >= 2:
                return stem + start + ON
    return None


def parse_columns(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """What ``--columns`` says.

    Args:
        given: ``question=q,choices=A+B+C+D,answer=key``, or the same by name, with choices as a
            list.

    Returns:
        Fields by role, and ``answers``: one of ``ANSWER_KINDS``.

    Raises:
        UserError: something that is none of the roles, or stands there twice, or is empty.
    """
    known = (*ROLES, "answers")
    if given is None:
        return {}
    if isinstance(given, str):
        parts = re.split(r"(?:^|,)\s*([\w-]+)\s*=", given)
        if parts[0].strip() or len(parts) < 3:
            raise UserError(
                f"--columns {given!r} must say which field is what, as "
                "question=q,choices=A+B+C+D,answer=key"
            )
        pairs = list(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
    else:
        pairs = list(given.items())
    found: dict[str, Any] = {}
    for role, field in pairs:
        if role not in known:
            raise UserError(
                f"--columns names {role!r} and must name {', '.join(known)}."
                + near_matches(str(role), known)
            )
        if role in found:
            raise UserError(f"--columns names {role} twice; name it once")
        several = role in ("choices", "answer") and isinstance(field, list | tuple)
        fields = list(field) if several else [field]
        if not fields or not all(isinstance(one, str) and one.strip() for one in fields):
            raise UserError(f"--columns: {role} must be the name of a field and is {field!r}")
        found[role] = tuple(fields) if several else field
    kind = found.get("answers", ANSWER_KINDS[0])
    if kind not in ANSWER_KINDS:
        raise UserError(
            f"--columns: answers is {kind!r} and must be one of {', '.join(ANSWER_KINDS)}."
            + near_matches(kind, ANSWER_KINDS)
        )
    return found


def with_columns(record: Record, given: Mapping[str, Any]) -> Schema | None:
    """The schema of a file where ``--columns`` says something.

    Args:
        record: the first row.
        given: of ``parse_columns``.

    Returns:
        None where roles are missing that are not found by the usual names either.

    Raises:
        UserError: a field that the row does not have.
    """
    given = dict(given)
    for role in ROLES:
        if isinstance(given.get(role), str) and "{" not in given[role]:
            parts = _split(record, given[role], role)
            given[role] = parts if len(parts) > 1 else parts[0]
    for role in ROLES:
        for field in field_names(given.get(role, ())):
            if record.name(field) is None:
                raise record.refuse(_no_field(record, role, field))
    schema = None
    if not {*given} & {"question", "choices", "answer"}:
        schema = recognise(record)
        if schema is not None and "context" in given:
            # A schema that makes its text by itself has no place for another passage.
            own = schema.compose or schema.unpack
            schema = None if own else replace(schema, context=given["context"])
    if schema is None:
        found = find_roles(record, given)
        schema = None if missing_roles(found) else by_roles(found)
    if schema is not None and given.get("answers") in ("0-based", "1-based"):
        schema = replace(schema, first=int(given["answers"][0]))
    return schema


def _no_field(record: Record, role: str, field: str) -> str:
    several = [part.strip() for part in field.split(",")]
    if len(several) > 1 and all(record.name(part) is not None for part in several):
        return f"--columns {role}={field}: several fields are joined by +, as {'+'.join(several)}"
    names = [str(name) for name in record.row]
    return (
        f"--columns {role}={field}: there is no field {field!r} (fields found: "
        f"{', '.join(names)})." + near_matches(field, names)
    )


def _split(record: Record, field: str, role: str) -> Texts:
    """The fields that a text names: one, or for choices several with + between them."""
    if role != "choices" or record.name(field) is not None:
        return (field,)
    return tuple(part.strip() for part in field.split("+"))
