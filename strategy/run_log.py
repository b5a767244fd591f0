"""What the server writes into the run folder while it runs: JSON lines, flushed, one file per kind.

A line is written when its reply arrives, so a run that was ended at any moment knows what it has:
an adaptation or an answer counts as done when it stands here under the key of what it was made
from. Whatever is not done is done again by ``python -m sim resume``.

rounds.jsonl        one line per arm and phase, with seconds
adaptations.jsonl   what each adapter's training took
answers.jsonl       numbers per query (or per user, with disclose=sums)
shares.jsonl        per user: records sent, spans redacted in them
augmentation.jsonl  per user and arm: shared, generated, kept, rejected by reason
filter_scores.jsonl per candidate: what the filters judge it by, without texts
candidates.jsonl    what the cloud wrote, with all scores; only with ``augmenter.save``
diagnosis.jsonl     per arm: variety and truth of what was kept and rejected
failures.jsonl      messages without a good reply, of the last process that worked on the run
ledger.jsonl        everything that crossed the wire
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Any

from conf.errors import RunError
from protocol.messages import AdaptReply, AnswerReply, ShareReply
from storage import atomic, jsonlines
from storage.hashing import hash_json
from strategy.augmenter import Augmented
from strategy.diagnosis import UserChoice
from strategy.filters import Candidate
from strategy.grid import MessageFailure
from strategy.planning import AdapterRound, PlannedArm

WITHOUT = "goes on without augmentation"


class RunLog:
    """Appends to the run folder's files and knows what they hold."""

    def __init__(self, folder: Path) -> None:
        """Write below ``folder``; what an earlier process wrote there is kept and known."""
        self.folder = folder
        self._adapted = {
            (row["adapter"], row["round"], row["user"]): row["provenance_key"]
            for row in self._rows("adaptations")
        }
        unanswered = {
            row["user"]
            for row in self._rows("failures")
            if row["phase"] == AnswerReply.TYPE and row["kind"] == RunError.__name__
        }
        self._adapted = {  # a device that refuses has no good adapter: it is trained again
            key: provenance_key
            for key, provenance_key in self._adapted.items()
            if key[2] not in unanswered
        }
        self._answered = _complete(self._rows("answers"))
        self._augmented = {_identity(row) for row in self._rows("augmentation")}

    @property
    def ledger_path(self) -> Path:
        """Where the ledger lies."""
        return self.folder / "ledger.jsonl"

    def registry(self, users: Iterable[str]) -> None:
        """Note whose devices take part."""
        atomic.write_json(
            self.folder / "registry.json", [{"user_id": user} for user in sorted(users)]
        )

    def phase(self, arm: str, phase: str, seconds: float, **facts: Any) -> None:
        """Note the end of a phase."""
        self._append("rounds", [{"arm": arm, "phase": phase, "seconds": seconds, **facts}])

    def has_adapted(self, training: AdapterRound, user: str, provenance_key: str) -> bool:
        """Whether the adapter was trained already, and from the same."""
        return self._adapted.get((*training, user)) == provenance_key

    def has_answered(self, arm: str, user: str, provenance_key: str) -> bool:
        """Whether all queries were answered already, by the same."""
        return self._answered.get((arm, user)) == provenance_key

    def adapted(
        self, training: AdapterRound, user: str, reply: AdaptReply, provenance_key: str
    ) -> None:
        """Note what one user's training took."""
        row = asdict(replace(reply, weights={}))
        del row["user_id"], row["weights"]
        adapter, number = training
        facts = {
            "user": user,
            "adapter": adapter,
            "round": number,
            "provenance_key": provenance_key,
        }
        self._append("adaptations", [{**row, **facts}])
        self._adapted[*training, user] = provenance_key

    def answered(self, user: str, reply: AnswerReply, provenance_key: str) -> None:
        """Note the numbers of one user's queries, in their order."""
        rows = [{**row, "provenance_key": provenance_key} for row in answer_rows(user, reply)]
        self._append("answers", rows)
        self._answered[reply.arm, user] = provenance_key

    def shares(self, replies: Mapping[str, ShareReply]) -> None:
        """Note what each user sent for all arms."""
        rows = [
            {"user": user, "records": len(reply.pairs), "redactions": sum(reply.redactions)}
            for user, reply in replies.items()
        ]
        self._append("shares", rows)

    def augmented(self, augmented: Augmented) -> None:
        """Note what the augmentation computed, its scores, and who goes on without it."""
        scored = [
            json.dumps(_score_row(user, each)) + "\n"
            for user, candidates in augmented.candidates.items()
            for each in candidates
        ]
        atomic.write_text(self.folder / "filter_scores.jsonl", "".join(scored))
        counters = augmented.counters
        self.failures(
            MessageFailure("", user, "augment", "Unaugmented", f"{WITHOUT}: {reason}")
            for user, reason in counters.lost.items()
        )
        if augmented.requests is not None:
            self.phase("", "endpoint", 0.0, requests=dict(augmented.requests))
        self.phase(
            "",
            "augmentation counters",
            0.0,
            replies=counters.generated_replies,
            tokens=counters.generated_tokens,
            nli_pairs=counters.nli_pairs,
            cut_pairs=counters.cut_pairs,
        )

    def planned(self, arms: Iterable[PlannedArm]) -> None:
        """Note what became of each user's shared records in each arm, and what the pairs are."""
        for arm in arms:
            rows = [_augmentation_row(arm.name, *each) for each in arm.choices.items()]
            new = {_identity(row): row for row in rows if _identity(row) not in self._augmented}
            self._append("augmentation", list(new.values()))
            self._augmented |= new.keys()
            self._append("diagnosis", [asdict(group) for group in arm.diagnosis])

    def failures(self, failures: Iterable[MessageFailure]) -> None:
        """Note messages without a good reply."""
        self._append("failures", [asdict(failure) for failure in failures])

    def forget_failures(self) -> None:
        """Put the failures of an earlier process aside: what failed then is tried again."""
        earlier = self.folder / "failures.jsonl"
        if earlier.is_file():
            self._append("failures-earlier", list(self._rows("failures")))
            earlier.unlink()

    def _rows(self, name: str) -> Iterable[dict[str, Any]]:
        return jsonlines.read(self.folder / f"{name}.jsonl")

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        jsonlines.append(self.folder / f"{name}.jsonl", rows)


