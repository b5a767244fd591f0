"""What names a stored base model: everything that its bytes depend on."""

from __future__ import annotations

from pathlib import Path

from conf.compose import compose
from strategy.base_model import _device_identity, model_key, name_base
from strategy.public import PublicUsers

PUBLIC = PublicUsers(Path("users.jsonl"), "hash")
WORDS = ["model=qwen2.5", "model.device.path=org/small"]


def test_another_compute_type_is_another_base_model():
    bfloat16, float32 = (
        compose([*WORDS, f"qlora.compute_dtype={name}"]) for name in ("bfloat16", "float32")
    )
    assert bfloat16.model.device.dtype == "bfloat16"
    assert name_base(bfloat16, PUBLIC) != name_base(float32, PUBLIC)
    # the type that the weights have already changes nothing: bases of earlier versions stay good
    assert _device_identity(bfloat16) == model_key(bfloat16, bfloat16.model.device)
