"""Patterns that other programs take by position: told where they break, kept where asked for."""

import json

import pytest
from transformers import (
    Cohere2Config,
    DeepseekV2Config,
    Exaone4Config,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    Olmo3Config,
    Qwen3_5TextConfig,
    SmolLM3Config,
)

from conftest import QUESTIONS, ROPE, save_tiny, write_jsonl
from phaseprune import load_task, prune
from phaseprune.cli.main import main
from phaseprune.decoder.export import export, taken_by_position
from phaseprune.decoder.load import load_model
from phaseprune.decoder.patterns import (
    Pattern,
    find_pattern,
    llama_cpp_warnings,
    position_words,
)
from phaseprune.errors import UserError

SIZES = ROPE | {"num_hidden_layers": 12}


@pytest.mark.parametrize(
    ("config", "period", "fields"),
    [
        (Gemma2Config(**SIZES, head_dim=8), 2, ("layer_types",)),
        (Gemma3TextConfig(**SIZES, head_dim=8), 6, ("layer_types",)),
        (SmolLM3Config(**SIZES, pad_token_id=0), 4, ("no_rope_layers",)),
        (Cohere2Config(**SIZES), 4, ("layer_types",)),
        (
            GptOssConfig(**SIZES, head_dim=8, num_local_experts=2, num_experts_per_tok=1),
            2,
            ("layer_types",),
        ),
    ],
    ids=["gemma2", "gemma3", "smollm3", "cohere2", "gpt_oss"],
)
def test_removals_that_llama_cpp_cannot_run(config, period, fields):
    pattern = find_pattern(config, 12)
    assert (pattern.period, pattern.fields) == (period, fields)
    whole = [b for b in range(12) if not 1 <= b <= period]
    for kept in (whole, list(range(11)), list(range(12))):
        assert pattern.is_kept(kept) and llama_cpp_warnings(config, 12, kept) == []
    broken = list(range(1, 12))
    assert not pattern.is_kept(broken)
    (warning,) = llama_cpp_warnings(config, 12, broken)
    assert fields[0] in warning and config.model_type in warning and "--keep-period" in warning


def test_families_of_which_a_list_is_read_are_not_warned_of():
    heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "head_dim": 16}
    for config in (Olmo3Config(**SIZES), Qwen3_5TextConfig(**SIZES, **heads)):
        assert find_pattern(config, 12).period == 4 and len(set(config.layer_types)) == 2
        assert llama_cpp_warnings(config, 12, list(range(1, 12))) == []
    assert find_pattern(LlamaConfig(**SIZES), 12) is None


def test_attention_that_llama_cpp_scales_by_the_number_of_blocks():
    config = Gemma2Config(**ROPE | {"num_hidden_layers": 46}, head_dim=8)
    assert "46 become 44" in llama_cpp_warnings(config, 46, list(range(44)))[0]


def test_models_that_llama_cpp_knows_by_their_number_of_blocks():
    exaone = Exaone4Config(**ROPE | {"num_hidden_layers": 64}, sliding_window_pattern=4)
    assert "64 become 60" in llama_cpp_warnings(exaone, 64, list(range(60)))[0]
    assert "64 blocks alone" in position_words(exaone, 64)
    assert position_words(exaone, 30) is None and llama_cpp_warnings(exaone, 30, range(28)) == []
    lite = DeepseekV2Config(**ROPE | {"num_hidden_layers": 27}, q_lora_rank=None)
    assert llama_cpp_warnings(lite, 27, range(26)) == []
    assert "26 or 27 blocks" in llama_cpp_warnings(lite, 27, range(25))[0]
    assert "60 become 27" in llama_cpp_warnings(DeepseekV2Config(), 60, range(27))[0]


def test_what_may_go_leads_back_to_the_pattern():
    """Against all sets of blocks of a small pattern."""
    pattern = Pattern(("layer_types",), tuple((kind,) for kind in "ssfssfssf"), 3)
    none = frozenset()
    assert pattern.missing([0, 1, 2, 3, 4, 5]) == 0 and pattern.missing([1, 2, 3, 4]) == 2
    for left in (1, 2, 3, 5):
        reached, ends = {tuple(range(9))}, set()
        for step in range(left):
            reached = {
                tuple(b for b in live if b != gone)
                for live in reached
                for gone in pattern.may_go(live, live, left - step, none)
            }
        ends = {live for live in reached if len(live) == 9 - left}
        assert ends and all(pattern.is_kept(live) for live in ends)
        if left >= 3:  # a period from the middle is among them, not the end alone
            assert any(live[0] != 0 or list(live) != list(range(len(live))) for live in ends)
    assert 0 not in pattern.may_go(range(9), range(9), 1, none)


