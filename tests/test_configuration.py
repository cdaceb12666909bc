"""Options that come from files and callers are of the type that their functions state."""

import json
import re
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaseprune.cli.main import main
from phaseprune.cli.paper import LOADING, configuration
from phaseprune.decoder import load as load_module
from phaseprune.decoder.load import load_model, load_tokenizer, read_config
from phaseprune.decoder.source import find_source
from phaseprune.errors import UserError
from phaseprune.healing import pruned
from phaseprune.option_types import checked, option_types
from phaseprune.questions.catalog import load_task
from phaseprune.replication.settings import Settings, configured_types, resolve

#: The code of a checkpoint, which says that it has run.
CODE = """
open({told!r}, "w")
from transformers import LlamaConfig, LlamaForCausalLM
class Config(LlamaConfig):
    model_type = "evil"
class Model(LlamaForCausalLM):
    config_class = Config
"""


@pytest.fixture
def own_code(tmp_path):
    """A model that comes with code of its own, and the file that the code writes when it runs."""
    told, folder = tmp_path / "EXECUTED", tmp_path / "m"
    shutil.copytree(str(files("phaseprune.demo") / "model"), folder)
    (folder / "own.py").write_text(CODE.format(told=str(told)))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
        "model_type": "evil",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, told


def command(capsys, *words):
    arguments = [str(word) for word in words]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return ended.value.code, " ".join(told.err.split())


@pytest.mark.parametrize("value", ["'false'", "'true'", "no way", "1", "0", "null", "[true]", "{}"])
def test_no_text_runs_a_checkpoints_code(own_code, capsys, monkeypatch, tmp_path, value):
    folder, told = own_code
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(f"model: ./m\ntasks: [demo]\ntrust_remote_code: {value}\n")
    code, err = command(capsys, "paper", "--config", "c.yaml")
    assert code == 2 and "c.yaml: `trust_remote_code` must be true or false and is" in err
    assert not told.exists() and not Path("runs").exists()


@pytest.mark.parametrize("value", ["false", "true", 1, None, np.True_, [1]])
def test_nor_does_a_python_caller(own_code, value):
    folder, told = own_code
    source = find_source(str(folder))
    for call in (
        lambda: load_model(str(folder), trust_remote_code=value),
        lambda: read_config(source, value),
        lambda: load_tokenizer(source, value),
    ):
        with pytest.raises(UserError, match="trust_remote_code must be true or false and is"):
            call()
    assert not told.exists()


def test_the_code_runs_where_it_is_asked_for(own_code):
    """Or else the tests above would show nothing."""
    folder, told = own_code
    read_config(find_source(str(folder)), True)
    assert told.exists()


@pytest.mark.parametrize(
    "line, says",
    [
        ("shuffle: 'no'", "`shuffle` must be true or false and is 'no'"),
        ("permute: 'false'", "`permute` must be true or false and is 'false'"),
        ("chat: 5", "`chat` must be true or false and is 5"),
        ("stream: 5", "`stream` must be true or false and is 5"),
        ("seed: x", "`seed` must be a whole number and is 'x'"),
        ("seed: true", "`seed` must be a whole number and is True"),
        ("limit: x", "`limit` must be a whole number and is 'x'"),
        ("limit: 2.5", "`limit` must be a whole number and is 2.5"),
        ("device: 5", "`device` must be a text"),
        ("out: 5", "`out` must be a text or a path and is 5; put it in quotes"),
        ("labels: 1", "`labels` must be a text and is 1; put it in quotes"),
        ("revision: 2024-01-01", "`revision` must be a text"),
        ("noise: [true]", "`noise` must be a list of numbers"),
        ("ladder: [2.5, 3]", "`ladder` must be a list of whole numbers"),
        ("heal-steps: '3'", "`heal_steps` must be a whole number and is '3'"),
        ("shuffle:", "`shuffle` must be true or false and is nothing"),
        ("model: [m]", "`model` must be a text"),
        ("tasks: {demo: 5}", "the options of demo must be names with values"),
        ("tasks: {demo: [limit]}", "the options of demo must be names with values"),
        ("tasks: {demo: {shuffle: 'no'}}", "`shuffle` of demo must be true or false and is 'no'"),
        ("tasks: {demo: {shots: yes}}", "`shots` of demo must be a whole number and is True"),
        ("tasks: {5: {limit: 3}}", "a name in `tasks:` must be a text and is 5"),
        ("tasks: [[demo]]", "a name in `tasks:` must be a text"),
        ("tasks: [demo, demo]", "names the task demo twice"),
        ("shot-order: first\nshot_order: random", "'shot_order' stands there twice"),
        ("when: 2024-13-45", "cannot be read as YAML"),
    ],
)
def test_a_value_of_another_type_is_refused_before_a_model_is_loaded(
    capsys, monkeypatch, tmp_path, line, says
):
    monkeypatch.setattr(load_module, "find_source", None)
    path = tmp_path / "c.yaml"
    first = "" if line.startswith("model") else "model: demo\n"
    path.write_text(f"{first}{line}\n")
    code, err = command(capsys, "paper", "--config", path)
    assert code == 2 and err.startswith(f"error: --config {path}") and says in err


