"""How devices are placed on actors and cohorts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conf.compose import compose
from sim.run.placement import actors, even_size, with_cohort


@pytest.mark.parametrize(
    ("users", "actors", "most", "size"),
    [
        (20, 2, 8, 5),  # four cohorts, two for each actor
        (100, 2, 8, 8),
        (3, 8, 8, 1),
        (16, 1, 8, 8),
        (9, 1, 8, 5),
        (1, 4, 32, 1),
        (7, 2, 1, 1),
    ],
)
def test_actors_get_equally_many_cohorts(users, actors, most, size):
    assert even_size(users, actors, most) == size


def test_actors_follow_from_what_a_device_takes():
    resources = compose(["resources=cpu", "resources.num_cpus=8"]).resources
    assert actors(resources) == 8
    assert actors(replace(resources, client_cpus=3)) == 2
    assert actors(replace(resources, num_gpus=2, client_gpus=0.5)) == 4
    assert actors(replace(resources, backend="inline")) == 1


def test_auto_takes_what_suits_the_model(qwen2_folder):
    words = [
        "model=qwen2.5",
        f"model.device.path={qwen2_folder}",
        "users=20",
        "resources.num_cpus=2",
    ]
    config = with_cohort(compose(words))
    assert config.qlora.cohort == 5
    assert config.message_limit_s == 5 * config.resources.client_limit_s
    assert with_cohort(compose([*words, "qlora.cohort=1"])).qlora.cohort == 1
