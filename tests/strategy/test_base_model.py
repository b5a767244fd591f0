"""What names a stored base model: everything that its bytes depend on."""

from __future__ import annotations

from pathlib import Path

from conf.compose import compose
from conf.schema import Config
from lamp.records import Pair, Query, UserHistory
from models.loading import load_tokenizer
from protocol.settings import settings_of, settings_to_json
from sim.run.server import public_tuning
from strategy import base_model, public
from strategy.base_model import _device_identity, _examples, model_key
from strategy.public import PublicUsers

PUBLIC = PublicUsers(Path("users.jsonl"), "hash")


def name_base(config: Config) -> str:
    return base_model.name_base(config.model.device, public_tuning(config, PUBLIC))


def name_cloud(config: Config) -> str:
    return base_model.name_cloud(config.model.cloud, public_tuning(config, PUBLIC))


WORDS = ["model=qwen2.5", "model.device.path=org/small"]


def test_another_compute_type_is_another_base_model():
    bfloat16, float32 = (
        compose([*WORDS, f"qlora.compute_dtype={name}"]) for name in ("bfloat16", "float32")
    )
    assert bfloat16.model.device.dtype == "bfloat16"
    assert name_base(bfloat16) != name_base(float32)
    own = (bfloat16.model.device, bfloat16.qlora)
    # the type that the weights have already changes nothing: bases of earlier versions stay good
    assert _device_identity(*own) == model_key(*own)


def test_the_clouds_own_settings_of_tuning_name_m_cloud_and_neither_m_base_nor_a_device():
    plain = compose(WORDS)
    own = compose([*WORDS, "qlora.cloud_learning_rate=0.003"])
    assert name_base(own) == name_base(plain)
    assert name_cloud(own) != name_cloud(plain)
    assert settings_to_json(settings_of(own)) == settings_to_json(settings_of(plain))
    # where they say what M_base's say, M_cloud is the same
    same = compose([*WORDS, f"qlora.cloud_epochs={plain.qlora.base_epochs}"])
    assert name_cloud(same) == name_cloud(plain)


def test_m_base_tuned_for_retrieval_is_another_and_a_depth_that_nobody_reads_is_not():
    plain, rag = compose(WORDS), compose([*WORDS, "qlora.base_rag=true"])
    deeper = "evaluation.rag_items=2"
    assert name_base(compose([*WORDS, deeper])) == name_base(plain)
    assert len({name_base(each) for each in (plain, rag)}) == 2
    assert name_base(compose([*WORDS, "qlora.base_rag=true", deeper])) != name_base(rag)


def test_every_second_prompt_shows_other_records_of_the_same_user(qwen2_folder, tmp_path):
    pairs = [
        tuple(Pair(f"{name}{n}", f"the {name} story {n}", f"{name} title {n}") for n in range(12))
        for name in ("harbour", "concert")
    ]
    asked = "Generate a headline for the following article: the harbour story 3"
    users = [
        UserHistory("one", (), pairs[0], (Query("q", asked, "asked"),)),
        UserHistory("two", (), pairs[1], ()),
    ]
    tuning = public_tuning(
        compose(["task=lamp_4", "qlora.base_rag=true"]), public.write(tmp_path, users)
    )
    examples = _examples(tuning, load_tokenizer(qwen2_folder))
    assert len(examples) == 25
    shown = [(str(prompt), completion) for prompt, completion in examples if "title" in str(prompt)]
    assert 5 < len(shown) < 20
    for prompt, completion in shown:
        own, other = ("concert", "harbour") if "concert" in completion else ("harbour", "concert")
        assert own in prompt
        assert other not in prompt
        assert f'"{completion}"' not in prompt  # the record itself is no help to itself
