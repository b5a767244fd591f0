"""What a device writes for llama.cpp and PEFT, and how it answers through llama.cpp."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from clients import adapters, answering, export, folder, gguf_files
from clients.base import Base
from clients.folder import STALE, Device, Policy
from clients.offline_query import answer_with
from conf.compose import compose
from conf.errors import ConfigError, ModelError, RunError
from lamp.records import Pair, Query, UserHistory
from models import loading, lora
from protocol.settings import DeviceSettings, settings_of

ARM = "cdcda@0.5"
HAS_LLAMACPP = find_spec("llama_cpp") is not None


@pytest.fixture(scope="module")
def settings() -> DeviceSettings:
    return settings_of(
        compose(["task=lamp_4", "task.max_new_tokens=6", "qlora.compute_dtype=float32"])
    )


@pytest.fixture(scope="module")
def base(qwen2_folder: Path, settings: DeviceSettings) -> Base:
    model = loading.load_device_base(qwen2_folder, settings.qlora)
    slot = lora.attach(model, settings.qlora, 0)
    return Base(slot, loading.load_tokenizer(qwen2_folder), qwen2_folder)


@pytest.fixture
def device(tmp_path: Path, base: Base) -> Device:
    question = Query("q", "Generate a headline for the following article: a text", "a title")
    history = UserHistory("17", (), (Pair("1", "a text", "a title"),), (question,))
    made = folder.read(folder.create(tmp_path / "devices", history, Policy(1.0), b"x" * 32))
    generator = torch.Generator().manual_seed(3)
    state = {
        name: torch.randn(weight.shape, generator=generator) * 0.1
        for name, weight in lora.lora_parameters(base.model).items()
    }
    adapters.store(made, ARM, base.model, {"base_id": base.folder.name}, state)
    return made


def target(tmp_path: Path, form: str, weights: str = "f16") -> export.Target:
    return export.target_of(
        {"out": str(tmp_path / "out"), "format": form}
        | ({} if form == "peft" else {"weights": weights})
    )


def exported(
    device: Device, base: Base, settings: DeviceSettings, to: export.Target
) -> tuple[Path, dict]:
    made = export.export(device, ARM, base.folder, settings, to)
    return made, json.loads((made / export.MANIFEST).read_text())


@torch.inference_mode()
def logits(model: torch.nn.Module) -> np.ndarray:
    found: np.ndarray = model(torch.arange(40, 80).unsqueeze(0)).logits[0].float().numpy()
    return found


def own_logits(device: Device, base: Base) -> np.ndarray:
    adapters.load_into(device, ARM, base.model)
    return logits(base.model)


@pytest.mark.parametrize("form", export.FORMATS)
def test_the_manifest_tells_what_the_files_are_and_how_they_are_asked(
    tmp_path, device, base, settings, form
):
    made, manifest = exported(device, base, settings, target(tmp_path, form))
    assert (manifest["arm"], manifest["format"], manifest["user"]) == (ARM, form, "17")
    assert set(manifest["files"]) == ({"model"} if form == "merged" else {"base", "adapter"})
    for listed in manifest["files"].values():
        content = (made / listed["path"]).read_bytes()
        assert listed["bytes"] == len(content)
        assert listed["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["prompt"]["trained"] == "Generate a headline for the following article: {x}"
    assert manifest["stop"]["tokens"] == ["<|im_end|>", "<|endoftext|>"]
    assert manifest["max_new_tokens"] == 6


def test_a_merged_file_has_the_devices_own_logits(tmp_path, device, base, settings):
    made, _ = exported(device, base, settings, target(tmp_path, "merged"))
    model = AutoModelForCausalLM.from_pretrained(made, gguf_file="model.gguf", dtype=torch.float32)
    expected = own_logits(device, base)
    assert np.abs(logits(model.eval()) - expected).max() < 0.02 * np.abs(expected).max()


def test_peft_loads_its_folder_onto_the_exported_base(tmp_path, device, base, settings):
    made, manifest = exported(device, base, settings, target(tmp_path, "peft"))
    plain = (made / manifest["files"]["base"]["path"]).parent
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32), str(made)
    )
    np.testing.assert_allclose(logits(model.eval()), own_logits(device, base), atol=1e-4)
    assert AutoTokenizer.from_pretrained(plain).chat_template == base.tokenizer.chat_template


def test_the_base_is_written_once_for_all_adapters_on_it(tmp_path, device, base, settings):
    to = target(tmp_path, "gguf", "q8_0")
    _, first = exported(device, base, settings, to)
    written = next((tmp_path / "out").glob("base-*/q8_0.gguf"))
    before = written.stat().st_mtime_ns
    _, second = exported(device, base, settings, to)
    assert written.stat().st_mtime_ns == before
    assert first["files"] == second["files"]
    names = {tensor.name for tensor in GGUFReader(written).tensors}
    assert "blk.1.attn_q.weight" in names


def test_an_adapter_that_saw_withdrawn_records_is_not_exported(tmp_path, device, base, settings):
    (adapters.adapter_folder(device, ARM) / STALE).write_text("{}")
    with pytest.raises(RunError, match="saw records that were withdrawn"):
        exported(device, base, settings, target(tmp_path, "gguf"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"format": "guff"}, r"format=guff: Did you mean 'gguf'\?"),
        ({"weights": "q4_k"}, r"weights=q4_k: Did you mean 'q4_k_m'\?"),
        ({"format": "peft", "weights": "f16"}, "weights has no effect with format=peft"),
    ],
)
def test_what_cannot_be_written_is_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        export.target_of({"out": "somewhere", **words})


def test_a_device_exports_its_own_by_one_command(tmp_path, device, base, settings, capsys):
    (device.folder / "bases").mkdir()
    (device.folder / "bases" / base.folder.name).symlink_to(base.folder)
    export.offline_query.remember(device.folder, settings)
    words = [f"folder={device.folder}", f"out={tmp_path / 'out'}", "weights=f16"]
    assert export.main(words) == 0
    assert (Path(capsys.readouterr().out.strip()) / export.MANIFEST).is_file()
    assert export.main([*words, "arm=other"]) == 2
    assert "arm=other: no such adapter. Known: cdcda@0.5" in capsys.readouterr().err
    assert export.main(["folder=x"]) == 2
    assert capsys.readouterr().err.startswith("error: usage: python -m clients export")


def test_an_adapters_gguf_follows_its_weights(device, base):
    first = gguf_files.adapter_file(device, ARM, base.folder)
    assert gguf_files.adapter_file(device, ARM, base.folder) == first
    state = {name: weight + 1 for name, weight in adapters.read(device, ARM, base.model).items()}
    adapters.store(device, ARM, base.model, {"base_id": base.folder.name}, state)
    second = gguf_files.adapter_file(device, ARM, base.folder)
    assert second != first
    assert list(first.parent.iterdir()) == [second]


@pytest.mark.skipif(HAS_LLAMACPP, reason="llama.cpp is installed")
def test_without_the_binding_one_line_says_how_to_install_it(device, base, settings):
    evaluation = replace(settings.evaluation, runtime="llamacpp", weights="q4_0")
    through = replace(settings, evaluation=evaluation)
    with pytest.raises(ModelError, match=r"llama-cpp-python.*install it with make llamacpp"):
        answer_with(device, ARM, base.folder, through, "a text")
    assert not base.folder.with_name(f"{base.folder.name}-gguf").joinpath("q4_0.gguf").exists()


@pytest.mark.skipif(not HAS_LLAMACPP, reason="needs llama.cpp: make llamacpp")
@pytest.mark.parametrize("arm", [ARM, None])
def test_llamacpp_answers_what_transformers_answers(device, base, settings, arm):
    evaluation = replace(settings.evaluation, runtime="llamacpp", weights="f16")
    through = replace(settings, evaluation=evaluation)
    prompt = device.history.queries[0].input
    ours = answering.answer_text(device, base, arm, prompt, settings)
    assert answering.answer_text(device, base, arm, prompt, through) == ours
    assert answer_with(device, arm, base.folder, through, prompt) == ours
