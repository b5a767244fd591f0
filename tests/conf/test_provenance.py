from __future__ import annotations

from dataclasses import replace

from conf.compose import compose
from conf.provenance import BY_HAND, source_of


def test_a_preset_is_known_by_its_values_and_tells_where_they_come_from():
    named = source_of(compose(["qlora=miniature"]).qlora)
    assert named.startswith("qlora=miniature: Tuned on public users")
    assert source_of(compose(["model=qwen2.5"]).qlora).startswith("qlora=paper: ")


def test_how_many_train_together_is_no_setting_of_training_but_a_rate_is():
    qlora = compose(["qlora=miniature"]).qlora
    assert source_of(replace(qlora, cohort=3)) == source_of(qlora)
    assert source_of(replace(qlora, learning_rate=0.5)) == BY_HAND
