"""The cloud's own models behind the augmentation's two seams, loaded at the first cache miss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from conf.schema import AugmenterConfig, CausalModelConfig, FiltersConfig, ModelConfig
from models.checkpoint import model_identity
from storage.hashing import hash_json
from strategy.augmentation import Generator, NliScorer, Reply
from strategy.device_memory import free_unused
from strategy.endpoint import EndpointGenerator
from strategy.judges import scorer_of


@dataclass(frozen=True, slots=True)
class Cloud:
    """The models that the augmentation works with.

    Attributes:
        writer: Writes similar pairs.
        judge: Scores them.
        further: Models that write in turn with the first.
        end: Called when no more is asked of them: what they hold of a GPU is the devices' now.
    """

    writer: Generator
    judge: NliScorer
    further: tuple[Generator, ...] = ()
    end: Callable[[], None] = lambda: None


def configured_cloud(
    models: ModelConfig, augmenter: AugmenterConfig, filters: FiltersConfig, device: str
) -> Cloud:
    """The cloud models of a configuration; nothing is loaded yet."""
    cloud = models.cloud
    first = cloud if augmenter.adapter is None else replace(cloud, adapter=augmenter.adapter)
    own = [CloudGenerator(model, augmenter, device) for model in (first, *augmenter.models)]
    judge = scorer_of(filters.judge, models.nli, device)
    writers: list[Generator] = [*own]
    if augmenter.endpoint.base_url is not None:
        writers[0] = EndpointGenerator(augmenter, augmenter.endpoint, cloud.system_prompt)

    def end() -> None:
        for model in own:
            model.release()
        judge.release()

    return Cloud(writers[0], judge, tuple(writers[1:]), end)


class CloudGenerator:
    """The cloud language model as the augmentation sees it."""

    def __init__(self, model: CausalModelConfig, config: AugmenterConfig, device: str) -> None:
        """Remember what to load; nothing is loaded before the first prompt."""
        self._model_config, self._config, self._device = model, config, device

    @cached_property
    def identity(self) -> str:
        """Content identity and chat settings of the model."""
        config = self._model_config
        named = [model_identity(config.path, config.revision), config.dtype, config.system_prompt]
        if config.adapter is not None:
            named.append(model_identity(config.adapter, None))
        if config.system_turn != "system":
            named.append(config.system_turn)
        return hash_json(named)

    def write(
        self, prompts: Sequence[str], seeds: Sequence[int], on_done: Callable[[int], None]
    ) -> list[Reply]:
        """Answer each prompt under its own seed."""
        from models.generation import generate

        model, tokenizer = self._loaded
        generations = generate(
            model,
            tokenizer,
            prompts,
            seeds=seeds,
            sampling=self._config.sampling,
            batch_size=self._config.batch_size,
            system=self._model_config.system_prompt,
            on_batch=on_done,
            prefill=self._config.prefill,
        )
        return [Reply(each.text, each.tokens, each.finished) for each in generations]

    def batches(self, prompts: Sequence[str]) -> list[list[int]]:
        """Which prompts are answered together; a batch may be written by itself, elsewhere too."""
        from models.generation import length_batches

        config = self._model_config
        return length_batches(
            self._context,
            self._tokenizer,
            prompts,
            self._config.sampling,
            self._config.batch_size,
            config.system_prompt,
            self._config.prefill,
        )

    def release(self) -> None:
        """Forget the network; another prompt loads it again."""
        if vars(self).pop("_loaded", None) is not None:
            free_unused(self._device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without what is loaded."""
        return CloudGenerator, (self._model_config, self._config, self._device)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from models import loading

        return loading.load_causal(self._model_config, self._device), self._tokenizer

    @cached_property
    def _tokenizer(self) -> Any:
        from models import loading

        return loading.configured_tokenizer(self._model_config)

    @cached_property
    def _context(self) -> int:
        from models import loading

        return loading.context_size(self._model_config.path, self._model_config.revision)