def _score_row(user: str, candidate: Candidate) -> dict[str, Any]:
    """One candidate's scores, without its texts; a score that is no finite number is null."""
    scores = asdict(candidate.scores) if candidate.scores else {}
    finite = {name: value if isfinite(value) else None for name, value in scores.items()}
    return {"user": user, "unreadable": candidate.unreadable, **finite}


def _augmentation_row(arm: str, user: str, choice: UserChoice) -> dict[str, Any]:
    selection = choice.selection
    return {
        "arm": arm,
        "user": user,
        "shared": len(choice.shared),
        "generated": selection.generated,
        "kept": len(selection.kept),
        "rejected": dict(selection.rejected),
        "kept_by": dict(selection.kept_by),
        "input_words": sum(len(pair.input.split()) for pair in selection.kept),
        "response_words": sum(len(pair.response.split()) for pair in selection.kept),
    }


def answer_rows(user: str, reply: AnswerReply) -> list[dict[str, Any]]:
    """One row per query; where no more is disclosed one row for the user, its query None."""
    head = {
        "arm": reply.arm,
        "user": user,
        "seconds": reply.seconds,
        "tokens": reply.tokens,
        "shortened": reply.shortened,
        "of": len(reply.query_ids) or 1,
    }
    if not reply.query_ids:
        sums = list(reply.sums)
        return [{**head, "query": None, "queries": reply.num_queries, "sums": sums}]
    columns = {
        "gold": reply.gold,
        "prediction": reply.predicted,
        "error": reply.errors,
        "rouge1": reply.rouge1,
        "rougeL": reply.rouge_l,
        "bertscore": reply.bertscore,
        "unicode_rouge1": tuple(None if each < 0 else each for each in reply.unicode_rouge1),
        "text": reply.texts,
        "gold_text": reply.gold_texts,
    }
    rows = []
    for index, query_id in enumerate(reply.query_ids):
        row = {name: column[index] if column else None for name, column in columns.items()}
        rows.append({**head, "query": query_id, "parsed": bool(reply.parsed[index]), **row})
    return rows


def _complete(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """What each user's answers in each arm were made from, where all of them are there."""
    groups = jsonlines.whole(
        rows,
        group=lambda row: (row["arm"], row["user"], row["provenance_key"]),
        line=lambda row: row["query"],
        count=lambda row: row["of"],
    )
    return {(arm, user): provenance_key for (arm, user, provenance_key), _ in groups}


def _identity(row: dict[str, Any]) -> str:
    return hash_json(row)
