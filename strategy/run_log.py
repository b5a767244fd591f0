"""What the server writes into the run folder while it runs: JSON lines, flushed, one file per kind.

rounds.jsonl        one line per arm and phase, with seconds
adaptations.jsonl   what each adapter's training took
answers.jsonl       numbers per query (or per user, with disclose=sums)
shares.jsonl        per user: records sent, spans redacted in them
augmentation.jsonl  per user and arm: shared, generated, kept, rejected by reason
failures.jsonl      messages without a good reply
ledger.jsonl        everything that crossed the wire
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from protocol.messages import AdaptReply, AnswerReply
from storage import atomic, jsonlines
from strategy.exchange import Failure
from strategy.filters import Selection


class RunLog:
    """Appends to the run folder's files."""

    def __init__(self, folder: Path) -> None:
        """Write below ``folder``."""
        self.folder = folder

    @property
    def ledger_path(self) -> Path:
        """Where the ledger lies."""
        return self.folder / "ledger.jsonl"

    def roster(self, users: Iterable[str]) -> None:
        """Note whose devices take part."""
        atomic.write_json(
            self.folder / "roster.json", [{"user_id": user} for user in sorted(users)]
        )

    def phase(self, arm: str, phase: str, seconds: float, **facts: Any) -> None:
        """Note the end of a phase."""
        self._append("rounds", [{"arm": arm, "phase": phase, "seconds": seconds, **facts}])

    def adaptations(self, replies: Iterable[tuple[str, AdaptReply]]) -> None:
        """Note what training took, per user."""
        rows = []
        for user, reply in replies:
            row = asdict(replace(reply, weights={}))
            del row["user_id"], row["weights"]
            rows.append({**row, "user": user})
        self._append("adaptations", rows)

    def answers(self, replies: Iterable[tuple[str, AnswerReply]]) -> None:
        """Note the numbers of every query, per user in the order of the user's queries."""
        self._append(
            "answers", [row for user, reply in replies for row in answer_rows(user, reply)]
        )

    def share(self, user: str, records: int, redactions: int) -> None:
        """Note what a user sent for all arms."""
        row = {"user": user, "records": records, "redactions": redactions}
        self._append("shares", [row])

    def augmentation(self, arm: str, user: str, shared: int, selection: Selection) -> None:
        """Note what became of a user's shared records in one arm."""
        row = {
            "arm": arm,
            "user": user,
            "shared": shared,
            "generated": selection.generated,
            "kept": len(selection.kept),
            "rejected": dict(selection.rejected),
        }
        self._append("augmentation", [row])

    def failures(self, failures: Sequence[Failure]) -> None:
        """Note messages without a good reply."""
        self._append("failures", [asdict(failure) for failure in failures])

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        jsonlines.append(self.folder / f"{name}.jsonl", rows)


def answer_rows(user: str, reply: AnswerReply) -> list[dict[str, Any]]:
    """One row per query; with ``disclose=sums`` one row for the user, its query None."""
    head = {"arm": reply.arm, "user": user, "seconds": reply.seconds, "tokens": reply.tokens}
    if reply.sums:
        sums = list(reply.sums)
        return [{**head, "query": None, "queries": reply.num_queries, "sums": sums}]
    columns = {
        "gold": reply.gold,
        "prediction": reply.predicted,
        "error": reply.errors,
        "rouge1": reply.rouge1,
        "rougeL": reply.rouge_l,
        "bertscore": reply.bertscore,
        "text": reply.texts,
        "gold_text": reply.gold_texts,
    }
    rows = []
    for index, query_id in enumerate(reply.query_ids):
        row = {name: column[index] if column else None for name, column in columns.items()}
        rows.append({**head, "query": query_id, "parsed": bool(reply.parsed[index]), **row})
    return rows
