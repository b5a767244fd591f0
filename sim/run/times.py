"""How long what stands beside a run's arms takes: models that are tuned, write and judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conf.checks import WORLD
from conf.schema import Config
from lamp.dataset import LampData
from models.checkpoint import settings_of
from models.miniature import is_built
from models.shape import Shape
from sim.run.counts import (
    judge_to_build,
    prompt_tokens,
    public_records,
    record_tokens,
    reply_tokens,
    scorer_of,
    shape,
)
from sim.run.probe import Speed
from strategy.arms import Arm, configured_arms

START_S = 25.0  # imports, Ray's start and stop
BUILD_S = 170.0  # miniature models at first use
JUDGE_S = 130.0  # the miniature world's NLI network at first use
ENCODER = 12 * 24 * 1024**2  # weights of roberta-large's blocks, where an encoder's are unknown
SMALL_ENCODERS = {"cross-encoder/nli-MiniLM2-L6-H768": 12 * 6 * 768**2}  # only the hub has them


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a run.

    Attributes:
        name: What it is.
        seconds: A guess.
    """

    name: str
    seconds: float


def parts(
    config: Config, data: LampData, replies: int, shared: int, speeds: dict[str, Speed]
) -> list[Part]:
    """What a run does beside the devices' own work, in its order; what takes no time is left out.

    Args:
        config: The run.
        data: Its data.
        replies: Texts that the cloud model writes.
        shared: Records that they are written for.
        speeds: Of the "device" and the "cloud" model.
    """
    arms = configured_arms(config)
    found = [
        Part("start and stop", START_S),
        *_built(config, data, replies),
        Part("M_base, tuned on public users", _base_s(config, data, speeds)),
        Part("M_cloud, tuned on public users", _cloud_s(config, data, speeds)),
        *_writing(config, data, replies, shared, speeds),
        Part("judging both ways", _judging_s(config, data, replies, speeds)),
        Part("teacher's logits", _teacher_s(config, data, arms, shared, speeds)),
        Part("BERTScore", _bertscore_s(config, data, arms, speeds)),
    ]
    return [part for part in found if part.seconds]


def needs_cloud(config: Config) -> bool:
    """Whether a cloud model of our own works in the run."""
    return any(
        arm.method.answers == "cloud" or arm.method.distils for arm in configured_arms(config)
    ) or writes_itself(config)


def tunes_base(config: Config) -> bool:
    """Whether M_base is tuned on the public users."""
    methods = (arm.method for arm in configured_arms(config))
    return any(method.tuned and method.answers == "device" for method in methods)


def tunes_cloud(config: Config) -> bool:
    """Whether M_cloud is, to answer or to teach."""
    methods = (arm.method for arm in configured_arms(config))
    return any(each.distils or (each.tuned and each.answers == "cloud") for each in methods)


def writes_itself(config: Config) -> bool:
    """Whether a cloud model of our own writes the similar pairs."""
    elsewhere = config.augmenter.file or config.augmenter.endpoint.base_url
    return not elsewhere and any(arm.method.needs_augmentation for arm in configured_arms(config))


def _built(config: Config, data: LampData, replies: int) -> Iterator[Part]:
    """Networks of ours that the cache does not have."""
    build, cache = config.model.build, Path(config.paths.cache)
    if build is not None:
        if not is_built(build, data, config.task.max_field_words, cache):
            yield Part("the miniature models, built once", BUILD_S)
    elif replies and (config.model.nli.path == WORLD or config.model.nli.nli_data is not None):
        yield Part("the judge, trained once", JUDGE_S)


def _base_s(config: Config, data: LampData, speeds: dict[str, Speed]) -> float:
    if not tunes_base(config):
        return 0.0
    return _tuned_tokens(config, data, config.qlora.base_epochs) * speeds["device"].train_s


def _cloud_s(config: Config, data: LampData, speeds: dict[str, Speed]) -> float:
    if not tunes_cloud(config):
        return 0.0
    epochs = config.qlora.cloud_epochs or config.qlora.base_epochs
    return _tuned_tokens(config, data, epochs) * speeds["cloud"].train_s


def _tuned_tokens(config: Config, data: LampData, epochs: int) -> float:
    return public_records(config, data) * epochs * record_tokens(config, data.public)


def _writing(
    config: Config, data: LampData, replies: int, shared: int, speeds: dict[str, Speed]
) -> Iterator[Part]:
    if not replies or not writes_itself(config):
        return
    speed, prompt, reply = speeds["cloud"], prompt_tokens(config, data), reply_tokens(config, data)
    if (tuning := config.augmenter.tuning) is not None:
        seconds = tuning.records * tuning.epochs * (prompt + reply) * speed.train_s
        yield Part("the augmenter, tuned on public users", seconds)
    # k samples of a prompt read it once
    seconds = shared * prompt * speed.read_s + speed.answering_s(replies, 0, reply)
    yield Part("similar pairs, written by the cloud model", seconds)


def _judging_s(config: Config, data: LampData, replies: int, speeds: dict[str, Speed]) -> float:
    """Two texts of a record's length, in both orders."""
    tokens = replies * 2 * min(config.model.nli.max_length, 2 * record_tokens(config, data.targets))
    return tokens * _encoded_s(config, judge_weights(config), speeds)


def _teacher_s(
    config: Config, data: LampData, arms: tuple[Arm, ...], shared: int, speeds: dict[str, Speed]
) -> float:
    if not any(arm.method.distils for arm in arms):
        return 0.0
    return shared * record_tokens(config, data.targets) * speeds["cloud"].read_s


def _bertscore_s(
    config: Config, data: LampData, arms: tuple[Arm, ...], speeds: dict[str, Speed]
) -> float:
    scorer = scorer_of(config)
    if scorer is None:
        return 0.0
    texts = 2 * len(arms) * sum(len(user.queries) for user in data.targets)
    weights = encoder_weights(scorer)
    return texts * config.task.max_new_tokens * _encoded_s(config, weights, speeds)


def judge_weights(config: Config) -> int:
    """Weights of the judge's blocks."""
    build = judge_to_build(config)
    if build is None:
        return encoder_weights(config.model.nli.path)
    size = build.nli
    return size.layers * (4 * size.width**2 + 2 * size.width * size.feed_forward)


def encoder_weights(path: str) -> int:
    """Weights of an encoder's blocks, from its configuration."""
    found = settings_of(Path(path).expanduser())
    names = ("num_hidden_layers", "hidden_size", "intermediate_size")
    sizes = [found.get(name) for name in names]
    layers, width, wide = (each if isinstance(each, int) else 0 for each in sizes)
    return layers * (4 * width**2 + 2 * width * wide) or SMALL_ENCODERS.get(path, ENCODER)


def _encoded_s(config: Config, weights: int, speeds: dict[str, Speed]) -> float:
    """Seconds of a token in an encoder, at the rate at which the device model reads."""
    own: Shape = shape(config, "device")
    return speeds["device"].read_s * weights / (own.parameters - own.vocabulary * own.width)
