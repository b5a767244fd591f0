"""Oracles: methods that hold all data in the cloud, histories and queries included.

They are the table's upper ends, not something that a server of this system could run: no message
brings them what they read. The simulation hands the histories over, and only where such a method
was asked for; ledger and tables say so. Their answers are scored as every device scores its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from conf.errors import ConfigError
from conf.schema import Config
from conf.seeds import derive_seed
from lamp import tasks
from lamp.records import UserHistory
from lamp.serialise import history_to_json
from protocol.answers import greedy, prompts, scored_reply
from protocol.messages import AnswerReply
from protocol.settings import DeviceSettings, settings_of
from strategy.arms import Arm
from strategy.base_model import BaseModel
from strategy.large_model import LargeModel
from strategy.ledger import Ledger
from strategy.progress import Progress
from strategy.run_log import RunLog

ORACLE = "all data in the cloud"  # what answers of oracles were made from, as the log notes it
Histories = Callable[[], Sequence[UserHistory]]


class Oracle:
    """Runs the arms that need every history, one after the other, without a message."""

    def __init__(
        self,
        config: Config,
        histories: Histories | None,
        large: LargeModel,
        base: BaseModel | None,
        progress: Progress,
    ) -> None:
        """Take what the oracles work with; nothing is read or loaded yet.

        Args:
            config: The run.
            histories: Reads every user's history; None where no oracle was asked for.
            large: The large model.
            base: M_base, where an arm works with it.
            progress: Where progress is told.
        """
        self._config, self._histories, self._large = config, histories, large
        self._base, self._progress = base, progress

    def run(self, arm: Arm, log: RunLog, ledger: Ledger) -> None:
        """Answer every user's queries with the model of ``arm`` and note the numbers.

        Raises:
            ConfigError: If nobody handed the histories over.
        """
        if self._histories is None:
            raise ConfigError(f"methods: {arm.method.name} reads every history, none was given")
        started = time.perf_counter()
        users = sorted(self._histories(), key=lambda user: user.user_id)
        for user in users:
            content = json.dumps(history_to_json(user), sort_keys=True).encode("utf-8")
            ledger.oracle(arm.name, user.user_id, content, len(user.pairs))
        with self._model(arm, users) as (model, tokenizer, system):
            trained = time.perf_counter()
            replies = answer_together(
                arm.name,
                users,
                model,
                tokenizer,
                settings_of(self._config),
                self._progress,
                system=system,
                retrieved=self._config.evaluation.rag_items if arm.method.retrieves else 0,
            )
        if arm.method.adapts:
            log.phase(arm.name, "adapt", trained - started, users=len(users))
        for reply in replies:
            log.answered(reply.user_id, reply, ORACLE)
        log.phase(arm.name, "answer", time.perf_counter() - trained, users=len(users))

    @contextmanager
    def _model(
        self, arm: Arm, users: Sequence[UserHistory]
    ) -> Iterator[tuple[Any, Any, str | None]]:
        """Yield the arm's model with its tokenizer and system prompt."""
        if arm.method.answers == "cloud":
            with self._large.loaded(tuned=arm.method.tuned) as model:
                yield model, self._large.tokenizer, self._large.system_prompt
        else:
            yield (*self._pooled(arm, users), self._config.model.device.system_prompt)

    def _pooled(self, arm: Arm, users: Sequence[UserHistory]) -> tuple[Any, Any]:
        """M_base with one adapter, trained on all users' records together."""
        from models import loading, lora, training
        from models.chat import encode_pairs
        from models.multi_lora.cohort import CohortJob, train_one

        qlora, seed = self._config.qlora, self._config.seed
        if self._base is None:
            raise RuntimeError("pooled training works on M_base, which was not made")
        tokenizer = loading.load_tokenizer(self._base.folder)
        plain = loading.load_device_base(
            self._base.folder, qlora, self._config.resources.cloud_device
        )
        model = lora.attach(plain, qlora, derive_seed(seed, "adapter"))
        examples = encode_pairs(
            tokenizer,
            tasks.task(self._config.task),
            [pair for user in users for pair in user.pairs],
            system=self._config.model.device.system_prompt,
            max_len=qlora.max_seq_len,
        )
        schedule = training.user_schedule(qlora, len(examples))
        job = CohortJob(
            examples=examples,
            schedule=schedule,
            adapter_seed=derive_seed(seed, "adapter"),
            batch_seed=derive_seed(seed, "batches"),
        )
        with self._progress.phase(f"{arm.name}: adapt", schedule.steps) as phase:
            train_one(model, tokenizer.pad_token_id, job, lambda *_: phase.advance())
        return model, tokenizer


def answer_together(
    arm: str,
    users: Sequence[UserHistory],
    model: Any,
    tokenizer: Any,
    settings: DeviceSettings,
    progress: Progress,
    *,
    system: str | None,
    retrieved: int = 0,
) -> list[AnswerReply]:
    """Answer all users' queries with one model; each user gets the mean time per query.

    Args:
        arm: Arm that answers.
        users: Whose queries.
        model: Answers greedily.
        tokenizer: Its tokenizer.
        settings: How to answer, and what of it to disclose.
        progress: Where progress is told.
        system: System turn of the model.
        retrieved: Records of the own history in each prompt.
    """
    from models.generation import generate

    asked = [prompt for user in users for prompt in prompts(user, settings, tokenizer, retrieved)]
    started = time.perf_counter()
    with progress.phase(f"{arm}: answer", len(asked)) as phase:
        generations = generate(
            model,
            tokenizer,
            asked,
            seeds=[0] * len(asked),  # greedy: nothing is drawn
            sampling=greedy(settings),
            batch_size=settings.evaluation.batch_size,
            system=system,
            on_batch=phase.advance,
        )
    seconds = (time.perf_counter() - started) / max(1, len(asked))
    left = iter(generations)
    replies = []
    for user in users:
        own = list(islice(left, len(user.queries)))
        replies.append(
            scored_reply(
                user,
                arm,
                [each.text for each in own],
                settings,
                seconds=seconds * len(own),
                tokens=sum(each.tokens for each in own),
                shortened=sum(each.shortened for each in own),
            )
        )
    return replies
