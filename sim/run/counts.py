"""Sizes that a dry run rests on: tokens guessed from characters, and the networks' shapes."""

from __future__ import annotations

from pathlib import Path

from conf.checks import WORLD
from conf.compose import compose
from conf.schema import BuildConfig, Config
from lamp.dataset import LampData
from lamp.records import UserHistory
from lamp.tasks import task
from models.shape import PUBLISHED, Shape, shape_of, shape_to_build
from strategy.prompting import make_prompt

CHARACTERS_PER_TOKEN = 4.0
TEMPLATE_TOKENS = 20  # of a chat template
UNKNOWN = PUBLISHED["Qwen/Qwen2.5-1.5B-Instruct"]  # taken for what only the hub knows


def scorer_of(config: Config) -> str | None:
    """Return BERTScore's encoder; None where none is set or the task's answers are no texts."""
    is_text = task(config.task).kind == "text"
    return config.evaluation.bertscore if is_text else None


def record_tokens(config: Config, users: tuple[UserHistory, ...]) -> float:
    """Tokens of one training record, guessed from its characters."""
    texts = [len(pair.input) + len(pair.response) for user in users for pair in user.pairs]
    mean = sum(texts) / max(len(texts), 1)
    return min(config.qlora.max_seq_len, mean / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS)


def prompt_tokens(config: Config, data: LampData) -> float:
    """Tokens of a prompt for similar pairs, guessed from those of the first user's records."""
    prompt = make_prompt(config.augmenter, data.task, data.public, config.seed)
    pairs = [pair for user in data.targets[:1] for pair in user.pairs]
    texts = [len(prompt.ask(pair)) for pair in pairs]
    return sum(texts) / max(len(texts), 1) / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS


def reply_tokens(config: Config, data: LampData) -> float:
    """Tokens of a similar pair: as many as the record has that it is made from."""
    return min(config.augmenter.sampling.max_new_tokens, record_tokens(config, data.targets))


def public_records(config: Config, data: LampData) -> int:
    """Records and queries of public users that M_base and M_cloud are tuned on."""
    found = sum(len(user.pairs) + len(user.queries) for user in data.public)
    return min(found, config.qlora.base_max_records or found)


def known_shape(config: Config, which: str) -> Shape | None:
    """Shape of the "cloud" or the "device" model; None where only the hub knows it."""
    build = config.model.build
    if build is not None:
        return shape_to_build(build.cloud if which == "cloud" else build.device, build)
    return shape_of(getattr(config.model, which), Path(config.paths.cache))


def shape(config: Config, which: str) -> Shape:
    """As :func:`known_shape`; a network of 1.5 B parameters where it is not known."""
    return known_shape(config, which) or UNKNOWN


def judge_to_build(config: Config) -> BuildConfig | None:
    """Settings of a judge that is built on the miniature world; None where a checkpoint judges."""
    if config.model.build is None and config.model.nli.path == WORLD:
        return compose(["model=miniature"]).model.build
    return config.model.build


def parameters(config: Config, which: str) -> float:
    """Parameters of the "cloud" or the "device" model."""
    return float(shape(config, which).parameters)


def adapter_bytes(config: Config) -> int:
    """Float32 LoRA on all linear layers of the device model."""
    return 4 * shape(config, "device").adapter_parameters(config.qlora.rank)


def duration(seconds: float) -> str:
    """Write seconds as a rough duration."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
