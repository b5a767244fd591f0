"""Messages survive the wire; what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import ProtocolError
from lamp.records import Pair
from protocol import codec
from protocol.codec import decode, encode
from protocol.messages import AdaptRequest, AnswerReply, AnswerRequest, HelloReply, ShareReply
from protocol.wire import contents, serialised_message

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
PAIRS = st.lists(
    st.builds(Pair, id=TEXT, input=TEXT, response=TEXT), max_size=6, unique_by=lambda pair: pair.id
).map(tuple)


@given(user=TEXT, pairs=PAIRS, counts=st.lists(st.integers(0, 9), max_size=4).map(tuple))
def test_a_share_reply_comes_back_as_it_went(user, pairs, counts):
    counts = tuple(min(count, len(pairs)) for count in counts)
    reply = ShareReply(user_id=user, pairs=pairs, counts=counts)
    assert decode(ShareReply, encode(reply)) == reply


def test_lone_surrogates_are_replaced_because_only_the_deployment_engine_refuses_them():
    reply = ShareReply(user_id="u", pairs=(Pair("1", "a\ud800b", ""),), counts=(1,))
    assert decode(ShareReply, encode(reply)).pairs[0].input == "a?b"
    assert serialised_message(reply)


def test_many_pairs_are_cut_into_parts_and_joined_again(monkeypatch):
    monkeypatch.setattr(codec, "MAX_PART_BYTES", 10)
    pairs = tuple(Pair(str(number), "x" * 6, "y") for number in range(5))
    records = encode(ShareReply(user_id="u", pairs=pairs, counts=()))
    assert sum(key.startswith("pairs.") for key in records) == 5
    assert decode(ShareReply, records).pairs == pairs


def test_a_missing_field_is_named():
    records = encode(HelloReply(user_id="u", version=1))
    del records.config_records["texts"]["user_id"]
    with pytest.raises(ProtocolError, match=r"query\.hello: field 'user_id' is missing"):
        decode(HelloReply, records)


def test_an_unknown_field_is_refused():
    records = encode(HelloReply(user_id="u", version=1))
    records.config_records["texts"]["ratio"] = "1.0"
    with pytest.raises(ProtocolError, match=r"got also \['ratio'\]"):
        decode(HelloReply, records)


def test_a_field_of_another_type_is_refused():
    records = encode(HelloReply(user_id="u", version=1))
    records["texts"] = ConfigRecord({"user_id": 7})
    with pytest.raises(ProtocolError, match="'user_id': expected str, got int"):
        decode(HelloReply, records)


def test_pair_columns_of_different_length_are_refused():
    records = encode(ShareReply(user_id="u", pairs=(Pair("1", "a", "b"),), counts=()))
    records["pairs.0"] = ConfigRecord({"id": ["1"], "input": [], "response": ["b"]})
    with pytest.raises(ProtocolError, match="equal length"):
        decode(ShareReply, records)


def test_contents_leave_empty_fields_out():
    request = AdaptRequest(arm="a", base_id="b", settings="{}", seed=1, kept=(), extra_records=0)
    assert contents(request) == {"settings"}


def test_whole_numbers_of_a_float_field_stay_numbers():
    fields = dict.fromkeys(AnswerReply.__dataclass_fields__, ())
    values = {"user_id": "u", "arm": "a", "num_queries": 2, "seconds": 0.0, "tokens": 0}
    values |= {"shortened": 0, "query_ids": ("1", "2"), "parsed": (1, 1)}
    del fields["TYPE"]
    reply = AnswerReply(**{**fields, **values, "rouge1": (1.0, 0.0)})
    assert decode(AnswerReply, encode(reply)).rouge1 == (1.0, 0.0)


@pytest.mark.parametrize(
    "columns",
    [{"parsed": (1,)}, {"query_ids": ("1",)}, {"rouge1": (1.0,)}, {"texts": ("a", "b", "c")}],
)
def test_columns_that_are_not_parallel_are_refused(columns):
    fields = dict.fromkeys(AnswerReply.__dataclass_fields__, ())
    values = {"user_id": "u", "arm": "a", "num_queries": 2, "seconds": 0.0, "tokens": 0}
    values |= {"query_ids": ("1", "2"), "parsed": (1, 1), **columns}
    del fields["TYPE"]
    with pytest.raises(ProtocolError, match="expected columns of 2 queries"):
        AnswerReply(**{**fields, **values})


def test_named_arrays_come_back_bit_for_bit():
    weights = {"a.weight": np.arange(6, dtype=np.float16).reshape(2, 3), "id": np.ones(1)}
    request = AnswerRequest(arm="a", base_id="b", settings="{}", adapted=True, weights=weights)
    records = encode(request)
    assert list(records.array_records) == ["weights"]
    back = decode(AnswerRequest, records).weights
    assert list(back) == list(weights)
    for name, array in weights.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    assert contents(request) == {"settings", "averaged weights"}


def test_a_message_without_arrays_has_no_array_record():
    request = AnswerRequest(arm="a", base_id="b", settings="{}", adapted=True)
    assert not encode(request).array_records
    assert decode(AnswerRequest, encode(request)) == request


@pytest.mark.parametrize("wrong", [np.array(["text"]), np.zeros(2, dtype="M8[s]"), np.ones(2, "?")])
def test_arrays_of_anything_but_numbers_are_refused(wrong):
    records = encode(AnswerRequest(arm="a", base_id="b", settings="{}", adapted=True))
    records["weights"] = ArrayRecord({"a": Array(wrong)})
    with pytest.raises(ProtocolError, match="'weights', 'a': expected numbers"):
        decode(AnswerRequest, records)


def test_unknown_arrays_are_refused():
    records = encode(HelloReply(user_id="u", version=1))
    records["more"] = ArrayRecord({"a": Array(np.ones(1))})
    with pytest.raises(ProtocolError, match=r"got also \['more'\]"):
        decode(HelloReply, records)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("user_id", b"u", "expected str, got bytes"),
        ("version", True, "expected int, got bool"),
        ("version", 4.0, "expected int, got float"),
        ("version", -1, "expected numbers in"),
        ("downloads", 1, "expected bool, got int"),
        ("held", [b"x"], "expected str, got bytes"),
        ("held", "x", "expected a list, got str"),
        ("user_id", "u" * (1 << 17), "expected at most 65536"),
    ],
)
def test_nothing_that_comes_is_cast(name, value, expected):
    records = encode(HelloReply(user_id="u", version=1))
    kind = "numbers" if name == "version" else "texts"
    changed = {**records[kind], name: value}
    # a MetricRecord takes no flags itself, but what comes over a wire is what it is
    records[kind] = ConfigRecord(changed) if kind == "texts" else MetricRecord({})
    if kind == "numbers":
        records[kind].__dict__["_data"].update(changed)
    with pytest.raises(ProtocolError, match=expected):
        decode(HelloReply, records)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1e9])
def test_a_score_that_is_none_is_refused(value):
    fields = dict.fromkeys(AnswerReply.__dataclass_fields__, ())
    values = {"user_id": "u", "arm": "a", "num_queries": 1, "seconds": 0.0, "tokens": 0}
    values |= {"query_ids": ("1",), "parsed": (1,), "rouge1": (value,)}
    del fields["TYPE"]
    with pytest.raises(ProtocolError, match=r"'rouge1': expected numbers in \[0, 1\]"):
        decode(AnswerReply, encode(AnswerReply(**{**fields, **values})))


def test_an_array_that_announces_more_than_it_brings_is_refused_before_memory_is_taken():
    records = encode(AnswerRequest(arm="a", base_id="b", settings="{}", adapted=True))
    array = Array(np.zeros(4, dtype=np.float32))
    array.data = array.data.replace(b"(4,), }         ", b"(9999999999,), }", 1)
    records["weights"] = ArrayRecord({"a": array})
    with pytest.raises(ProtocolError, match="'weights', 'a'"):
        decode(AnswerRequest, records)


def test_pair_columns_of_bytes_are_refused():
    records = encode(ShareReply(user_id="u", pairs=(Pair("1", "a", "b"),), counts=(1,)))
    records["pairs.0"] = ConfigRecord({"id": ["1"], "input": [b"a"], "response": ["b"]})
    with pytest.raises(ProtocolError, match="expected lists of texts"):
        decode(ShareReply, records)


def test_parts_with_a_gap_and_records_of_other_names_are_refused():
    records = encode(ShareReply(user_id="u", pairs=(Pair("1", "a", "b"),), counts=(1,)))
    records["pairs.2"] = records["pairs.0"]
    with pytest.raises(ProtocolError, match="without a gap"):
        decode(ShareReply, records)
    records = encode(HelloReply(user_id="u", version=1))
    records["more"] = ConfigRecord({"x": "y"})
    with pytest.raises(ProtocolError, match=r"got also \['more'\]"):
        decode(HelloReply, records)
