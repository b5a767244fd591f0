"""LaMP's metrics, to the last bit: a score per query, pooled over the queries of all users.

Source: LaMP ``eval/evaluation.py`` (38c9d4d), re-implemented on scikit-learn and rouge-score.
Answers are stripped and compared case by case; an answer outside the label set is index -1, wrong
and no class of the macro-F1; an unreadable rating scores the far end of the scale. Two deviations:
"nan" and "inf" are unreadable, and the headline ROUGE is the plain mean of the queries.

LaMP's ROUGE sees a-z and 0-9 only. Gold answers in another script are scored a second time, on
Unicode tokens (:mod:`lamp.scripts`); that score stands beside LaMP's and enters no other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from conf.errors import DataError
from conf.seeds import derive_seed
from lamp.scripts import is_latin, tokens
from lamp.tasks import Task

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

UNPARSED = -1
LOWEST_STARS, HIGHEST_STARS = 1.0, 5.0
COMPAT_RESAMPLES = 1000
TEXT_METRICS = ("rouge1", "rougeL", "bertscore")
QUERY_COUNT, UNICODE_COUNT = 0, 6  # places in the sums of texts

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class QueryScore:
    """What one answer scored; numbers only, so that it may leave the device.

    Attributes:
        parsed: Whether the answer could be read: a label of the set, a finite number of stars, a
            text that is not blank.
        gold: Index of the gold label; None for ratings and texts.
        prediction: Index of the predicted label, -1 outside the set; None for ratings and texts.
        error: Predicted minus gold stars.
        rouge1: ROUGE-1 F-measure.
        rougeL: ROUGE-L F-measure.
        bertscore: BERTScore F1; None without a model.
        unicode_rouge1: ROUGE-1 F-measure on Unicode tokens; None where LaMP's sees the gold answer.
    """

    parsed: bool
    gold: int | None = None
    prediction: int | None = None
    error: float | None = None
    rouge1: float | None = None
    rougeL: float | None = None  # noqa: N815 - the metric's own name
    bertscore: float | None = None
    unicode_rouge1: float | None = None


def score_query(task: Task, prediction: str, gold: str) -> QueryScore:
    """Score one answer, without BERTScore, which is made of many at once (:mod:`lamp.bertscore`).

    Args:
        task: Task that says what is scored.
        prediction: Raw answer.
        gold: Official answer.
    """
    prediction, gold = prediction.strip(), gold.strip()
    if task.kind == "classification":
        index = label_index(task, prediction)
        return QueryScore(index != UNPARSED, gold=label_index(task, gold), prediction=index)
    if task.kind == "rating":
        stars = read_stars(prediction)
        target = float(gold)
        error = (worst_stars(target) if stars is None else stars) - target
        return QueryScore(stars is not None, error=error)
    rouge = _scorer("rouge1", "rougeL").score(target=gold, prediction=prediction)
    return QueryScore(
        bool(prediction),
        rouge1=float(rouge["rouge1"].fmeasure),
        rougeL=float(rouge["rougeL"].fmeasure),
        unicode_rouge1=None if is_latin(gold) else rouge1(prediction, gold),
    )


def rouge1(text: str, other: str) -> float:
    """Return the ROUGE-1 F-measure of two texts, without stemming.

    The tokens are LaMP's, or Unicode's where ``other`` is of another script than Latin.
    """
    return _rouge("rouge1", text, other)


def rouge_l(text: str, other: str) -> float:
    """Return the ROUGE-L F-measure of two texts; as :func:`rouge1`."""
    return _rouge("rougeL", text, other)


def _rouge(kind: str, text: str, other: str) -> float:
    scorer = _scorer(kind) if is_latin(other) else _unicode_scorer(kind)
    return float(scorer.score(target=other, prediction=text)[kind].fmeasure)


def label_index(task: Task, answer: str) -> int:
    """Return the index of ``answer`` among the task's labels, letter for letter; else -1."""
    return task.labels.index(answer) if answer in task.labels else UNPARSED


def read_stars(answer: str) -> float | None:
    """Read a number of stars as ``float`` does: "4.0", "1e1" and "7" are taken as they stand.

    Deviation: LaMP also accepts "nan", which makes scikit-learn stop, and "inf", which makes the
    mean infinite; here they are unreadable.
    """
    try:
        stars = float(answer)
    except ValueError:
        return None
    return stars if math.isfinite(stars) else None


