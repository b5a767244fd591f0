"""One planner of memory: what training and answering take, from a network's shape alone.

What is counted is what the engine (:mod:`models.multi_lora`) and the decoder
(:mod:`models.generation`) allocate; a process's own start (interpreter, libraries, a GPU's kernels)
comes on top. Measured peaks stand beside it in docs/LOG.md and tests/models/test_memory.py.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from models.losses import chunk_tokens
from models.shape import Shape

Form = Literal["nf4", "twin", "plain"]  # of the linear layers
WRITTEN_WIDTH = 256  # up to rows of so many tokens the engine writes attention's weights out
NOMINAL_WIDTH = WRITTEN_WIDTH  # tokens of a row, where none is known
_NF4_BYTES = 0.5 + 4 / 64  # of a weight: its code, and a float32 constant for each 64
_NF4_DOUBLE_BYTES = 0.5 + (1 + 4 / 256) / 64  # the constants quantised again
_FLOAT = 4
_DROPOUT = 0.05  # share of the inputs whose places are kept, 8 bytes each


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes by what they are for.

    Attributes:
        weights: The frozen network.
        adapters: LoRA matrices, in all copies that training holds.
        optimizer: Gradients and AdamW's moments, and what its step makes on the way.
        activations: What the forward pass leaves for the backward pass; answering: what a layer has
            at once.
        logits: Of the tokens whose output is computed at once, or what the backward pass needs then
            if that is more.
        cache: Keys and values of a decoder.
    """

    weights: int = 0
    adapters: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    cache: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, each.name) for each in fields(self))


def training(
    shape: Shape,
    *,
    rank: int,
    itemsize: int,
    tokens: int,
    scored: int,
    width: int = NOMINAL_WIDTH,
    users: int = 1,
    form: Form = "twin",
    double_quant: bool = False,
    checkpointed: bool = False,
) -> Plan:
    """Plan the training of adapters.

    Args:
        shape: The network.
        rank: Of the adapters.
        itemsize: Bytes of a number in the compute type.
        tokens: Tokens of a forward pass, of all users.
        scored: Scored tokens among them.
        width: Tokens of the longest row.
        users: Users that are trained together.
        form: How the linear layers lie in memory.
        double_quant: Whether NF4's constants are quantised.
        checkpointed: Whether blocks keep their inputs alone.
    """
    numbers = shape.adapter_parameters(rank)
    copies = 2 * _FLOAT + _other(itemsize)  # result, weights, compute copy
    return Plan(
        weights=weight_bytes(shape, itemsize, form, double_quant=double_quant),
        adapters=numbers * (users * copies + _FLOAT),  # and the slot
        optimizer=users * numbers * 5 * _FLOAT,  # gradient, two moments, two on the way
        activations=tokens * token_bytes(shape, itemsize, width, checkpointed=True)
        if checkpointed
        else _activations(shape, itemsize, tokens, scored, width),
        # logits are gone before the first block's backward pass begins
        logits=max(logit_bytes(shape, itemsize, scored), _beside(shape, itemsize, tokens)),
    )


def answering(
    shape: Shape,
    *,
    itemsize: int,
    prompts: int,
    prompt_tokens: int,
    new_tokens: int,
    form: Form = "twin",
    double_quant: bool = False,
) -> Plan:
    """Plan the answering of a batch of prompts.

    Args:
        shape: The network.
        itemsize: Bytes of a number in the compute type.
        prompts: Prompts at once.
        prompt_tokens: Tokens of the longest.
        new_tokens: Tokens written at most.
        form: How the linear layers lie in memory.
        double_quant: Whether NF4's constants are quantised.
    """
    keys = 2 * shape.kv_heads * shape.head_width * itemsize  # and values, of a token and layer
    tokens = prompts * prompt_tokens
    # a layer's inputs, its feed-forward part, and attention's queries with repeated keys and values
    inner = 3 * shape.width + 3 * shape.feed_forward
    return Plan(
        weights=weight_bytes(shape, itemsize, form, double_quant=double_quant),
        activations=tokens * inner * itemsize,
        logits=prompts * shape.vocabulary * (itemsize + 2 * _FLOAT),
        # a step's new keys are joined to the old ones, one layer at a time
        cache=prompts * (prompt_tokens + new_tokens) * keys * (shape.layers + 1),
    )


