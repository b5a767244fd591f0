"""A free question becomes a prompt that the adapter was trained for."""

from __future__ import annotations

import pytest

from clients.folder import Device, Policy
from clients.offline_query import newest_adapter, whole_prompt
from lamp.records import UserHistory
from lamp.tasks import TASKS
from storage import atomic

TEXT = "the court waits"


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_users_text_stands_in_the_prompt_of_every_task(name):
    asked = whole_prompt(TASKS[name], TEXT)
    assert TEXT in asked
    assert whole_prompt(TASKS[name], asked).count(TEXT) == 1


def test_a_tweet_is_asked_as_the_queries_ask():
    assert whole_prompt(TASKS["lamp_7"], TEXT) == f"{TASKS['lamp_7'].query_before}{TEXT}"
    whole = f"{TASKS['lamp_4'].query_before}{TEXT}"
    assert whole_prompt(TASKS["lamp_4"], TEXT) == whole_prompt(TASKS["lamp_4"], whole) == whole


def test_what_a_crash_left_behind_is_no_adapter(tmp_path):
    own = Device(tmp_path, UserHistory("ana", (), (), ()), Policy(0.0), b"s" * 32)
    for name in ("cdcda", ".cdcda.old-7", ".direct_ft.7-0a1b2c3d"):  # the last one is the newest
        with atomic.new_folder(tmp_path / "adapters" / name, marker={"base_id": name}):
            pass
    assert newest_adapter(own, None) == ("cdcda", "cdcda")
