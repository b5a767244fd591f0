"""FedAvg weighs each user's weights by the number of records."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.clientapp import ClientApp

from protocol.messages import AdaptReply
from sim.inline import InlineGrid
from strategy.averaging import arrays_of, average


@pytest.fixture(autouse=True)
def running():
    """Flower makes messages only inside a run."""
    InlineGrid(ClientApp(), 1, {})


def reply(user: str, records: int, value: float) -> tuple[str, AdaptReply]:
    counted = dict.fromkeys(("steps", "synthetic", "tokens", "peak_memory_bytes"), 0)
    return user, AdaptReply(
        user_id=user,
        arm="fedavg",
        records=records,
        losses=(1.0, 2.0)[:records],
        seconds=0.0,
        adapter_bytes=0,
        weights={"a": np.full((2, 3), value, dtype=np.float32)},
        **counted,
    )


def test_the_mean_is_weighted_by_records_and_stays_float32():
    averaged = average(1, [reply("ana", 1, 1.0), reply("ben", 3, 5.0)])
    (weights,) = arrays_of(averaged).values()
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, np.full((2, 3), 4.0))


def test_one_user_keeps_its_weights():
    averaged = average(1, [reply("ana", 2, 3.5)])
    assert arrays_of(averaged)["a"].tolist() == [[3.5] * 3] * 2


@pytest.mark.parametrize("replies", [[], ()])
def test_without_replies_there_is_nothing_to_average(replies):
    assert average(1, replies) is None
