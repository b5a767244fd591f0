"""The shape of a decoder network, read from a checkpoint's files without loading a weight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conf.schema import BuildConfig, CausalModelConfig, TransformerSize
from models.checkpoint import settings_of
from models.gguf_header import read_header
from models.sources import locate


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder with grouped-query attention and a gated feed-forward part.

    Attributes:
        layers: Transformer blocks.
        width: Hidden size.
        feed_forward: Inner size of the feed-forward part.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_width: Size of one head.
        vocabulary: Rows of the embedding.
        tied: Whether the output layer is the embedding.
    """

    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    tied: bool = True

    @property
    def linear_widths(self) -> tuple[tuple[int, int], ...]:
        """(d_in, d_out) of the linear layers of one block: q, k, v, o, gate, up, down."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        wide = self.feed_forward
        return (
            (self.width, queries),
            (self.width, keys),
            (self.width, keys),
            (queries, self.width),
            (self.width, wide),
            (self.width, wide),
            (wide, self.width),
        )

    @property
    def parameters(self) -> int:
        """Weights of linear layers and embeddings; norms and biases are left out."""
        linear = sum(inputs * outputs for inputs, outputs in self.linear_widths)
        tables = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.layers * linear + tables

    def adapter_parameters(self, rank: int) -> int:
        """Weights of a LoRA adapter on all linear layers but the output layer."""
        return self.layers * rank * sum(map(sum, self.linear_widths))


def _published(
    layers: int, width: int, wide: int, heads: int, kv_heads: int, vocabulary: int = 151_936
) -> Shape:
    return Shape(
        layers=layers,
        width=width,
        feed_forward=wide,
        heads=heads,
        kv_heads=kv_heads,
        head_width=width // heads,
        vocabulary=vocabulary,
    )


# Of checkpoints that only the hub has: their config.json, as published.
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B-Instruct": _published(24, 896, 4864, 14, 2),
    "Qwen/Qwen2.5-1.5B-Instruct": _published(28, 1536, 8960, 12, 2),
    "Qwen/Qwen2.5-3B-Instruct": _published(36, 2048, 11008, 16, 2),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _published(30, 576, 1536, 9, 3, vocabulary=49_152),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _published(24, 2048, 8192, 32, 32, vocabulary=49_152),
}


def shape_of(model: CausalModelConfig, cache: Path) -> Shape | None:
    """Return the shape of a checkpoint; None where only the hub knows it, and it is none of ours.

    Args:
        model: Configuration of one model, its path as written or resolved.
        cache: Cache folder of the run.

    Raises:
        ModelError: If there is no such checkpoint.
    """
    found = locate(model, cache)
    if not isinstance(found.place, Path):
        return PUBLISHED.get(model.path)
    return _from_gguf(found.place) if found.is_gguf else _from_folder(found.place)


def shape_to_build(size: TransformerSize, build: BuildConfig) -> Shape:
    """Return the shape of a network that is trained from scratch."""
    return Shape(
        layers=size.layers,
        width=size.width,
        feed_forward=size.feed_forward,
        heads=size.heads,
        kv_heads=size.heads,
        head_width=size.width // size.heads,
        vocabulary=build.vocabulary,
    )


def _from_folder(folder: Path) -> Shape | None:
    settings = settings_of(folder)
    try:
        heads, width = _number(settings["num_attention_heads"]), _number(settings["hidden_size"])
        return Shape(
            layers=_number(settings["num_hidden_layers"]),
            width=width,
            feed_forward=_number(settings["intermediate_size"]),
            heads=heads,
            kv_heads=_number(settings.get("num_key_value_heads") or heads),
            head_width=_number(settings.get("head_dim") or width // heads),
            vocabulary=_number(settings["vocab_size"]),
            tied=bool(settings.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ZeroDivisionError):  # a network of another kind
        return None


def _from_gguf(file: Path) -> Shape | None:
    header = read_header(file)
    kind = header.architecture

    def number(name: str) -> int:
        return _number(header.metadata[f"{kind}.{name}"])

    try:
        heads, width = number("attention.head_count"), number("embedding_length")
        return Shape(
            layers=number("block_count"),
            width=width,
            feed_forward=number("feed_forward_length"),
            heads=heads,
            kv_heads=number("attention.head_count_kv"),
            head_width=_number(header.metadata.get(f"{kind}.attention.key_length", width // heads)),
            vocabulary=header.tensors["token_embd.weight"] // width,
            tied="output.weight" not in header.tensors,
        )
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(value)
    return value
