"""Whether transformers and llama.cpp read one GGUF alike: token ids of texts, logits of prompts.

Both read the same quantised weights. In products llama.cpp rounds activations to 8 bits where
transformers computes in float32, so logits differ a little and near ties fall otherwise. Needs
``make llamacpp``::

    python -m benchmarks.llamacpp_parity <file.gguf> ...
    python -m benchmarks.llamacpp_parity <file.gguf> --golden tests/models/golden/<name>.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measure import Sheet, append
from benchmarks.parity_texts import prompts, texts
from conf.schema import CausalModelConfig
from models import gguf
from models.chat import encode_prompt, encode_text
from models.gguf_header import read_header
from models.llamacpp.runtime import Runtime
from models.loading import load_causal, load_tokenizer

NEXT = 16  # tokens behind a prompt whose logits are compared
CONTEXT = 512
THREADS = 1
Logits = npt.NDArray[np.float32]


def main(argv: Sequence[str]) -> int:
    """Compare, print and append to RESULTS.md; with ``--golden`` write llama.cpp's ids instead."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.llamacpp_parity")
    parser.add_argument("files", nargs="+", type=Path, help="GGUF checkpoints")
    parser.add_argument("--golden", type=Path, help="where to write the first file's ids to")
    arguments = parser.parse_args(argv)
    if arguments.golden:
        write_golden(arguments.files[0], arguments.golden)
        return 0
    sheets = [sheet for file in arguments.files for sheet in compare(file)]
    print(append("llamacpp_parity", sheets))
    return 0


def write_golden(file: Path, target: Path) -> None:
    """Write the texts with the ids that llama.cpp gives them, markup parsed and not."""
    with Runtime(file, threads=1) as runtime:
        rows = [
            {
                "kind": each.kind,
                "text": each.text,
                "ids": runtime.tokenize(each.text, control=True),
                "plain_ids": runtime.tokenize(each.text, control=False),
            }
            for each in texts()
        ]
    for row in rows:
        if row["plain_ids"] == row["ids"]:
            del row["plain_ids"]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    target.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def compare(file: Path) -> list[Sheet]:
    """Compare one file's tokenizer and network."""
    with TemporaryDirectory() as folder:
        gguf.convert(read_header(file), Path(folder), "float32", lambda _: None)
        tokenizer = load_tokenizer(folder)
        model = load_causal(CausalModelConfig(path=folder, dtype="float32"))
    with Runtime(file, threads=THREADS) as runtime:
        return [_ids(file, tokenizer, runtime), _logits(file, tokenizer, model, runtime)]


def _ids(file: Path, tokenizer: Any, runtime: Runtime) -> Sheet:
    kinds = dict.fromkeys(each.kind for each in texts())
    rows, odd = [], list[str]()
    for kind in kinds:
        chosen = [each.text for each in texts() if each.kind == kind]
        cells = [kind, str(len(chosen))]
        for control in (True, False):
            wrong = [text for text in chosen if not _same_ids(tokenizer, runtime, text, control)]
            odd += wrong
            cells.append(str(len(chosen) - len(wrong)))
        rows.append(tuple(cells))
    notes = (
        f"Other ids: {', '.join(map(repr, dict.fromkeys(odd)))}" if odd else "All ids are equal."
    )
    heads = ("texts", "number", "equal ids, markup parsed", "equal ids, markup as text")
    return Sheet(f"Token ids, {file.name}.", heads, tuple(rows), notes)


def _same_ids(tokenizer: Any, runtime: Runtime, text: str, control: bool) -> bool:
    ours = (
        tokenizer.encode(text, add_special_tokens=False)
        if control
        else encode_text(tokenizer, text)
    )
    return bool(ours == runtime.tokenize(text, control=control))


@torch.inference_mode()
def _logits(file: Path, tokenizer: Any, model: Any, runtime: Runtime) -> Sheet:
    """Teacher-forced on what llama.cpp itself continues each prompt with."""
    same, divergences, furthest, compared = 0, list[float](), 0.0, 0
    for ids, start in _continued(tokenizer, runtime):
        theirs = _log_softmax(runtime.logits(ids, start))
        ours = _log_softmax(model(torch.tensor([ids])).logits[0, start:].numpy())
        chosen = theirs.argmax(axis=1)
        same += int((ours.argmax(axis=1) == chosen).sum())
        compared += len(theirs)
        divergences += (np.exp(ours) * (ours - theirs)).sum(axis=1).tolist()
        at = np.arange(len(theirs))
        furthest = max(furthest, float(np.abs(ours[at, chosen] - theirs[at, chosen]).max()))
    heads = ("prompts", "positions", "same argmax", "KL, mean", "KL, largest", "furthest log p")
    row = (
        str(len(prompts())),
        str(compared),
        f"{same / compared:.1%}",
        f"{np.mean(divergences):.1e}",
        f"{max(divergences):.1e}",
        f"{furthest:.2f}",
    )
    notes = (
        f"{NEXT} tokens behind each prompt, as llama.cpp continues it. KL from transformers "
        "in nats; furthest: log probability of llama.cpp's choice, in nats."
    )
    return Sheet(f"Logits, {file.name}, transformers in float32.", heads, (row,), notes)


def _continued(tokenizer: Any, runtime: Runtime) -> Iterator[tuple[list[int], int]]:
    """Each prompt with its continuation, and where the first compared logits stand."""
    for prompt in prompts():
        ids = encode_prompt(tokenizer, prompt, None, CONTEXT - NEXT)
        written = runtime.greedy(ids, NEXT, stops=())
        yield [*ids, *written.ids[:-1]], len(ids) - 1


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = torch.log_softmax(
        torch.from_numpy(logits).double(), dim=-1
    ).numpy()
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
