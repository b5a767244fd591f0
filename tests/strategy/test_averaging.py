"""FedAvg weighs each user's weights by the number of records; a round survives a restart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.clientapp import ClientApp

from conf.errors import RunError
from protocol.messages import AdaptReply
from sim.run.inline import InlineGrid
from strategy.averaging import Averages, arrays_of, average

ROUND = ("fedavg", 0)


@pytest.fixture(autouse=True)
def running():
    """Flower makes messages only inside a run."""
    InlineGrid(ClientApp(), 1, {})


def weights(value: float) -> dict[str, np.ndarray]:
    return {"a": np.full((2, 3), value, dtype=np.float32)}


def reply(user: str, records: int, value: float) -> AdaptReply:
    counted = dict.fromkeys(("steps", "synthetic", "tokens", "peak_memory_bytes"), 0)
    return AdaptReply(
        user_id=user,
        arm="fedavg",
        records=records,
        losses=(1.0, 2.0)[:records],
        seconds=0.0,
        adapter_bytes=0,
        weights=weights(value),
        **counted,
    )


def test_the_mean_is_weighted_by_records_and_stays_float32():
    averaged = average(1, [(1, weights(1.0)), (3, weights(5.0))])
    (mean,) = arrays_of(averaged).values()
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, np.full((2, 3), 4.0))


def test_one_user_keeps_its_weights():
    averaged = average(1, [(2, weights(3.5))])
    assert arrays_of(averaged)["a"].tolist() == [[3.5] * 3] * 2


def test_without_weights_there_is_nothing_to_average(tmp_path):
    assert Averages(tmp_path).close(ROUND) == (None, ())
    with pytest.raises(RunError, match="expected weights of at least one user"):
        average(1, [])


def test_a_round_goes_on_in_another_process_and_its_average_stays(tmp_path):
    Averages(tmp_path).add(ROUND, "../ben", reply("../ben", 3, 5.0))
    Averages(tmp_path).add(ROUND, "ana", reply("ana", 1, 1.0))
    assert not Averages(tmp_path).has(ROUND)
    first, _ = Averages(tmp_path).close(ROUND)
    assert Averages(tmp_path).has(ROUND)
    again, _ = Averages(tmp_path).close(ROUND)
    assert first is not None
    assert again is not None
    assert arrays_of(again)["a"].tolist() == arrays_of(first)["a"].tolist() == [[4.0] * 3] * 2
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["0.safetensors"]
    assert not list(tmp_path.parent.glob("*ben*"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": np.ones((3, 2), dtype=np.float32)},
        {"a": np.ones((2, 3), dtype=np.float64)},
        {"b": np.ones((2, 3), dtype=np.float32)},
        {"a": np.full((2, 3), np.nan, dtype=np.float32)},
        {},
    ],
)
def test_weights_that_fit_nobody_elses_are_left_out_and_named(tmp_path, wrong):
    averages = Averages(tmp_path)
    averages.add(ROUND, "a hostile one", replace(reply("a hostile one", 9, 0.0), weights=wrong))
    averages.add(ROUND, "ana", reply("ana", 1, 1.0))
    averages.add(ROUND, "ben", reply("ben", 3, 5.0))
    for _ in range(2):  # a resumed run is told the same
        averaged, left_out = averages.close(ROUND)
        assert averaged is not None
        assert arrays_of(averaged)["a"].tolist() == [[4.0] * 3] * 2
        assert left_out == ("a hostile one",)


@pytest.mark.parametrize("records", [0, -4])
def test_weights_of_no_records_are_left_out(tmp_path, records):
    averages = Averages(tmp_path)
    averages.add(ROUND, "a hostile one", replace(reply("a hostile one", 1, 9.0), records=records))
    assert averages.close(ROUND) == (None, ("a hostile one",))
    averages.add(ROUND, "ana", reply("ana", 1, 1.0))
    averaged, left_out = averages.close(ROUND)
    assert averaged is not None
    assert arrays_of(averaged)["a"].tolist() == [[1.0] * 3] * 2
    assert left_out == ("a hostile one",)


def test_one_of_two_cannot_outvote_the_other_with_nothing(tmp_path):
    averages = Averages(tmp_path)
    averages.add(ROUND, "a hostile one", replace(reply("a hostile one", 9, 0.0), weights={}))
    averages.add(ROUND, "ana", reply("ana", 1, 1.0))
    assert averages.close(ROUND)[1] == ("a hostile one",)


def test_without_any_numbers_nobody_is_averaged(tmp_path):
    averages = Averages(tmp_path)
    averages.add(ROUND, "ana", reply("ana", 1, np.nan))
    assert averages.close(ROUND) == (None, ("ana",))


def test_a_damaged_weight_file_is_told_with_the_remedy(tmp_path):
    Averages(tmp_path).add(ROUND, "ana", reply("ana", 1, 1.0))
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(RunError, match=r"cannot be read .* delete the file and resume"):
        Averages(tmp_path).close(ROUND)
