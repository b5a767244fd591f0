"""A folder travels as one file, and nothing but a model's plain files comes out of it."""

from __future__ import annotations

import io
import tarfile

import pytest

from conf.errors import DataError
from storage import atomic, bundle


def model_folder(path, weights=b"weights"):
    with atomic.new_folder(path, {"bytes": 7}) as made:
        (made / "model.safetensors").write_bytes(weights)
        (made / "config.json").write_text("{}")
    return path


def test_a_bundle_gives_the_same_files_back_and_leaves_the_marker_out(tmp_path):
    folder = model_folder(tmp_path / "model")
    bundle.pack(folder, tmp_path / "model.tar")
    (tmp_path / "copy").mkdir()
    bundle.unpack(tmp_path / "model.tar", tmp_path / "copy")
    found = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert found == {"model.safetensors": b"weights", "config.json": b"{}"}


def test_equal_folders_have_equal_hashes_and_one_changed_byte_another(tmp_path):
    digests = [
        bundle.pack(model_folder(tmp_path / name, weights), tmp_path / f"{name}.tar")
        for name, weights in (("a", b"weights"), ("b", b"weights"), ("c", b"Weights"))
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "name", ["../evil.json", "/etc/evil.json", "code.py", "model.bin", ".json"]
)
def test_a_bundle_with_another_name_is_refused(tmp_path, name):
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    (tmp_path / "target").mkdir()
    with pytest.raises(DataError, match="expected plain files"):
        bundle.unpack(tmp_path / "evil.tar", tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())


def test_a_link_in_a_bundle_is_refused(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        entry = tarfile.TarInfo("config.json")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    (tmp_path / "target").mkdir()
    with pytest.raises(DataError, match="expected plain files"):
        bundle.unpack(tmp_path / "evil.tar", tmp_path / "target")


def test_what_is_no_tar_is_refused(tmp_path):
    (tmp_path / "noise.tar").write_bytes(b"noise" * 200)
    with pytest.raises(DataError, match="expected a plain tar"):
        bundle.unpack(tmp_path / "noise.tar", tmp_path)


def test_a_sparse_file_that_would_become_larger_is_refused(tmp_path):
    """A GNU sparse entry: 512 bytes of archive that would unpack to 200 GiB."""
    entry = tarfile.TarInfo("model.safetensors")
    entry.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 0)
    block[483:495] = b"%011o\0" % (200 << 30)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "evil.tar").write_bytes(bytes(block) + bytes(1024))
    (tmp_path / "target").mkdir()
    with pytest.raises(DataError, match="bundle: expected"):
        bundle.unpack(tmp_path / "evil.tar", tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())
