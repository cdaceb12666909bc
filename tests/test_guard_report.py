"""Guards and savings as people see them: words, table, figure, page, command line, model card."""

import json

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from conftest import save_tiny
from phaseprune.decision.guards import guard_figures, short_figures
from phaseprune.decoder import saving as saving_module
from phaseprune.decoder.export import export
from phaseprune.decoder.load import load_model
from phaseprune.decoder.saving import measure_saving, record_saving
from phaseprune.errors import UserError
from phaseprune.report.figures import guards_figure
from phaseprune.report.guards import guard_lines, guards_table, saving_lines, times
from phaseprune.report.page import write_report
from test_cli import run  # noqa: F401
from test_report import (
    assert_self_contained,
    four_options,
    line,
    make_manifest,
    page_of,
    printed,
    write_run,
)


def guarded(grow=0.3, repeat=True):
    """A made run whose loss grows by so much a step, and whose continuations repeat themselves."""
    trace, steps, result = four_options()
    rng = np.random.default_rng(0)
    losses, tokens = rng.uniform(2, 3, 12), rng.integers(1000, size=(8, 20))
    full = None
    for number, step in enumerate(steps):
        now = tokens.copy()
        if repeat:
            now[:, max(20 - 3 * number, 0) :] = 7
        noise = rng.uniform(-0.01, 0.01, 12) * (number > 0)
        step["guard"] = guard_figures(losses * (1 + grow * number) + noise, now, full, 0)
        step["guard"]["guessing"] = 6.9
        full = full or step["guard"]
    chosen = steps[result["chosen_step"]]["guard"]
    result["guard"] = {"full": short_figures(full), "pruned": short_figures(chosen)}
    result["against_full"] = {"only_full": 3, "only_pruned": 2, "p_value": 1.0}
    return trace, steps, result


def test_words_say_what_accuracy_hides():
    _, steps, result = guarded()
    number = result["chosen_step"]
    lines = guard_lines(result)
    loss = steps[number]["guard"]["text_loss"]
    assert f"and {loss:.3f} in the pruned one: +{30 * number}" in lines[0]
    assert "significant" not in lines[0] and "tokens are the full model's" in lines[1]
    assert lines[2].startswith(
        "No loss of accuracy on the questions can be told, but the text loss"
    )
    assert lines[2].endswith("and continuations repeat themselves more.")
    result["against_full"]["p_value"] = 0.01  # then accuracy hides nothing
    assert len(guard_lines(result)) == 2


def test_no_difference_is_called_one_that_is_not_significant():
    _, _, result = guarded(grow=0, repeat=False)
    lines = guard_lines(result)
    assert len(lines) == 2
    assert lines[0].endswith("no significant difference.")
    assert lines[1].endswith("no significant difference.")
    assert guard_lines(result | {"guard": None}) == []
    assert guard_lines(result | {"removed": []}) == []


def test_a_text_that_the_full_model_does_not_know_tells_nothing():
    _, _, result = guarded()
    result["guard"]["full"]["guessing"] = result["guard"]["full"]["text_loss"]
    lines = guard_lines(result)
    assert len(lines) == 1 and "is no better than guessing among all tokens" in lines[0]


@pytest.mark.parametrize(
    ("ratio", "says"),
    [(1.12, "has risen by 12.0 %"), (2.0, "has doubled"), (3.42, "is 3.4 times as high")],
)
def test_times(ratio, says):
    assert times(ratio) == says


@pytest.mark.parametrize("grow", [0.3, 30])
def test_the_table_fits_into_80_columns(grow):
    _, steps, _ = guarded(grow)
    rows = printed(guards_table(steps), 80)
    assert max(len(row) for row in rows) <= 80 and not any("…" in row for row in rows)
    row = next(row for row in rows if row.split()[:1] == ["2"])
    guard = steps[2]["guard"]
    assert row.split()[1:3] == [str(steps[2]["removed"]), f"{guard['text_loss']:.2f}"]
    assert f"{100 * guard['text_loss_rise']:.{1 if grow < 1 else 0}f} [" in row
    assert f"{100 * guard['agreement']:.0f} [" in row
    assert guards_table([step | {"guard": None} for step in steps]) is None


def test_the_figure_holds_the_guards_beside_accuracy(recwarn):
    _, steps, _ = guarded()
    left, right = guards_figure(steps).axes
    told = [step["guard"] for step in steps]
    assert list(line(left, "text loss").get_ydata()) == [guard["text_loss"] for guard in told]
    shown = {
        "accuracy on questions": [step["evaluation"]["accuracy"] for step in steps],
        "tokens equal to the full model's": [guard["agreement"] for guard in told],
        "repeated 4-grams": [guard["repetition"] for guard in told],
    }
    for name, values in shown.items():
        assert list(line(right, name).get_ydata()) == values
    guards_figure(steps[:1]).draw_without_rendering()
    assert not recwarn.list


@pytest.mark.slow
def test_the_page_shows_guards_where_there_are_any(tmp_path):
    trace, steps, result = guarded()
    steps[3]["guard"] = None
    page, text = page_of(
        write_report(write_run(tmp_path / "with", trace, steps, make_manifest(trace, result)))
    )
    assert_self_contained(page, text)
    assert 'id="guards"' in text and guard_lines(result)[2] in page.text
    assert f"{steps[2]['guard']['text_loss']:.2f}" in page.text
    for name, columns in (("steps", 10), ("guard-steps", 7)):
        cells = text.split(f'<table id="{name}">')[1].split("</table>")[0]
        rows = cells.split("<tr")[1:]
        assert {row.count("<td") + row.count("<th ") for row in rows} == {columns}
    page, text = page_of(
        write_report(write_run(tmp_path / "without", *four_options()[:2], make_manifest(trace)))
    )
    assert 'id="guards"' not in text and "Text loss" not in page.text


