"""A real device takes M_base in parts, whole and unchanged or not at all."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from clients import download
from clients.folder import Device, Policy
from conf.errors import ProtocolError
from lamp.records import UserHistory
from protocol.messages import BaseRequest
from storage import atomic, bundle

BASE = "abc123"


@pytest.fixture
def device(tmp_path, sent):
    policy = Policy(0.5, bases=(sent[0].digest,))
    return Device(tmp_path / "own", UserHistory("ana", (), (), ()), policy, b"")


@pytest.fixture
def sent(tmp_path):
    """The requests that bring one model, in parts of 3000 bytes."""
    with atomic.new_folder(tmp_path / "model") as made:
        (made / "model.safetensors").write_bytes(bytes(range(256)) * 20)
        (made / "config.json").write_text("{}")
    digest = bundle.pack(tmp_path / "model", tmp_path / "model.tar")
    content = (tmp_path / "model.tar").read_bytes()
    parts = math.ceil(len(content) / 3000)
    return [
        BaseRequest(
            base_id=BASE,
            digest=digest,
            part=number,
            parts=parts,
            m_base={"bytes": np.frombuffer(content[number * 3000 :][:3000], dtype=np.uint8)},
        )
        for number in range(parts)
    ]


def test_the_model_is_there_when_the_last_part_has_come_in_any_order_and_twice(device, sent):
    assert len(sent) > 2
    replies = [download.receive(device, each) for each in (*sent[:0:-1], sent[1], sent[0])]
    assert [reply.complete for reply in replies] == [False] * len(sent) + [True]
    folder = download.bases_folder(device.folder) / BASE
    assert (folder / "model.safetensors").read_bytes() == bytes(range(256)) * 20
    assert download.held(device.folder) == (sent[0].digest,)
    assert not list(download.bases_folder(device.folder).glob(".incoming*"))


def test_bytes_that_do_not_have_the_announced_hash_are_not_kept(device, sent):
    changed = sent[0].m_base["bytes"].copy()
    changed[600] ^= 1
    for each in sent[1:]:
        download.receive(device, each)
    with pytest.raises(ProtocolError, match="expected SHA-256"):
        download.receive(device, replace(sent[0], m_base={"bytes": changed}))
    assert download.held(device.folder) == ()
    for each in sent:  # the next try succeeds
        download.receive(device, each)
    assert download.held(device.folder) == (sent[0].digest,)


@pytest.mark.parametrize(
    "change",
    [
        {"base_id": "../x"},
        {"digest": "../x"},
        {"part": 99},
        {"part": -1},
        {"m_base": {}},
        {"m_base": {"bytes": np.zeros(3, dtype=np.float32)}},
    ],
)
def test_a_malformed_part_is_refused(device, sent, change):
    with pytest.raises(ProtocolError, match=r"query\.base: expected"):
        download.receive(device, replace(sent[0], **change))
    assert not device.folder.exists()


def test_a_model_that_nobody_vouches_for_is_not_kept(device, sent):
    stranger = replace(device, policy=Policy(0.5, bases=("0" * 64,), base_keys=("ab", "00" * 32)))
    with pytest.raises(ProtocolError, match="names neither this SHA-256"):
        download.receive(stranger, sent[0])
    assert not download.bases_folder(device.folder).exists()


def test_a_model_signed_by_a_known_key_is_taken_and_a_signature_of_another_is_not(device, sent):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    own = replace(device, policy=Policy(0.5, base_keys=(public,)))
    for digest, taken in ((sent[0].digest, True), ("0" * 64, False)):
        signature = key.sign(digest.encode()).hex()
        signed = [replace(each, signature=signature) for each in sent]
        if taken:
            assert [download.receive(own, each).complete for each in signed][-1]
        else:
            with pytest.raises(ProtocolError, match="nor the key of its signature"):
                download.receive(own, signed[0])
