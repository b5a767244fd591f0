"""Training a small NLI encoder from scratch, on the world's own pairs or on a file of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import processors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from conf.schema import BuildConfig, TransformerSize
from conf.seeds import derive_seed
from lamp import world
from lamp.world.grammar import Label
from models.miniature.batches import by_length
from models.miniature.causal import INITIAL_SPREAD, check_heads
from models.miniature.optimise import StepDone, fit
from models.miniature.tokenizer import END_OF_TEXT, TURN_END, TURN_START
from models.nli_pairs import NliPair, read_nli

MAX_TOKENS = 256
POOL = 600
HELD_OUT_PAIRS = 600
# Positions start small, so that attention first finds equal words wherever they stand.
POSITION_SPREAD = 0.2
# Premise and hypothesis stand so far apart that a token looks for its like on the other side.
SIDE_SPREAD = 0.5
FIRST_ATTENTION = "bert.encoder.layer.0.attention"
# The encoder wants larger steps inside than the language models do: .02 against .009.
MUON_PER_ADAM = 20.0
# One line in so many of an NLI file is held out.
HELD_OUT_EVERY = 10

Source = Callable[[int, int, float], Sequence[NliPair]]  # (seed, n, share of training done)
# From easy to hard: (until this share of training, words exchanged, facts at most). Equal words
# come first, then synonyms, then both among several facts; all at once is not learned in minutes.
LESSONS = ((0.1, 0.0, 1), (0.3, 0.6, 1), (0.4, 0.6, 2), (1.0, 0.5, 100))


def nli_source(
    config: BuildConfig, texts: Sequence[str], held_out: Sequence[str]
) -> tuple[Source, tuple[NliPair, ...]]:
    """Where the training pairs come from, and the held-out pairs.

    Raises:
        ConfigError: If no file is given and the texts are not of the miniature world.
        DataError: If the file cannot be read.
    """
    if config.nli_data is None:
        seed = derive_seed(config.seed, "nli", "held out")
        tested = tuple(world.nli_pairs(held_out, seed, HELD_OUT_PAIRS))
        return _world_source(texts), tested
    pairs = read_nli(Path(config.nli_data).expanduser())
    tested = tuple(pairs[::HELD_OUT_EVERY])[:HELD_OUT_PAIRS]
    learned = [pair for i, pair in enumerate(pairs) if i % HELD_OUT_EVERY] or list(pairs)
    return lambda seed, n, _: random.Random(seed).choices(learned, k=n), tested


def _world_source(texts: Sequence[str]) -> Source:
    def pairs(seed: int, n: int, progress: float) -> Sequence[NliPair]:
        _, word_share, most_facts = next(
            (lesson for lesson in LESSONS if progress < lesson[0]), LESSONS[-1]
        )
        return world.nli_pairs(texts, seed, n, word_share, most_facts)

    return pairs


def nli_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same vocabulary with BERT's form of a pair: [CLS] premise [SEP] hypothesis [SEP]."""
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single=f"{TURN_START} $A {TURN_END}",
        pair=f"{TURN_START}:0 $A:0 {TURN_END}:0 $B:1 {TURN_END}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (TURN_START, TURN_END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        cls_token=TURN_START,
        sep_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def new_nli(
    size: TransformerSize,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
) -> BertForSequenceClassification:
    """An encoder with random weights, made so that it finds equal words at once.

    Args:
        size: Size of the encoder.
        tokenizer: Tokenizer of :func:`nli_tokenizer`.
        seed: Seed of the weights.

    Raises:
        ConfigError: If the heads do not divide the width.
    """
    check_heads("nli", size)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.feed_forward,
        max_position_embeddings=MAX_TOKENS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=INITIAL_SPREAD,
        pad_token_id=tokenizer.pad_token_id,
        id2label={i: str(label) for i, label in enumerate(world.LABELS)},
        label2id={str(label): i for i, label in enumerate(world.LABELS)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config)
        _favour_equal_words(model)
    return model