def weight_bytes(shape: Shape, itemsize: int, form: Form, *, double_quant: bool = False) -> int:
    """Return the bytes of the frozen weights; norms and biases are left out."""
    tables = shape.vocabulary * shape.width * (1 if shape.tied else 2)
    each: float = itemsize
    if form == "nf4":
        each = _NF4_DOUBLE_BYTES if double_quant else _NF4_BYTES
    return int((shape.parameters - tables) * each) + tables * itemsize


def token_bytes(
    shape: Shape, itemsize: int, width: int = NOMINAL_WIDTH, *, checkpointed: bool = False
) -> int:
    """Return the bytes that one token leaves for the backward pass.

    Checkpointed blocks leave their inputs, and one of them has its activations at a time.
    """
    block = sum(_block_bytes(shape, itemsize, width))
    if checkpointed:
        own = shape.width * _FLOAT if itemsize == _FLOAT else 0  # the first norm's is the input
        return shape.layers * shape.width * itemsize + block - own
    return shape.layers * block


def logit_bytes(shape: Shape, itemsize: int, scored: int) -> int:
    """Return the bytes of a chunk's logits: log probabilities and gradients in float32."""
    rows = min(scored, chunk_tokens(shape.vocabulary))
    return rows * shape.vocabulary * (3 * _FLOAT + _other(itemsize))


def shape_of_network(config: Any) -> Shape:
    """Return the shape of a network that is loaded, from its configuration."""
    heads, width = config.num_attention_heads, config.hidden_size
    return Shape(
        layers=config.num_hidden_layers,
        width=width,
        feed_forward=config.intermediate_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None) or width // heads,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
    )


def _activations(shape: Shape, itemsize: int, tokens: int, scored: int, width: int) -> int:
    """Return what a forward pass leaves; the last feed-forward part sees scored tokens alone."""
    attention, forward = _block_bytes(shape, itemsize, width)
    return tokens * (shape.layers * attention + (shape.layers - 1) * forward) + scored * forward


def _block_bytes(shape: Shape, itemsize: int, width: int) -> tuple[int, int]:
    """Return what a token leaves in a block's attention and in its feed-forward part.

    Both: the norm's input in float32, the inputs of the linear layers, dropout's places. Attention:
    queries, keys and values by query heads, and the weights where they are written out. The other:
    gate, its activation and up.
    """
    queries, wide = shape.heads * shape.head_width, shape.feed_forward
    written = shape.heads * width * (_FLOAT + _other(itemsize)) if width <= WRITTEN_WIDTH else 0
    places = [int(8 * _DROPOUT * inputs) for inputs, _ in shape.linear_widths]
    norm = shape.width * _FLOAT
    attention = (shape.width + 4 * queries) * itemsize + norm + written + sum(places[:4])
    forward = (shape.width + 4 * wide) * itemsize + norm + sum(places[4:])
    return attention, forward


def _beside(shape: Shape, itemsize: int, tokens: int) -> int:
    """Return what exists beside the activations while a block's backward pass runs.

    Gradients of the feed-forward part and of the residual stream, and a layer's weight if it is
    made from codes.
    """
    gradients = tokens * (4 * shape.feed_forward + 3 * shape.width) * itemsize
    largest = max(inputs * outputs for inputs, outputs in shape.linear_widths)
    return gradients + largest * itemsize


def _other(itemsize: int) -> int:
    """Return the bytes of a copy in the compute type, where that is not float32."""
    return itemsize if itemsize != _FLOAT else 0