def is_answer(task: Task, text: str) -> bool:
    """Whether ``text`` may be a gold answer: a label, LaMP's stars, or any text but white space."""
    answer = text.strip()
    if task.kind == "classification":
        return answer in task.labels
    if task.kind == "rating":
        stars = read_stars(answer)
        return stars is not None and LOWEST_STARS <= stars <= HIGHEST_STARS
    return bool(answer)


def worst_stars(gold: float) -> float:
    """Return the end of the scale that is farther from ``gold``; 5 from the middle."""
    if abs(LOWEST_STARS - gold) > abs(HIGHEST_STARS - gold):
        return LOWEST_STARS
    return HIGHEST_STARS


def headline(task: Task) -> tuple[str, bool]:
    """Return the metric that stands first in tables, and whether higher is better."""
    return {
        "classification": ("accuracy", True),
        "rating": ("mae", False),
        "text": ("rouge1", True),
    }[task.kind]


def pooled_metrics(task: Task, scores: Sequence[QueryScore], seed: int) -> dict[str, float]:
    """Pool the scores of all queries of all users; there is no averaging per user.

    Args:
        task: Task of the scores.
        scores: One per query, in the order of the gold file.
        seed: Of the bootstrap behind the ``lamp_compat_*`` values.

    Returns:
        ``accuracy`` and ``f1``; or ``mae`` and ``rmse``; or ``rouge1``, ``rougeL``,
        ``lamp_compat_rouge1``, ``lamp_compat_rougeL`` and, when every query has one,
        ``bertscore``; ``unicode_rouge1`` over the queries that have one, if any. Always
        ``parse_failure_rate``, which is not LaMP's.

    Raises:
        DataError: If there are no scores.
    """
    if not scores:
        raise DataError(
            f"metrics of {task.name}: expected scored queries, got none; "
            "check evaluation.exclude_contaminated and the failures of the run"
        )
    failures = sum(not score.parsed for score in scores) / len(scores)
    if task.kind == "classification":
        pooled = _pool_labels(len(task.labels), scores)
    elif task.kind == "rating":
        pooled = _pool_errors(scores)
    else:
        pooled = _pool_texts(scores, seed)
    return {**pooled, "parse_failure_rate": failures}


def sums(task: Task, scores: Sequence[QueryScore]) -> FloatArray:
    """Add up what the pooled metrics need; sums of users can be added, weighted and resampled.

    Returns:
        (D,) float64: number of queries, number unparsed, and then, by kind of task: correct, and
        per label true positives, golds, predictions; or |error| and error squared; or ROUGE-1,
        ROUGE-L, BERTScore (nan without a model), ROUGE-1 on Unicode tokens and how many queries
        have one.
    """
    width = sums_width(task)
    table = [_summands(len(task.labels), score) for score in scores]
    summed: FloatArray = np.reshape(table, (len(table), width)).sum(axis=0, dtype=np.float64)
    return summed


def sums_width(task: Task) -> int:
    """Length D of what :func:`sums` gives."""
    return {"classification": 3 + 3 * len(task.labels), "rating": 4, "text": 7}[task.kind]