@pytest.mark.slow
def test_the_saving_is_that_of_the_two_models(tiny, tmp_path):
    decoder = tiny["qwen3"]
    export(decoder, [1, 2], tmp_path / "short")
    told = []
    saving = measure_saving(
        decoder,
        tmp_path / "short",
        repeats=3,
        prompt_tokens=12,
        new_tokens=5,
        progress=lambda *each: told.append(each),
    )
    assert told[-1][1:] == (4, 4)
    for cost, folder in (
        (saving.full, decoder.source.directory),
        (saving.exported, tmp_path / "short"),
    ):
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert cost.parameters == sum(p.numel() for p in model.parameters())
        assert cost.disk_bytes == sum(f.stat().st_size for f in folder.glob("*.safetensors"))
        assert cost.prefill > 0 and cost.decode > 0
    for gain in (saving.prefill, saving.decode):
        assert 0 < gain.lowest <= gain.median <= gain.highest
    record_saving(tmp_path / "short", saving)
    notes = json.loads((tmp_path / "short" / "phaseprune.json").read_text())
    assert notes["saving"] == saving.to_dict() and notes["removed"] == [1, 2]
    again = export(decoder, [1, 2], tmp_path / "short")  # its notes still say which export it is
    assert again.kept == [0, 3, 4]
    lines = saving_lines(saving.to_dict())
    assert f"{saving.exported.disk_bytes / 1e6:,.1f} MB in the exported one" in lines[0]
    assert f"{saving.decode.median:.2f} times as fast" in lines[2]


def test_speeds_are_tokens_over_seconds_by_turns(tiny, tmp_path, monkeypatch):
    decoder = tiny["llama"]
    export(decoder, [1], tmp_path / "short")
    turns = iter([(9, 9), (9, 9), (2.0, 4.0), (1.0, 1.0), (3.0, 6.0), (1.0, 2.0), (4, 8), (4, 8)])
    order = []

    def seconds(model, prompt, count):
        order.append(model is decoder.model)
        assert prompt.shape == (1, 10) and count == 4
        return next(turns)

    monkeypatch.setattr(saving_module, "_seconds", seconds)
    saving = measure_saving(decoder, tmp_path / "short", repeats=3, prompt_tokens=10, new_tokens=4)
    assert order == [True, False] * 4
    assert (saving.full.prefill, saving.full.decode) == (10 / 3, 4 / 6)
    assert (saving.exported.prefill, saving.exported.decode) == (10 / 1, 4 / 2)
    assert vars(saving.prefill) == {"median": 2, "lowest": 1, "highest": 3}
    assert vars(saving.decode) == {"median": 3, "lowest": 1, "highest": 4}


def test_what_cannot_be_measured_is_one_sentence(tiny, tiny_dirs, tmp_path):
    decoder = tiny["llama"]
    with pytest.raises(UserError, match="is no exported model"):
        measure_saving(decoder, tiny_dirs["llama"])
    export(decoder, [1], tmp_path / "short")
    other = load_model(str(save_tiny(tmp_path / "other", seed=1)))
    with pytest.raises(UserError, match="was made of another model than"):
        measure_saving(other, tmp_path / "short")
    with pytest.raises(UserError, match="at least one repeat"):
        measure_saving(decoder, tmp_path / "short", repeats=0)
    streamed = load_model(str(tiny_dirs["llama"]), stream=True)
    with pytest.raises(UserError, match="is read from disk block by block.*stream=False"):
        measure_saving(streamed, tmp_path / "short")


@pytest.mark.slow
def test_the_command_line(run, tiny_dirs, question_file, tmp_path):  # noqa: F811
    model, files = tiny_dirs["gemma2"], ("--task", question_file)
    common = ("prune", model, *files, "--calibration", 4, "--out", "p")
    code, out, _ = run(*common, "--remove", 2, "--guard")
    assert code == 0 and "Rise % [CI]" in out and "Plain text: the" in out
    assert max(map(len, out.split("next:")[0].splitlines())) <= 80
    assert 'id="guards"' in (tmp_path / "p/report.html").read_text()
    card = (tmp_path / "p/model/README.md").read_text()
    assert "On plain text the loss is" in card and "free generation" not in card
    code, out, _ = run("export", "p", "--measure", "--json")
    assert code == 0
    saving = json.loads(out)["saving"]
    assert json.loads((tmp_path / "p/model/phaseprune.json").read_text())["saving"] == saving
    code, out, _ = run("export", "p", "--measure")
    assert code == 0 and "measured on cpu, float32" in out
    code, _, err = run("prune", model, *files, "--calibration", 4, "--keep-text-loss", "-1")
    assert code == 2 and "--keep-text-loss must be 0 or more" in err
    code, out, _ = run(
        "prune",
        model,
        *files,
        "--calibration",
        4,
        "--keep-text-loss",
        0,
        "--json",
        "--no-export",
        "--out",
        "q",
    )
    assert code == 0
    found = json.loads(out)
    assert found["steps"][-1]["guard"]["text_loss_rise"] > 0 or found["result"]["chosen_step"] == 4
    assert found["result"]["pruned"] is not None and found["result"]["guard"]["full"]
