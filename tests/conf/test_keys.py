"""What --help prints comes from the schema and the YAML tree, so both must be complete."""

from __future__ import annotations

import dataclasses
import json

import pytest

from conf.compose import compose, to_json
from conf.groups import groups, headline
from conf.keys import defaults, is_key, keys
from conf.names import nearest, suggestion
from conf.schema import QLoraConfig


def test_every_key_has_one_line_of_documentation() -> None:
    assert [key.path for key in keys().values() if not key.doc] == []
    assert all("\n" not in key.doc for key in keys().values())


@pytest.mark.parametrize(
    ("group", "name"), [(g, n) for g, names in groups().items() for n in names]
)
def test_every_preset_begins_with_one_line_about_itself(group: str, name: str) -> None:
    line = headline(group, name)
    assert line.endswith((".", "?", "`", "(default)"))
    assert len(line) <= 100


def test_keys_are_exactly_what_a_configuration_holds() -> None:
    def paths(tree: object, prefix: str = "") -> set[str]:
        if not isinstance(tree, dict):
            return set()
        here = {f"{prefix}{name}" for name in tree}
        return here.union(*(paths(below, f"{prefix}{name}.") for name, below in tree.items()))

    held = paths(json.loads(to_json(compose([]))))
    optional = {key for key in keys() if key.startswith("augmenter.tuning.")}  # null by default
    assert optional
    assert set(keys()) - optional == held


def test_continuation_lines_and_choices_are_read() -> None:
    holdout = keys()["model.build.holdout"]
    assert holdout.doc.startswith("The miniatures never see")
    assert holdout.doc.endswith("share one build.")
    assert keys()["privacy.kind"].choices == ("fixed", "uniform", "beta", "mixed", "per_user")
    assert keys()["trackers"].choices == ("tensorboard", "wandb")
    assert keys()["qlora"].is_section
    assert keys()["model.build"].is_section
    assert not keys()["qlora.rank"].is_section


def test_defaults_are_the_schemas() -> None:
    assert defaults(QLoraConfig) == dataclasses.asdict(QLoraConfig())
    assert "max_new_tokens" not in defaults()["task"]  # required: every task states its own


@pytest.mark.parametrize(
    ("path", "known"),
    [("qlora", True), ("privacy.groups.0.low", True), ("qlora.rnak", False), ("", False)],
)
def test_is_key(path: str, known: bool) -> None:
    assert is_key(path) is known


def test_nearest_ignores_case_and_gives_up_on_strangers() -> None:
    assert nearest("MIXED", ["mixed", "fixed"]) == "mixed"
    assert nearest("zzz", ["mixed", "fixed"]) is None


def test_suggestion_lists_the_known_names_in_order() -> None:
    assert suggestion("mixd", ["mixed", "beta"]) == "Did you mean 'mixed'? Known: beta, mixed"
    assert suggestion("zzz", ["mixed", "beta"]) == "Known: beta, mixed"