def metrics_of_sums(task: Task, totals: FloatArray) -> dict[str, FloatArray]:
    """Compute the pooled metrics from sums; equal to :func:`pooled_metrics` up to rounding.

    Args:
        task: Task of the sums.
        totals: (..., D), as :func:`sums` gives them, added over users.

    Returns:
        Each metric but ``lamp_compat_*``, of shape (...); 0/0 is nan. ``bertscore`` and
        ``unicode_rouge1`` are left out where their sums are nan, which is where somebody does not
        tell them.
    """
    count, unparsed, *rest = np.moveaxis(totals, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        if task.kind == "classification":
            hits, golds, predicted = np.asarray(rest[1:]).reshape(3, len(task.labels), *count.shape)
            seen = golds + predicted
            f1 = np.divide(2 * hits, seen, out=np.zeros_like(hits), where=seen > 0)
            macro = np.where(count > 0, f1.mean(axis=0), np.nan)
            found = {"accuracy": rest[0] / count, "f1": macro}
        elif task.kind == "rating":
            found = {"mae": rest[0] / count, "rmse": np.sqrt(rest[1] / count)}
        else:
            *texts, unicode, scored = rest
            found = {name: total / count for name, total in zip(TEXT_METRICS, texts, strict=True)}
            if np.isnan(texts[-1]).any():
                del found["bertscore"]
            if not np.isnan(scored).any():
                found["unicode_rouge1"] = unicode / scored
        return {**found, "parse_failure_rate": unparsed / count}


def _pool_labels(num_labels: int, scores: Sequence[QueryScore]) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    golds = [score.gold for score in scores]
    predictions = [score.prediction for score in scores]
    # zero_division=0 is what LaMP's default gives, without its warning
    f1 = f1_score(golds, predictions, labels=range(num_labels), average="macro", zero_division=0.0)
    return {"accuracy": float(accuracy_score(golds, predictions)), "f1": float(f1)}


def _pool_errors(scores: Sequence[QueryScore]) -> dict[str, float]:
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    errors = [score.error for score in scores]
    targets = [0.0] * len(errors)  # |0 - error| has the bits of |gold - prediction|
    with np.errstate(over="ignore"):  # an answer like "1e200" is a number, and is not clipped
        squared = mean_squared_error(targets, errors)
    # LaMP's squared=False has left scikit-learn; it was this root
    return {"mae": float(mean_absolute_error(targets, errors)), "rmse": float(np.sqrt(squared))}


def _pool_texts(scores: Sequence[QueryScore], seed: int) -> dict[str, float]:
    pooled = {}
    for name in TEXT_METRICS:
        values = [value for score in scores if (value := getattr(score, name)) is not None]
        if len(values) == len(scores):
            pooled[name] = math.fsum(values) / len(values)
    unicode = [each.unicode_rouge1 for each in scores if each.unicode_rouge1 is not None]
    if unicode:
        pooled["unicode_rouge1"] = math.fsum(unicode) / len(unicode)
    for name in ("rouge1", "rougeL"):
        values = [getattr(score, name) for score in scores]
        pooled[f"lamp_compat_{name}"] = bootstrap_mid(values, derive_seed(seed, "lamp", name))
    return pooled


def bootstrap_mid(values: Sequence[float], seed: int) -> float:
    """Return what LaMP reports as ROUGE: the median of 1,000 bootstrap means, here with a seed.

    Source: rouge-score 0.1.2 ``BootstrapAggregator``, whose "mid" is no mean, with the legacy
    generator that it draws from: the same seed there and here gives the same bits.
    """
    random = np.random.RandomState(seed % 2**32)
    # (N, 2): numpy adds the rows of a matrix one by one, as in the original; a single column would
    # be added pairwise, with other last bits
    matrix = np.repeat(np.asarray(values, dtype=np.float64)[:, None], 2, axis=1)
    means = [
        matrix[random.choice(len(matrix), size=len(matrix))].mean(axis=0)
        for _ in range(COMPAT_RESAMPLES)
    ]
    return float(np.percentile(means, 50, axis=0)[0])


def _summands(num_labels: int, score: QueryScore) -> list[float]:
    common = [1.0, float(not score.parsed)]
    if score.gold is not None:
        gold, prediction = score.gold, score.prediction
        labels = range(num_labels)
        hits = [float(gold == label == prediction) for label in labels]
        golds = [float(gold == label) for label in labels]
        predicted = [float(prediction == label) for label in labels]
        return [*common, float(gold == prediction), *hits, *golds, *predicted]
    if score.error is not None:
        return [*common, abs(score.error), score.error * score.error]
    texts = [getattr(score, name) for name in TEXT_METRICS]
    unicode = score.unicode_rouge1
    beside = (0.0, 0.0) if unicode is None else (unicode, 1.0)
    return [*common, *(math.nan if value is None else value for value in texts), *beside]


@cache
def _scorer(*kinds: str) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # brings nltk, scikit-learn and pandas

    return RougeScorer(kinds, use_stemmer=False)


class _UnicodeTokenizer:
    """What a RougeScorer takes in the place of its own tokens."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


@cache
def _unicode_scorer(kind: str) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer((kind,), tokenizer=_UnicodeTokenizer())
