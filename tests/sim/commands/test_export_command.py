"""``sim export`` and ``sim answer`` over a run's devices, by their words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clients import adapters, folder
from clients.export import MANIFEST
from clients.folder import Policy
from conf.compose import compose, to_json
from lamp.records import Pair, UserHistory
from models import loading, lora
from sim.cli import main
from sim.folders import RunFolder
from storage import jsonlines
from strategy.base_model import bases_root
from strategy.ledger import M_BASE

BASE = "0123456789abcdef"
USERS = ("17", "18")


@pytest.fixture(scope="module")
def run(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two users with random adapters of one arm."""
    root = tmp_path_factory.mktemp("run")
    config = compose(
        ["qlora.compute_dtype=float32", "task.max_new_tokens=3", f"paths.cache={root / 'cache'}"]
    )
    made = RunFolder(root / "runs" / "small")
    made.path.mkdir(parents=True)
    made.config.write_text(to_json(config))
    bases_root(root / "cache").mkdir(parents=True)
    (bases_root(root / "cache") / BASE).symlink_to(qwen2_folder)
    slot = lora.attach(loading.load_device_base(qwen2_folder, config.qlora), config.qlora, 0)
    for user in USERS:
        history = UserHistory(user, (), (Pair("1", "a text", "a title"),), ())
        device = folder.read(folder.create(made.devices, history, Policy(1.0), b"x" * 32))
        adapters.store(device, "direct_ft", slot, {"base_id": BASE})
        line = {"kind": M_BASE, "user": user, "hash": BASE}
        jsonlines.append(made.path / "ledger.jsonl", [line])
    return made


def test_everybody_is_exported_onto_one_base(run, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["export", f"run={run.path}", "user=all", f"out={out}", "weights=q8_0"]
    assert main(words) == 0
    assert "2 adapters in" in capsys.readouterr().out
    manifests = [json.loads(path.read_text()) for path in out.glob(f"*/direct_ft/{MANIFEST}")]
    assert sorted(each["user"] for each in manifests) == list(USERS)
    assert len({each["files"]["base"]["sha256"] for each in manifests}) == 1
    assert len(list(out.glob("base-*/*.gguf"))) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["user=17"], "out is missing, for example out=exported"),
        (["user=17", "out=x", "arm=cdcda"], "arm=cdcda: no such adapter. Known: direct_ft"),
        (["user=17", "out=x", "format=onnx"], "format=onnx: Known: gguf, merged, peft"),
        (["user=17", "out=x", "weight=f16"], "unknown key 'weight'. Did you mean 'weights'?"),
        (["user=99", "out=x"], "user=99: no such user; this run has 17, 18"),
    ],
)
def test_an_export_that_cannot_be_is_refused_in_one_line(
    run, tmp_path, monkeypatch, capsys, words, said
):
    monkeypatch.chdir(tmp_path)
    assert main(["export", f"run={run.path}", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_m_base_alone_is_asked_as_the_arm_device(run, capsys):
    replies = []
    for arm in ("direct_ft", "device"):  # an untrained adapter changes nothing
        assert main(["answer", f"run={run.path}", "user=17", f"arm={arm}", "a text"]) == 0
        replies.append(capsys.readouterr().out)
    assert replies[0] == replies[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runtime=llama"], "runtime=llama: Did you mean 'llamacpp'?"),
        (["weights=f16"], "weights has no effect with runtime=transformers"),
    ],
)
def test_a_runtime_that_cannot_be_is_refused(run, capsys, words, said):
    assert main(["answer", f"run={run.path}", "user=17", *words, "a text"]) == 2
    assert said in capsys.readouterr().err