def test_protected_blocks_are_not_needed_to_mend():
    pattern = Pattern(("layer_types",), tuple((kind,) for kind in "sfsfsf"), 2)
    protect = frozenset({0, 1, 2, 3})
    assert pattern.may_go(range(6), [4, 5], 2, protect) == [4, 5]
    assert pattern.may_go(range(6), [4, 5], 1, protect) == [5]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("gemma") / "m", "gemma2")


@pytest.mark.slow
def test_an_export_says_it_at_once_and_in_its_card(gemma, tmp_path):
    decoder = load_model(str(gemma))
    assert "layer_types of gemma2" in taken_by_position(decoder)
    found = export(decoder, [0], tmp_path / "broken")
    assert "by position" in found.warnings[0] and found.to_dict()["warnings"] == found.warnings
    assert found.warnings[0] in (tmp_path / "broken/README.md").read_text()
    notes = json.loads((tmp_path / "broken/phaseprune.json").read_text())
    assert notes["warnings"] == found.warnings
    assert export(decoder, [0], tmp_path / "broken").warnings == found.warnings
    assert export(decoder, [1, 2], tmp_path / "kept").warnings is None
    assert "by position" not in (tmp_path / "kept/README.md").read_text()


@pytest.mark.slow
def test_prune_keeps_the_period(gemma, tmp_path):
    questions = write_jsonl(tmp_path / "q.jsonl", QUESTIONS * 3)
    decoder, task = load_model(str(gemma)), load_task(str(questions))
    for remove in (1, 2, 3):
        found = prune(decoder, task, remove=remove, keep_period=True, calibration=8)
        kept = [b for b in range(5) if b not in found.removed]
        assert len(found.removed) == remove
        assert export(decoder, found.removed, tmp_path / f"out{remove}").warnings is None
        assert [b % 2 for b in kept] == [place % 2 for place in range(len(kept))]
        assert "every 2 blocks" in found.chosen_by["in_words"]


@pytest.mark.slow
def test_a_search_that_ends_amid_a_period_chooses_the_step_before_it(gemma, tmp_path, monkeypatch):
    from phaseprune.pruning.stopping import Stop

    questions = write_jsonl(tmp_path / "q.jsonl", QUESTIONS * 3)
    decoder, task = load_model(str(gemma)), load_task(str(questions))
    pattern = find_pattern(decoder.config, 5)
    monkeypatch.setattr(  # whatever breaks the rule, it does so at the first broken step
        Pattern, "may_go", lambda self, live, free, left, protect: [0] if 0 in live else list(free)
    )
    monkeypatch.setattr(
        Stop, "reason", lambda self, removed, *rest: "enough" if removed == 1 else None
    )
    found = prune(decoder, task, remove=2, keep_period=True, calibration=8)
    assert not pattern.is_kept([1, 2, 3, 4])
    assert found.removed == [] and len(found.steps) == 2


def run(arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return ended.value.code or 0


@pytest.mark.slow
def test_command_line(gemma, tmp_path, capsys):
    questions = write_jsonl(tmp_path / "q.jsonl", QUESTIONS * 3)
    code = run(
        [
            "prune",
            str(gemma),
            "--task",
            str(questions),
            "--remove",
            "2",
            "--keep-period",
            "--out",
            str(tmp_path / "run"),
            "--calibration",
            "8",
        ]
    )
    out = capsys.readouterr()
    assert code == 0 and "by position" not in out.out + out.err
    types = json.loads((tmp_path / "run/model/config.json").read_text())["layer_types"]
    assert types == ["sliding_attention", "full_attention", "sliding_attention"]
    assert json.loads((tmp_path / "run/manifest.json").read_text())["options"]["keep_period"]
    code = run(["export", str(gemma), "--remove", "0", "--out", str(tmp_path / "out")])
    assert code == 0 and capsys.readouterr().err.count("by position") == 1


def test_an_export_says_it_before_the_weights_are_loaded(gemma, tmp_path, capsys, monkeypatch):
    def fails(*given, **more):
        raise UserError("the weights are loaded")

    monkeypatch.setattr("phaseprune.decoder.load.load_model", fails)
    code = run(["export", str(gemma), "--remove", "0", "--out", str(tmp_path / "out")])
    said = " ".join(capsys.readouterr().err.split())
    assert code == 2 and 0 < said.index("by position") < said.index("the weights are loaded")


@pytest.mark.parametrize(
    "other",
    [{"method": "reverse"}, {"search": "racing"}, {"among": "decisive"}, {"granularity": "mlp"}],
    ids=str,
)
def test_what_it_does_not_go_with(gemma, tmp_path, other):
    questions = write_jsonl(tmp_path / "q.jsonl", QUESTIONS * 3)
    with pytest.raises(UserError, match="keep_period looks before each step"):
        prune(
            load_model(str(gemma)), load_task(str(questions)), remove=1, keep_period=True, **other
        )
