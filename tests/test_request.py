"""What ``prune`` is asked for: one description of it, refused before there is a model."""

from dataclasses import FrozenInstanceError, fields
from inspect import Parameter, signature

import pytest

from phaseprune.errors import UserError
from phaseprune.pruning.prune import prune
from phaseprune.pruning.request import PruneRequest


def test_its_fields_are_the_keywords_of_prune():
    keywords = {
        name: one.default
        for name, one in signature(prune).parameters.items()
        if one.kind is Parameter.KEYWORD_ONLY and name not in ("out", "arguments", "progress")
    }
    asked = {one.name: one.default for one in fields(PruneRequest)}
    assert asked == keywords | {"tasks": 1}


def test_it_stays_as_it_was_asked_for():
    request = PruneRequest(protect=[7, 3, 7], remove=2)
    assert request.protect == (3, 7) and request.choice.method.name == "decision_margin"
    assert request == PruneRequest(protect=(3, 7), remove=2)
    with pytest.raises(FrozenInstanceError):
        request.remove = 3


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (dict(remove=1, ratio=0.5), "remove and ratio both say how many blocks"),
        (dict(ratio=1.5), "ratio must lie between 0 and 1 and is 1.5"),
        (dict(keep_accuracy=2.0), "keep_accuracy must lie between 0 and 1 and is 2"),
        (dict(keep_text_loss=-0.1), "keep_text_loss must be 0 or more and is -0.1"),
        (dict(method="beam"), "method beam chooses a given number of blocks together"),
        (dict(method="no"), "method is 'no'"),
        (dict(search="racing", objective="debiased_margin"), "needs all calibration questions"),
        (dict(race_alpha=0.1), "race_alpha=0.1 goes with search='racing' only"),
        (dict(granularity="blok"), "Did you mean 'block'?"),
        (dict(granularity="mlp", method="tail"), "ranks whole blocks and granularity='mlp'"),
        (dict(among="some"), "among is 'some' and must be one of all, decisive"),
        (dict(tasks=0), "no task is given"),
        (dict(tasks=1, weights=[1.0]), "weights goes with several tasks"),
        (dict(tasks=2, weights=[1.0]), "weights gives 1 for 2 tasks"),
        (dict(tasks=2, search="racing"), "search='racing' takes one task"),
        (dict(tasks=2, granularity="mlp"), "granularity='mlp' takes one task"),
        (dict(tasks=2, among="decisive"), "several tasks have no one transition"),
        (dict(tasks=2, keep_period=True), "a search by several tasks does not"),
    ],
    ids=str,
)
def test_it_is_refused_where_it_is_built(asked, told):
    with pytest.raises(UserError) as refused:
        PruneRequest(**asked)
    assert told in str(refused.value)


def test_halves_need_all_weights_in_one_memory():
    PruneRequest(remove=1).check_placement("map", True)
    PruneRequest(remove=1, granularity="mlp").check_placement("auto", None)
    for device, stream, told in (("map", None, "device='map'"), ("auto", True, "stream")):
        with pytest.raises(UserError, match=f"{told} spreads them"):
            PruneRequest(remove=1, granularity="mlp").check_placement(device, stream)
