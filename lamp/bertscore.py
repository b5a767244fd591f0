"""BERTScore F1 with an encoder, local or from the hub; without one the tables say 'n/a'.

LaMP and OPPU do not have this metric and CDCDA-PLM does not name its model, so model and layer are
part of the result: :attr:`BertScore.description`. No idf weights, no rescaling. The matching is
bert-score's own; model and tokenizer are loaded here, because bert-score 0.3.13 under
transformers 5 stops at an empty text and at a tokenizer without a length limit, silently drops
RoBERTa's leading blank, and takes every path with "t5" in it for a T5.
"""

from __future__ import annotations

import logging
import re
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
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class BertScore:
    """One loaded scorer; make it once per process.

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

    def score(
        self, predictions: Sequence[str], golds: Sequence[str], batch_size: int = 32
    ) -> list[float]:
        """Score texts against their gold answers, white space around them left out.

        Args:
            predictions: Texts to score.
            golds: As many gold answers.
            batch_size: Texts encoded at once.

        Returns:
            F1 per pair, 1.0 for equal texts; 0.0 where either text is blank, as bert-score has it.
        """
        pairs = [
            (text.strip(), gold.strip()) for text, gold in zip(predictions, golds, strict=True)
        ]
        filled = [index for index, pair in enumerate(pairs) if all(pair)]
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


def load_bertscore(path: str, device: str | None = None) -> BertScore:
    """Load the scorer of a folder in Hugging Face layout, or of a name on the hub.

    The layer is the one that bert-score's authors chose for the model, found by the last part of
    its name ("roberta-large" has layer 17); an unknown one is scored at its last layer. Code that a
    checkpoint brings is never run.

    Args:
        path: Folder, or hub name "owner/name".
        device: Torch device; None takes a GPU where this process sees one.

    Raises:
        ModelError: If it is no encoder with configuration, weights and tokenizer.
    """
    import torch
    from transformers import AutoModel

    source = _source(path)
    config = _config(source)
    name, layers = source.rpartition("/")[2], int(config.num_hidden_layers)
    layer = min(_tuned_layers().get(name, layers), layers)
    with _quiet():  # the layers above the scored one are left out on purpose, and reported each
        model = _from_pretrained(AutoModel, source, num_hidden_layers=layer, dtype="float32")
    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    return BertScore(
        model=model.to(device).eval(),
        tokenizer=_tokenizer(source, config),
        device=device,
        description=f"bert-score {version('bert-score')}, {name}, layer {layer} of {layers}, "
        "no idf, no rescaling",
    )


def check_source(path: str) -> None:
    """Check without loading weights that ``path`` is an encoder's folder, or its name on the hub.

    Raises:
        ModelError: If configuration, weights or tokenizer are missing, or the hub has no such name.
    """
    source = _source(path)
    if not Path(source).is_dir():
        _config(source)


def _source(path: str) -> str:
    """The folder, with all that is needed, or the name on the hub."""
    folder = Path(path).expanduser()
    if not folder.is_dir() and _HUB_NAME.fullmatch(path):
        return path
    _check_folder(folder)
    return str(folder)


def _config(source: str) -> Any:
    from transformers import AutoConfig

    config = _from_pretrained(AutoConfig, source)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{_OPTION}: expected an encoder such as roberta-large in '{_shown(source)}', "
            f"got the encoder-decoder type '{config.model_type}'; choose another model"
        )
    return config


def _check_folder(path: Path) -> None:
    needed = {"config.json": ("config.json",), "weights": _WEIGHTS, "a tokenizer": ("token*.json",)}
    for what, patterns in needed.items():
        if not any(any(path.glob(pattern)) for pattern in patterns):
            raise ModelError(
                f"{_OPTION}: expected {what} in the folder '{path.name}', there is none; give a "
                "folder in Hugging Face layout, a hub name, or null to report 'n/a'"
            )


def _from_pretrained(kind: Any, source: str, **settings: Any) -> Any:
    try:
        return kind.from_pretrained(source, local_files_only=Path(source).is_dir(), **settings)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{_OPTION}: expected an encoder in '{_shown(source)}', got {type(error).__name__}: "
            f"{_first_line(error)}; give a folder in Hugging Face layout, a "
            "hub name that can be reached, or null to report 'n/a'"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _shown(source: str) -> str:
    """A folder by its name, a hub name as it is."""
    return Path(source).name if Path(source).is_dir() else source


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


def _tokenizer(source: str, config: Any) -> Any:
    from transformers import AutoTokenizer

    # bert-score means RoBERTa's first word to have its leading blank, as within a sentence
    options = {"add_prefix_space": True} if config.model_type == "roberta" else {}
    tokenizer = _from_pretrained(AutoTokenizer, source, **options)
    # RoBERTa counts positions from the padding index on
    reserved = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    limit = config.max_position_embeddings - reserved
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
    return tokenizer
