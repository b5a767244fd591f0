"""BERTScore F1 with a local encoder; without one the tables say 'n/a'.

LaMP and OPPU do not have this metric and CDCDA-PLM does not name its model, so model and layer are
part of the result: :attr:`BertScore.description`. No idf weights, no rescaling. The matching is
bert-score's own; model and tokenizer are loaded here, because bert-score 0.3.13 under
transformers 5 stops at an empty text and at a tokenizer without a length limit, silently drops
RoBERTa's leading blank, and takes every path with "t5" in it for a T5.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conf.errors import ModelError

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_OPTION = "evaluation.bertscore"


@dataclass(frozen=True)
class BertScore:
    """One loaded scorer; make it once per process and call it with (prediction, gold).

    Attributes:
        model: Encoder cut after the scored layer, in float32.
        tokenizer: Its tokenizer, with a length limit.
        device: Torch device of the model.
        description: Model, layer and settings, for the manifest of a run.
    """

    model: Any
    tokenizer: Any
    device: str
    description: str

    def __call__(self, prediction: str, gold: str) -> float:
        """Score one text against its gold answer; see :meth:`score`."""
        return self.score([prediction], [gold])[0]

    def score(
        self, predictions: Sequence[str], golds: Sequence[str], batch_size: int = 32
    ) -> list[float]:
        """Score texts against their gold answers.

        Args:
            predictions: Texts to score.
            golds: As many gold answers.
            batch_size: Texts encoded at once.

        Returns:
            F1 per pair, 1.0 for equal texts; 0.0 where either text is blank, as bert-score has it.
        """
        pairs = list(zip(predictions, golds, strict=True))
        filled = [index for index, pair in enumerate(pairs) if all(map(str.strip, pair))]
        scores = [0.0] * len(pairs)
        if filled:
            found = self._f1([pairs[index] for index in filled], batch_size)
            for index, value in zip(filled, found, strict=True):
                scores[index] = value
        return scores

    def _f1(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> list[float]:
        from bert_score.utils import bert_cos_score_idf

        weights: defaultdict[int, float] = defaultdict(lambda: 1.0)
        weights[self.tokenizer.cls_token_id] = weights[self.tokenizer.sep_token_id] = 0.0
        predictions, golds = map(list, zip(*pairs, strict=True))
        found = bert_cos_score_idf(
            self.model,
            golds,
            predictions,
            self.tokenizer,
            weights,
            batch_size=batch_size,
            device=self.device,
        )  # (N, 3): precision, recall, F1
        return [float(value) for value in found[:, 2]]


def load_bertscore(folder: str | None, device: str = "cpu") -> BertScore | None:
    """Load the scorer of a local folder in Hugging Face layout; None for None.

    The layer is the one that bert-score's authors chose for the model, found by the folder's name
    ("roberta-large" has layer 17); a folder with an unknown name is scored at its last layer.

    Raises:
        ModelError: If the folder is no encoder with configuration, weights and tokenizer.
    """
    if folder is None:
        return None
    path = Path(folder).expanduser()
    check_folder(path)
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(path, local_files_only=True)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{_OPTION}: expected an encoder such as roberta-large in '{path.name}', "
            f"got the encoder-decoder type '{config.model_type}'; choose another model"
        )
    layers: int = config.num_hidden_layers
    layer = min(_tuned_layers().get(path.name, layers), layers)
    with _quiet():  # the layers above the scored one are left out on purpose, and reported each
        model = AutoModel.from_pretrained(
            path, num_hidden_layers=layer, dtype="float32", local_files_only=True
        )
    return BertScore(
        model=model.to(device).eval(),
        tokenizer=_tokenizer(path, config),
        device=device,
        description=f"bert-score {version('bert-score')}, {path.name}, layer {layer} of {layers}, "
        "no idf, no rescaling",
    )


def check_folder(path: Path) -> None:
    """Check without loading anything that ``path`` can be an encoder's folder.

    Raises:
        ModelError: If configuration, weights or tokenizer are missing.
    """
    needed = {"config.json": ("config.json",), "weights": _WEIGHTS, "a tokenizer": ("token*.json",)}
    for what, patterns in needed.items():
        if not any(any(path.glob(pattern)) for pattern in patterns):
            raise ModelError(
                f"{_OPTION}: expected {what} in the folder '{path.name}', there is none; give a "
                "local folder in Hugging Face layout, or null to report 'n/a'"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils.logging import get_verbosity, set_verbosity

    level = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(level)


def _tuned_layers() -> dict[str, int]:
    from bert_score.utils import model2layers

    return {name.rpartition("/")[2]: layer for name, layer in model2layers.items()}


def _tokenizer(path: Path, config: Any) -> Any:
    from transformers import AutoTokenizer

    # bert-score means RoBERTa's first word to have its leading blank, as within a sentence
    options = {"add_prefix_space": True} if config.model_type == "roberta" else {}
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, **options)
    # RoBERTa counts positions from the padding index on
    reserved = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    limit = config.max_position_embeddings - reserved
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
    return tokenizer
