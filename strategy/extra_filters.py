"""Further filters behind the paper's three: what a classifier or a person objects to.

An rejected_by is written to the candidate, so all arms choose from the same judged candidates; a
candidate that fails one of the three filters counts there and not here.

adversarial  a small classifier learns to tell shared texts from synthetic ones; what it is sure of
             is dropped (the idea of adversarial filtering, Bras et al., ICML 2020)
review       a person marks candidates in a CSV file
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from conf.errors import DataError, RunError
from conf.schema import FiltersConfig
from lamp.records import Pair
from storage import atomic
from storage.hashing import hash_json
from storage.text_files import display_name, read_table, shown, unique_rows
from strategy.filters import Candidate, rejections

ADVERSARIAL = "adversarial"
REVIEW = "review"
UNREVIEWED = "unreviewed"
COLUMNS = ("id", "shared", "input", "response", "keep")
MARKS = {"y": True, "yes": True, "1": True, "n": False, "no": False, "0": False}
FOLDS = 5
FEWEST_TEXTS = 4 * FOLDS  # of each kind; with fewer the classifier says nothing

Candidates = Mapping[str, tuple[Candidate, ...]]
Shared = Mapping[str, Sequence[Pair]]


def with_extra_filters(
    candidates: Candidates, shared: Shared, config: FiltersConfig, seed: int
) -> Candidates:
    """Write the configured further filters' objections to the candidates, the first one counting.

    Raises:
        RunError: If a review file was asked for and is not there; it is written then.
        DataError: If the review file cannot be read.
    """
    if config.adversarial is not None:
        candidates = _sure_of(candidates, shared, config.adversarial, seed)
    if config.review is not None:
        candidates = _reviewed(candidates, shared, config)
    return candidates


def _sure_of(candidates: Candidates, shared: Shared, threshold: float, seed: int) -> Candidates:
    """Object to what a classifier takes for synthetic with at least probability ``threshold``."""
    real = sorted({pair.input for pairs in shared.values() for pair in pairs})
    synthetic = sorted(
        {each.pair.input for own in candidates.values() for each in own if each.pair}
    )
    if min(len(real), len(synthetic)) < FEWEST_TEXTS:
        return candidates
    sure = {
        text
        for text, probability in zip(synthetic, _probabilities(real, synthetic, seed), strict=True)
        if probability >= threshold
    }
    return {
        user: tuple(
            _object(each, ADVERSARIAL) if each.pair and each.pair.input in sure else each
            for each in own
        )
        for user, own in candidates.items()
    }


def _probabilities(real: Sequence[str], synthetic: Sequence[str], seed: int) -> list[float]:
    """P(synthetic) of every synthetic text, from folds that did not see it."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    classifier = make_pipeline(
        CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"\S+"),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    labels = [0] * len(real) + [1] * len(synthetic)
    found = cross_val_predict(
        classifier, [*real, *synthetic], labels, cv=folds, method="predict_proba"
    )
    return [float(each) for each in found[len(real) :, 1]]


def _reviewed(candidates: Candidates, shared: Shared, config: FiltersConfig) -> Candidates:
    """Object to what a person did not want, and to what nobody has looked at."""
    path = Path(config.review or "")
    sources = {user: {pair.id: pair for pair in pairs} for user, pairs in shared.items()}
    if not path.is_file():
        count = _export(path, candidates, sources, config)
        raise RunError(
            f"filters.review: {path.name} was not there and has been written with {count} "
            "candidates; fill its column keep with y or n and run again (nothing is generated anew)"
        )
    marks = _read_marks(path)
    return {
        user: tuple(_judge(each, sources[user], marks) for each in own)
        for user, own in candidates.items()
    }


def _judge(
    candidate: Candidate, sources: Mapping[str, Pair], marks: Mapping[str, bool]
) -> Candidate:
    if candidate.pair is None:
        return candidate
    mark = marks.get(review_id(sources[candidate.source_id], candidate.pair))
    if mark is None:
        return _object(candidate, UNREVIEWED)
    return candidate if mark else _object(candidate, REVIEW)


def review_id(shared: Pair, written: Pair) -> str:
    """What names a candidate in the review file: its content, so marks outlive a run."""
    return hash_json([shared.input, written.input, written.response])


def _export(
    path: Path,
    candidates: Candidates,
    sources: Mapping[str, Mapping[str, Pair]],
    config: FiltersConfig,
) -> int:
    """Write what passes the other filters, each content once, with nothing marked."""
    rows: dict[str, dict[str, str]] = {}
    for user, own in candidates.items():
        for each, reason in zip(own, rejections(own, config), strict=True):
            if each.pair is not None and reason is None:
                shared = sources[user][each.source_id]
                name = review_id(shared, each.pair)
                texts = (name, shared.input, each.pair.input, each.pair.response, "")
                rows[name] = dict(zip(COLUMNS, texts, strict=True))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[name] for name in sorted(rows))
    atomic.write_text(path, buffer.getvalue())
    return len(rows)


def _read_marks(path: Path) -> dict[str, bool]:
    """Read which candidates are kept; rows without a mark are left out.

    Raises:
        DataError: If a column is missing or a mark is neither yes nor no.
    """
    where = display_name(path)
    table = read_table(path, ("id", "keep"), missing="run again to write it anew")
    marks = {}
    for number, row in unique_rows(table, "id", where):
        mark = row["keep"].lower()
        if mark and mark not in MARKS:
            raise DataError(
                f"{where} line {number}, column keep: expected y or n, got {shown(mark)}"
            )
        if mark:
            marks[row["id"]] = MARKS[mark]
    return marks


def _object(candidate: Candidate, reason: str) -> Candidate:
    return candidate if candidate.rejected_by else replace(candidate, rejected_by=reason)
