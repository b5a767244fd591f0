"""Oracles: methods that hold all data in the cloud, histories and queries included.

They are the table's upper ends, not something that a server of this system could run: no message
brings them what they read. The simulation hands the histories over, and only where such a method
was asked for; ledger and tables say so. Their answers are scored as every device scores its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from conf.seeds import derive_seed
from lamp import tasks
from lamp.records import UserHistory
from lamp.serialise import history_to_json
from protocol.answers import greedy, prompts, scored_replies
from protocol.messages import AnswerReply
from protocol.settings import DeviceSettings
from strategy.arms import Arm
from strategy.base_model import BaseModel
from strategy.large_model import LargeModel
from strategy.ledger import Ledger
from strategy.progress import Progress
from strategy.run_log import RunLog
from strategy.tuning import train_in_cloud

ORACLE = "all data in the cloud"  # what answers of oracles were made from, as the log notes it
Histories = Callable[[], Sequence[UserHistory]]
Adapter = Mapping[str, Any]  # by the names of models.lora.lora_parameters


class Oracle:
    """Runs the arms that need every history, one after the other, without a message."""

    def __init__(
        self,
        histories: Histories,
        settings: DeviceSettings,
        large: LargeModel,
        base: BaseModel | None,
        progress: Progress,
        *,
        seed: int,
        device: str,
    ) -> None:
        """Take what the oracles work with; nothing is read or loaded yet.

        Args:
            histories: Reads every user's history.
            settings: What devices train and answer by.
            large: The large model.
            base: M_base, where an arm works with it.
            progress: Where progress is told.
            seed: Root seed.
            device: Torch device of the work.
        """
        self._histories, self._settings, self._large = histories, settings, large
        self._base, self._progress = base, progress
        self._seed, self._device = seed, device

    def run(self, arm: Arm, log: RunLog, ledger: Ledger) -> None:
        """Answer every user's queries with the model of ``arm`` and note the numbers."""
        started = time.perf_counter()
        users = sorted(self._histories(), key=lambda user: user.user_id)
        for user in users:
            content = json.dumps(history_to_json(user), sort_keys=True).encode("utf-8")
            ledger.oracle(arm.name, user.user_id, content, len(user.pairs))
        model, tokenizer, adapter, system = self._model(arm, users)
        trained = time.perf_counter()
        replies = answer_together(
            arm.name,
            users,
            [adapter] * len(users),
            model,
            tokenizer,
            self._settings,
            self._progress,
            system=system,
            retrieved=self._settings.evaluation.rag_items if arm.method.retrieves else 0,
        )
        if arm.method.adapts:
            log.phase(arm.name, "adapt", trained - started, users=len(users))
        for reply in replies:
            if not log.has_answered(arm.name, reply.user_id, ORACLE):  # before a crash
                log.answered(reply.user_id, reply, ORACLE)
        log.phase(arm.name, "answer", time.perf_counter() - trained, users=len(users))

    def _model(
        self, arm: Arm, users: Sequence[UserHistory]
    ) -> tuple[Any, Any, Adapter | None, str | None]:
        """The arm's model with its tokenizer, adapter and system prompt."""
        if arm.method.answers == "cloud":
            large = self._large
            adapter = large.adapter if arm.method.tuned else None
            return large.model, large.tokenizer, adapter, large.system_prompt
        return (*self._pooled(arm, users), self._settings.system_prompt)

    def _pooled(self, arm: Arm, users: Sequence[UserHistory]) -> tuple[Any, Any, Adapter]:
        """M_base with one adapter, trained on all users' records together."""
        from models import loading, lora, training
        from models.chat import encode_pairs
        from models.multi_lora.cohort import CohortJob

        qlora, seed = self._settings.qlora, self._seed
        if self._base is None:
            raise RuntimeError("pooled training works on M_base, which was not made")
        tokenizer = loading.load_tokenizer(self._base.folder)
        plain = loading.load_device_base(self._base.folder, qlora, self._device)
        model = lora.attach(plain, qlora, derive_seed(seed, "adapter"))
        examples = encode_pairs(
            tokenizer,
            tasks.task(self._settings.task),
            [pair for user in users for pair in user.pairs],
            system=self._settings.system_prompt,
            max_len=qlora.max_seq_len,
        )
        job = CohortJob(
            examples=examples,
            schedule=training.user_schedule(qlora, len(examples)),
            adapter_seed=derive_seed(seed, "adapter"),
            batch_seed=derive_seed(seed, "batches"),
        )
        pad_id, phase = tokenizer.pad_token_id, f"{arm.name}: adapt"
        train_in_cloud(model, pad_id, job, qlora, arm.name, phase, self._progress)
        return model, tokenizer, lora.snapshot(model)


def answer_together(
    arm: str,
    users: Sequence[UserHistory],
    adapters: Sequence[Adapter | None],
    model: Any,
    tokenizer: Any,
    settings: DeviceSettings,
    progress: Progress,
    *,
    system: str | None,
    retrieved: int = 0,
) -> list[AnswerReply]:
    """Answer all users' queries with one model; each user gets a share of the time.

    Args:
        arm: Arm that answers.
        users: Whose queries.
        adapters: One per user; None answers with the model as it comes.
        model: Answers greedily; it has an adapter slot.
        tokenizer: Its tokenizer.
        settings: How to answer, and what of it to disclose.
        progress: Where progress is told.
        system: System turn of the model.
        retrieved: Records of the own history in each prompt.
    """
    from models.answering import answer_queries

    asked = [prompts(user, settings, tokenizer, retrieved) for user in users]
    started = time.perf_counter()
    with progress.phase(f"{arm}: answer", sum(map(len, asked))) as phase:
        answers = answer_queries(
            model,
            tokenizer,
            asked,
            adapters,
            sampling=greedy(settings),
            batch_size=settings.evaluation.batch_size,
            system=system,
            on_batch=phase.advance,
        )
    return scored_replies(users, arm, answers, settings, time.perf_counter() - started)