def test_what_a_configuration_may_say(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: demo\nnoise: [1e-3, 0.5, 1]\nladder: 2,4\nskip: heal\nlimit:\nprobe:\n"
        "stream: false\nmax_memory: 8GB\nout: here\ntasks: {demo: {shuffle: yes, shots: 2}, b: }\n"
    )
    found = configuration(path)
    assert found.options == {
        "noise": (0.001, 0.5, 1),
        "ladder": (2, 4),
        "skip": ("heal",),
        "limit": None,
        "probe": None,
        "stream": False,
        "max_memory": "8GB",
        "out": "here",
    }
    assert found.tasks == {"demo": {"shuffle": True, "shots": 2}, "b": {}}


def test_every_option_of_a_configuration_has_a_type():
    """The names that the command takes and the schema come from the same functions."""
    kinds = configured_types()
    assert {*LOADING, "out", "seed", *option_types(Settings)} <= {*kinds}
    assert {*option_types(load_task)} <= {*kinds}


@pytest.mark.slow
@given(
    st.one_of(
        st.none(),
        st.integers(),
        st.floats(),
        st.text(),
        st.lists(st.booleans()),
        st.dictionaries(st.text(), st.booleans()),
    )
)
def test_only_true_and_false_are_true_and_false(value):
    with pytest.raises(UserError, match="must be true or false"):
        checked("--x", bool, value)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"shuffle": "no"}, "shuffle must be true or false and is 'no'"),
        ({"permute": 1}, "permute must be true or false and is 1"),
        ({"limit": "5"}, "limit must be a whole number and is '5'"),
        ({"limit": True}, "limit must be a whole number"),
        ({"seed": None}, "seed must be a whole number and is nothing"),
        ({"shots_from": 5}, "shots_from must be a text or a path"),
    ],
)
def test_load_task_takes_no_other_types(options, says):
    with pytest.raises(UserError, match=re.escape(says)):
        load_task("demo", **options)


def test_numbers_of_numpy_are_numbers():
    assert len(load_task("demo", limit=np.int64(3)).questions) == 3


@pytest.mark.parametrize(
    "options, says",
    [
        ({"stream": "no"}, "stream must be true or false"),
        ({"device": 5}, "device must be a"),
        ({"blocks": 5}, "blocks must be a text"),
        ({"max_memory": 1.5}, "max_memory must be a"),
    ],
)
def test_load_model_takes_no_other_types(options, says):
    with pytest.raises(UserError, match=says):
        load_model("demo", **options)


def test_settings_in_python_are_checked_too():
    with pytest.raises(UserError, match="probe must be a whole number and is '5'"):
        resolve(Settings(probe="5"), 14)
    with pytest.raises(UserError, match="noise must be a list of numbers"):
        resolve(Settings(noise=(True,)), 14)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"shuffle": "no"}, "shuffle must be true or false"),
        ({"shuffel": True}, "unknown option, 'shuffel'"),
    ],
)
def test_a_manifests_options_are_checked(settings, says):
    manifest = {"task": {"name": "demo"}, "task_settings": settings}
    with pytest.raises(UserError, match=f"cannot be loaded again: .*{says}"):
        pruned._questions("run", manifest)