@torch.no_grad()
def _favour_equal_words(model: BertForSequenceClassification) -> None:
    """Start with what training would have to find first: which words have their like.

    A token attends to what is like it on the other side: keys are the queries, mirrored along the
    direction that tells premise from hypothesis. The first layer takes away what it finds there,
    so that of a matched word only the side remains.
    """
    model.bert.embeddings.position_embeddings.weight.mul_(POSITION_SPREAD)
    kinds = model.bert.embeddings.token_type_embeddings.weight  # (2, width): premise, hypothesis
    width = kinds.shape[1]
    side = nn.functional.normalize(torch.randn(width), dim=0)
    kinds[0], kinds[1] = SIDE_SPREAD * side, -SIDE_SPREAD * side
    weights = dict(model.named_parameters())
    for name in weights:
        if name.endswith("self.key.weight"):
            query = weights[name.replace("key", "query")]
            weights[name].copy_(query - 2 * torch.outer(query @ side, side))
    turn, _ = torch.linalg.qr(torch.randn(width, width))
    weights[f"{FIRST_ATTENTION}.self.value.weight"].copy_(turn)
    weights[f"{FIRST_ATTENTION}.output.dense.weight"].copy_(-turn.T)


def train_nli(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    source: Source,
    config: BuildConfig,
    on_step: StepDone,
) -> tuple[float, ...]:
    """Train ``model`` in float32. Returns one loss per step."""
    done = [0]
    batches = _batches(tokenizer, source, config, lambda: done[0] / config.nli_steps)
    model.train()

    def step_done(step: int) -> None:
        done[0] = step
        on_step(step)

    def next_loss() -> Tensor:
        inputs, labels = next(batches)
        return cross_entropy(model(**inputs).logits, labels)

    losses = fit(
        model, next_loss, config.nli_steps, config.nli_learning_rate, step_done, MUON_PER_ADAM
    )
    model.eval()
    return losses


Row = tuple[dict[str, list[int]], Label]  # token ids, types and mask of a pair; its label
Batch = tuple[dict[str, Tensor], Tensor]


def _batches(
    tokenizer: PreTrainedTokenizerFast,
    source: Source,
    config: BuildConfig,
    progress: Callable[[], float],
) -> Iterator[Batch]:
    """Yield batches of at most ``tokens_per_batch`` padded tokens, of pairs of similar length."""
    rng = random.Random(derive_seed(config.seed, "nli", "batches"))
    while True:
        rows = _rows(tokenizer, source(rng.getrandbits(32), POOL, progress()))
        groups = by_length(rows, _length, config.tokens_per_batch)
        rng.shuffle(groups)
        yield from (_padded(tokenizer, group) for group in groups)


def _rows(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[NliPair]) -> list[Row]:
    premises = [premise for premise, _, _ in pairs]
    hypotheses = [hypothesis for _, hypothesis, _ in pairs]
    encoded = tokenizer(premises, hypotheses, truncation=True)
    names = list(encoded)
    return [
        ({name: encoded[name][i] for name in names}, label) for i, (_, _, label) in enumerate(pairs)
    ]


def _length(row: Row) -> int:
    return len(row[0]["input_ids"])


def _padded(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> Batch:
    """Tensors of shape (B, T), int64, and labels of shape (B,)."""
    inputs = tokenizer.pad([inputs for inputs, _ in rows], return_tensors="pt")
    return dict(inputs), torch.tensor([world.LABELS.index(label) for _, label in rows])


@torch.inference_mode()
def accuracy(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[NliPair],
    config: BuildConfig,
) -> dict[str, float]:
    """Share of right labels, in all and for each label."""
    hits: dict[str, list[bool]] = {label: [] for label in world.LABELS}
    for group in by_length(_rows(tokenizer, pairs), _length, config.tokens_per_batch):
        inputs, labels = _padded(tokenizer, group)
        right = (model(**inputs).logits.argmax(-1) == labels).tolist()
        for (_, label), hit in zip(group, right, strict=True):
            hits[label].append(hit)
    shares = {label: sum(found) / len(found) for label, found in hits.items() if found}
    return {"accuracy": sum(map(sum, hits.values())) / len(pairs), **shares}
