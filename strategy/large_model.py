"""The large model where it answers or teaches itself: loaded once for all methods that ask it.

It is released before devices adapt: what it holds of a GPU is theirs then.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from conf.errors import ConfigError
from conf.schema import CausalModelConfig
from strategy.base_model import ensure_cloud
from strategy.device_memory import free_unused
from strategy.progress import Progress
from strategy.tuning import PublicTuning


class LargeModel:
    """The cloud model as it comes, and M_cloud: the same with the adapter of the public users."""

    def __init__(self, model: CausalModelConfig, tuning: PublicTuning, progress: Progress) -> None:
        """Remember what to load; nothing is loaded or tuned before it is asked for."""
        self._model, self._tuning, self._progress = model, tuning, progress

    @property
    def system_prompt(self) -> str | None:
        """System turn of the model."""
        return self._model.system_prompt

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        from models import loading

        return loading.configured_tokenizer(self._model)

    @cached_property
    def model(self) -> Any:
        """The model as it comes, with an adapter slot."""
        from models import loading, lora

        plain = loading.load_causal(self._model, self._tuning.device)
        return lora.attach(plain, self._tuning.qlora, seed=0)

    @cached_property
    def adapter(self) -> Any:
        """The adapter that makes it M_cloud, by the names of the slot's matrices."""
        from models import lora

        folder = ensure_cloud(self._model, self._tuning, self._progress)
        return lora.read(self.model, folder)

    def release(self) -> None:
        """Forget the network; who asks again loads it again."""
        vars(self).pop("adapter", None)
        if vars(self).pop("model", None) is not None:
            free_unused(self._tuning.device)


def require_same_vocabulary(teacher: CausalModelConfig, student: CausalModelConfig) -> None:
    """Check that both give a token the same number.

    Raises:
        ConfigError: If they do not.
    """
    from models import loading

    cloud, device = (
        loading.configured_tokenizer(model).get_vocab() for model in (teacher, student)
    )
    rows = [loading.vocabulary_rows(model.path, model.revision) for model in (teacher, student)]
    if cloud != device or rows[0] != rows[1]:
        raise ConfigError(
            "methods: rkd_ft needs a cloud and a device model of one vocabulary, got "
            f"{len(cloud)} and {len(device)} tokens in {rows[0]} and {rows[1]} rows; choose "
            "another model.cloud.path, or leave rkd_ft out"
        )
