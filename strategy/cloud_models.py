"""The cloud's own models behind the augmentation's two seams, loaded at the first cache miss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from conf.schema import AugmenterConfig, CausalModelConfig, Config, NliModelConfig
from storage.hashing import hash_files, hash_json
from strategy.augmentation import Judge, Reply, Writer
from strategy.endpoint import EndpointWriter


@dataclass(frozen=True, slots=True)
class Cloud:
    """The models that the augmentation works with; ``further`` ones write in turn."""

    writer: Writer
    judge: Judge
    further: tuple[Writer, ...] = ()


def configured_cloud(config: Config) -> Cloud:
    """The cloud models of a configuration; nothing is loaded yet."""
    device = config.resources.cloud_device
    cloud, augmenter = config.model.cloud, config.augmenter
    if augmenter.endpoint.base_url is not None:
        writer: Writer = EndpointWriter(augmenter, augmenter.endpoint, cloud.system_prompt)
    else:
        writer = CloudWriter(cloud, augmenter, device)
    return Cloud(
        writer=writer,
        judge=CloudJudge(config.model.nli, device),
        further=tuple(CloudWriter(model, augmenter, device) for model in augmenter.models),
    )


def model_identity(path: str, revision: str | None) -> str:
    """What names a model in cache keys: the content of a local folder, else name and revision."""
    folder = Path(path)
    if folder.is_dir():
        files = [*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.json")]
        return hash_files(path for path in files if path.name != "COMPLETE.json")
    return hash_json({"hub": path, "revision": revision})


class CloudWriter:
    """The cloud language model as the augmentation sees it."""

    def __init__(self, model: CausalModelConfig, config: AugmenterConfig, device: str) -> None:
        """Remember what to load; nothing is loaded before the first prompt."""
        self._model_config, self._config, self._device = model, config, device

    @cached_property
    def identity(self) -> str:
        """Content identity and chat settings of the model."""
        config = self._model_config
        return hash_json(
            [model_identity(config.path, config.revision), config.dtype, config.system_prompt]
        )

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
        )
        return [Reply(each.text, each.tokens) for each in generations]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from models import loading

        config = self._model_config
        tokenizer = loading.load_tokenizer(config.path, config.revision)
        return loading.load_causal(config, self._device), tokenizer


class CloudJudge:
    """The NLI model as the augmentation sees it."""

    def __init__(self, config: NliModelConfig, device: str) -> None:
        """Remember what to load; nothing is loaded before the first pair."""
        self._config, self._device = config, device

    @cached_property
    def identity(self) -> str:
        """Content identity and length limit of the model."""
        config = self._config
        return hash_json([model_identity(config.path, config.revision), config.max_length])

    @cached_property
    def _scorer(self) -> Any:
        from models.nli import NliScorer

        return NliScorer.load(self._config, self._device)

    def both_ways(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
        """Entailment probabilities (x => x', x' => x) of each pair of texts."""
        probabilities: list[tuple[float, float]] = self._scorer.both_ways(pairs)
        return probabilities
