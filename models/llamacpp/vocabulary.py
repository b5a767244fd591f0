"""A Hugging Face tokenizer as a GGUF holds it: every token with its kind, merges, chat template."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gguf import GGUFWriter, TokenType

from conf.errors import ModelError
from models.chat import pad_id, turn_parts
from models.llamacpp.pretokenizers import name_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODEL = "gpt2"  # llama.cpp's name for byte-level BPE


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What of a tokenizer enters a GGUF.

    Attributes:
        tokens: Text of each row of the embedding, in byte-level letters.
        types: Kind of each: control tokens are no text, user-defined ones always match whole.
        merges: BPE merges, first ones first, their two parts apart by a space.
        pre: llama.cpp's name of the pre-tokenizer.
        end_of_turn: Id that ends a reply.
        pad: Id that fills batches.
        bos: Id that the tokenizer names as the first of a text; it is never put there by itself.
        chat_template: Jinja source.
    """

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    pre: str
    end_of_turn: int
    pad: int
    bos: int | None
    chat_template: str


def vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
    """Read a tokenizer.

    Args:
        tokenizer: Byte-level BPE with a chat template.
        rows: Rows of the model's embedding; those beyond the tokenizer become unused tokens.

    Raises:
        ModelError: If it is of another kind, puts tokens around every text, or has more tokens
            than the model has rows.
    """
    backend: Any = tokenizer.backend_tokenizer
    bpe = json.loads(backend.to_str())["model"]
    if bpe["type"] != "BPE" or tokenizer.encode("", add_special_tokens=True):
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path}: expected byte-level BPE that adds no token of "
            f"its own to a text, got {bpe['type']}; this tokenizer cannot be exported"
        )
    if len(tokenizer) > rows:
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path}: expected at most the model's {rows} tokens, "
            f"got {len(tokenizer)}; use the checkpoint's own tokenizer"
        )
    tokens = [f"[PAD{row}]" for row in range(rows)]
    types = [int(TokenType.UNUSED)] * rows
    for text, row in tokenizer.get_vocab().items():
        tokens[row], types[row] = text, int(TokenType.NORMAL)
    for row, token in tokenizer.added_tokens_decoder.items():
        types[row] = int(TokenType.CONTROL if token.special else TokenType.USER_DEFINED)
    return Vocabulary(
        tokens=tuple(tokens),
        types=tuple(types),
        merges=tuple(" ".join(pair) for pair in bpe["merges"]),
        pre=name_of(tokenizer),
        end_of_turn=turn_parts(tokenizer, None).end_of_turn,
        pad=pad_id(tokenizer),
        bos=tokenizer.bos_token_id,
        chat_template=str(tokenizer.chat_template),
    )


def add(writer: GGUFWriter, found: Vocabulary) -> None:
    """Write the vocabulary's fields."""
    writer.add_tokenizer_model(MODEL)
    writer.add_tokenizer_pre(found.pre)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.types)
    writer.add_token_merges(found.merges)
    writer.add_eos_token_id(found.end_of_turn)
    writer.add_pad_token_id(found.pad)
    if found.bos is not None:
        writer.add_bos_token_id(found.bos)
    writer.add_add_bos_token(False)
    writer.add_chat_template(found.chat_template)
