"""The words of an error: options at the command line, arguments in Python."""

from __future__ import annotations

import pytest

from phaseprune.errors import UserError


@pytest.mark.parametrize(
    ("written", "typed", "in_python"),
    [
        (
            "--keep-accuracy must lie between 0 and 1",
            "--keep-accuracy must lie between 0 and 1",
            "keep_accuracy must lie between 0 and 1",
        ),
        ("try --dtype=float32", "try --dtype float32", "try dtype='float32'"),
        (
            "--remove=5: the model has 5.",
            "--remove 5: the model has 5.",
            "remove=5: the model has 5.",
        ),
        ("(--device='cuda:9' here)", "(--device 'cuda:9' here)", "(device='cuda:9' here)"),
        ("--protect=1,9: no", "--protect 1,9: no", "protect=1,9: no"),
        ("--ratio=0.25.", "--ratio 0.25.", "ratio=0.25."),
        ("use --no-stream, or less", "use --no-stream, or less", "use stream=False, or less"),
        (
            "give `llama-gguf-split --merge=1`, --out",
            "give `llama-gguf-split --merge=1`, --out",
            "give `llama-gguf-split --merge=1`, out",
        ),
        (
            "folder/a--b/c -- d --5: no option",
            "folder/a--b/c -- d --5: no option",
            "folder/a--b/c -- d --5: no option",
        ),
        (
            "--columns='question=a b,answer=c'",
            "--columns 'question=a b,answer=c'",
            "columns='question=a b,answer=c'",
        ),
    ],
)
def test_options_and_arguments(written, typed, in_python):
    error = UserError(written)
    assert error.typed == typed and str(error) == in_python
