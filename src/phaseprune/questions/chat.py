"""Chat templates: programs that come with a tokenizer and make one text of a chat's messages.

A template is other people's code, so it is run in a process of its own, with limits of time,
memory and size. That process is a fork of this one: it has the tokenizer as it is, and the method
of it that lm-eval calls too. Elsewhere than on Linux, where a fork may not be safe, the template is
run here and its size alone is limited.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError

#: Seconds for one chat; a template takes milliseconds.
SECONDS = 10.0
#: Bytes that the process of a template may take besides what it begins with.
MEMORY = 1 << 30
#: Characters of a prompt: so many, and so many times those of its messages.
SIZE, TIMES = 200_000, 20

Turns = list[dict[str, Any]]
#: Makes a text of a chat's messages, ending where the answer begins.
Chat = Callable[[Turns], str]


@contextmanager
def chat_template(tokenizer: Any) -> Iterator[Chat]:
    """The tokenizer's chat template, ready to be run.

    Messages are given as texts, and to a template that then leaves them out as parts
    (``[{"type": "text", "text": …}]``). Where it refuses a system turn, that turn is left out.

    Raises:
        UserError: there is none, or none that is the default; or, when it is run, it fails, takes
            too long or too much, or leaves out what is asked.
    """
    _refuse_missing(tokenizer)
    forms: list[Callable[[Turns], Turns]] = [_as_texts, _as_parts]

    with _process(lambda turns: _rendered(tokenizer, turns)) as run:

        def text(turns: Turns) -> str:
            said = [turn["content"].strip() for turn in turns if turn["role"] != "system"]
            failure = None
            for form in list(forms):
                try:
                    found = _run(run, form(turns))
                except _TemplateError as error:
                    failure = failure or error
                    continue
                if all(one in found for one in said):
                    if forms[0] is not form:  # most likely what it takes of the others too
                        forms.reverse()
                    return found
            if failure is not None:
                raise _failure(failure)
            raise UserError(
                "the chat template of this model's tokenizer leaves out the question's text; leave "
                "--chat out, or mend chat_template in the tokenizer's files"
            )

        yield text


class _TemplateError(Exception):
    """What a template raised, in words."""


def _failure(why: Any) -> UserError:
    return UserError(
        f"the chat template of this model's tokenizer fails: {why}; leave --chat out, or mend "
        "chat_template in the tokenizer's files"
    )


def _refuse_missing(tokenizer: Any) -> None:
    found = getattr(tokenizer, "chat_template", None)
    if not found:
        raise UserError(
            "--chat needs a chat template and this model's tokenizer has none; leave --chat out"
        )
    if isinstance(found, Mapping) and "default" not in found:
        raise UserError(
            "--chat needs a chat template, and this model's tokenizer has several "
            f"({', '.join(sorted(map(str, found)))}) and none called default; call one so in the "
            "tokenizer's files, or leave --chat out"
        )


def _as_texts(turns: Turns) -> Turns:
    return turns


def _as_parts(turns: Turns) -> Turns:
    return [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in turns]


def _run(run: Callable[[Turns], tuple[str, str]], turns: Turns) -> str:
    """Run a template; without its system turn where it refuses that."""
    kind, text = run(turns)
    if kind == "error" and turns[0]["role"] == "system":
        kind, text = run(turns[1:])
    if kind == "limit":
        raise _failure(text)
    if kind == "error":
        raise _TemplateError(text)
    return text


def _rendered(tokenizer: Any, turns: Turns) -> tuple[str, str]:
    """``text`` and what a template makes; or why it makes nothing: an ``error``, or a ``limit``."""
    begun = turns[-1]["role"] == "assistant"  # the answer goes on with a prefix of the task's
    most = SIZE + TIMES * sum(len(str(turn["content"])) for turn in turns)
    try:
        text = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=not begun, continue_final_message=begun
        )
    except MemoryError:
        return "limit", "it takes too much memory"
    except RecursionError:
        return "limit", "it calls itself without end"
    except Exception as error:  # noqa: BLE001 - a template is a program and raises anything
        lines = str(error).strip().splitlines() or [""]
        return "error", f"{type(error).__name__}: {lines[0][:200]}".rstrip(": ")
    if not isinstance(text, str):
        return "error", f"it makes a {type(text).__name__} and no text"
    if len(text) > most:
        return "limit", f"it makes {len(text):,} characters of a chat that may become {most:,}"
    return "text", text


@contextmanager
def _process(work: Callable[[Turns], tuple[str, str]]) -> Iterator[Callable]:
    """Do work in another process, one call at a time, each with a limit of time.

    The process is started by the first call.
    """
    if sys.platform != "linux":
        yield work
        return
    child: list[tuple[int, Connection]] = []

    def call(turns: Turns) -> tuple[str, str]:
        if not child:
            child.append(_forked(work))
        connection = child[0][1]
        try:
            connection.send(turns)
            if not connection.poll(SECONDS):
                _end(*child.pop())
                return "limit", f"it takes more than {SECONDS:g} seconds for one chat"
            return connection.recv()
        except (EOFError, OSError):
            _end(*child.pop())
            return "limit", "it takes too much memory, and its process was ended"

    try:
        yield call
    finally:
        if child:
            _end(*child.pop())


def _forked(work: Callable[[Turns], tuple[str, str]]) -> tuple[int, Connection]:
    ours, theirs = Pipe()
    with warnings.catch_warnings():
        # Threads of this process do not go on in the other, which needs nothing of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        theirs.close()
        return child, ours
    try:
        ours.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
        _limit_memory()
        while True:
            theirs.send(work(theirs.recv()))
    finally:
        os._exit(0)  # nothing that the other process has to do at its end is done twice


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _end(child: int, connection: Connection) -> None:
    connection.close()
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
