"""Plugins are loaded before names are checked, once; their errors name file, line and remedy."""

from __future__ import annotations

from textwrap import dedent

import pytest

from conf import plugins
from conf.compose import choices, compose, from_json, to_json
from conf.errors import ConfigError
from lamp.tasks import task
from strategy.methods import METHODS

TASK = """
    from lamp.tasks import Task, register

    register(
        Task(
            name="mail",
            official="Mail",
            title="Subject line of a mail",
            kind="text",
            folder="Mail",
            input_field="body",
            response_field="subject",
            pair_prompt="Write the subject line of this mail: {x}",
            query_before="Write the subject line of this mail: ",
        ),
        max_new_tokens=24,
    )
"""
METHOD = """
    from strategy.method import Method
    from strategy.methods import register

    register(Method(name="mine", about="as direct_ft", adapts=True))
"""


@pytest.fixture
def write(tmp_path, registries):
    def write(text: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(dedent(text), encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_a_plugins_task_and_method_are_names_like_others(write):
    files = f"plugins=[{write(TASK, 'a.py')},{write(METHOD, 'b.py')}]"
    config = compose(["task=mail", "methods=[mine]", files, "task.max_field_words=9"])
    assert (config.task.name, config.task.max_new_tokens) == ("mail", 24)
    assert task(config.task).title == "Subject line of a mail"
    assert METHODS["mine"].adapts
    assert choices(["task=mail"])["task"] == "mail"


def test_a_preset_that_is_registered_again_counts_at_once(write, forget_plugins):
    for length in (24, 9):
        file = write(TASK.replace("24", str(length)))
        assert compose(["task=mail", f"plugins=[{file}]"]).task.max_new_tokens == length
        forget_plugins()


def test_a_run_that_is_read_back_loads_its_plugins_again(write, forget_plugins):
    text = to_json(compose(["methods=[mine]", f"plugins=[{write(METHOD)}]"]))
    forget_plugins()
    assert "mine" not in METHODS
    from_json(text)
    assert "mine" in METHODS


def test_a_file_is_loaded_once_however_it_is_named(write, tmp_path, monkeypatch):
    path = write(METHOD)
    plugins.load([path])
    monkeypatch.chdir(tmp_path)
    plugins.load(["mine.py", "./mine.py"])
    plugins.load(["mine.py"], root=tmp_path)


def test_an_experiment_file_may_name_plugins(write, tmp_path, monkeypatch):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(f"plugins: ['{write(METHOD)}']\n")
    for module in ("compose", "groups"):
        monkeypatch.setattr(f"conf.{module}.FOLDER", tmp_path)
    monkeypatch.setattr("conf.compose._check_name", lambda *_: None)
    from conf.compose import _parse_all

    _parse_all(["experiment=own"])
    assert "mine" in METHODS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise ValueError('no')", r"mine\.py, line 2: expected .*ValueError: no; correct"),
        ("def broken(:\n", r"mine\.py, line 1: expected .*SyntaxError"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise SystemExit(3)", "got SystemExit: 3"),
        (METHOD.replace("mine", "cdcda"), r"line 5: method 'cdcda' exists already; give yours"),
        (TASK.replace('"mail"', '"lamp_4"'), "task 'lamp_4' exists already"),
        (TASK.replace(": {x}", ""), "pair_prompt has no place for a pair's input"),
        (TASK.replace('kind="text"', 'kind="rating"'), "kind=rating needs labels"),
        (METHOD.replace("adapts", "adapt"), "unexpected keyword argument 'adapt'"),
    ],
)
def test_what_is_wrong_in_a_plugin_is_one_line_with_its_place(write, text, message):
    with pytest.raises(ConfigError, match=message):
        compose([f"plugins=[{write(text)}]"])


@pytest.mark.parametrize("named", ["nowhere.py", ".", "LICENSE"])
def test_what_is_no_python_file_is_refused(named):
    with pytest.raises(ConfigError, match=r"plugins: .*no such file; expected a Python file"):
        compose([f"plugins=[{named}]"])


def test_without_its_plugin_a_name_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match="task=mail: no such name"):
        compose(["task=mail"])
    with pytest.raises(ConfigError, match=r"task.name=mail.*plugins=\["):
        task(compose(["task.name=mail"]).task)
