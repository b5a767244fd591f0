"""Step 2 of the paper as one object: shared pairs in, scored candidates out.

:class:`CloudAugmenter` asks the cloud's models, or reads an earlier run's file in their place.
Anything with the three members of :class:`Augmenter` may stand in for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from conf.schema import AugmenterConfig, TaskConfig
from lamp import tasks
from strategy.augmentation import Counters, OnAsk, augment
from strategy.cache import Cache
from strategy.candidates import Candidates, Shared, replay, save
from strategy.cloud_models import Cloud
from strategy.endpoint import EndpointGenerator
from strategy.ledger import Ledger
from strategy.progress import Progress
from strategy.prompting import configured_prompt
from strategy.public import PublicUsers


@dataclass(frozen=True, slots=True)
class Augmented:
    """What came of one augmentation.

    Attributes:
        candidates: Per user k candidates for each shared pair, in the order of the pairs.
        counters: What was computed and what was lost.
        requests: What an endpoint did, by outcome; None where there is none.
    """

    candidates: Candidates
    counters: Counters = field(default_factory=Counters)
    requests: Mapping[str, int] | None = None

    @property
    def lost(self) -> str:
        """Who goes on without augmentation and why, in one line; "" for nobody."""
        lost = self.counters.lost
        reasons = ", ".join(sorted(set(lost.values())))
        return f"{len(lost)} users go on without augmentation: {reasons}" if lost else ""


class Augmenter(Protocol):
    """Writes similar pairs and scores them; what it keeps of a record, it can forget."""

    @property
    def k(self) -> int:
        """Samples per shared pair where an arm has no number of its own."""

    def write(self, shared: Shared, k: int, ledger: Ledger, progress: Progress) -> Augmented:
        """Write and score ``k`` candidates for every shared pair of every user."""

    def forget(self, user: str, records: Sequence[str]) -> None:
        """Drop what ``user`` holds of these records, named by their hashes."""


class CloudAugmenter:
    """The cloud language model and the judge behind the content cache."""

    def __init__(
        self,
        config: AugmenterConfig,
        task: TaskConfig,
        cloud: Cloud,
        *,
        public: PublicUsers,
        cache: Path,
        seed: int = 0,
        save_to: Path | None = None,
    ) -> None:
        """Remember what to ask; nothing is loaded before the first record that is not cached.

        Args:
            config: Prompt, k, sampling; or the file that is read in the place of the models.
            task: Task of the records.
            cloud: Who writes and who judges.
            public: Whose records a prompt may show.
            cache: Folder of the generations' cache.
            seed: Root seed.
            save_to: File that the candidates are left in; None leaves none.
        """
        self._config, self._task, self._cloud, self._public = config, task, cloud, public
        self._cache, self._seed, self._save_to = cache / "augmentation.sqlite", seed, save_to

    @property
    def k(self) -> int:
        """Samples per shared pair, as configured."""
        return self._config.k

    def write(self, shared: Shared, k: int, ledger: Ledger, progress: Progress) -> Augmented:
        """Write and score, or read, ``k`` candidates for every shared pair; end the models then.

        Raises:
            ConfigError: If the prompt cannot be used.
            DataError: If a file of candidates cannot be read.
        """
        counters = Counters()
        try:
            found = self._candidates(shared, k, ledger, progress, counters)
        finally:
            self._cloud.end()
        if self._save_to is not None:
            save(self._save_to, found, shared)
        writer = self._cloud.writer
        requests = dict(writer.counts) if isinstance(writer, EndpointGenerator) else None
        return Augmented(found, counters, requests)

    def forget(self, user: str, records: Sequence[str]) -> None:
        """Drop what ``user`` holds of these records; what nobody else holds is deleted."""
        Cache(self._cache).release(user, records)

    def _candidates(
        self, shared: Shared, k: int, ledger: Ledger, progress: Progress, counters: Counters
    ) -> Candidates:
        if self._config.file is not None:
            return replay(Path(self._config.file), shared, k, progress)
        return augment(
            shared,
            task=tasks.task(self._task),
            config=replace(self._config, k=k),
            seed=self._seed,
            writer=self._cloud.writer,
            judge=self._cloud.judge,
            cache=Cache(self._cache),
            progress=progress,
            counters=counters,
            prompt=configured_prompt(self._config, self._task, self._public, self._seed),
            further=self._cloud.further,
            on_ask=self._note_prompts(ledger),
        )

    def _note_prompts(self, ledger: Ledger) -> OnAsk | None:
        """How prompts that leave for somebody else's endpoint get into the ledger first."""
        if not isinstance(self._cloud.writer, EndpointGenerator):
            return None

        def on_ask(writer_index: int, prompts: Mapping[str, Sequence[str]]) -> None:
            if writer_index == 0:  # the further writers run here
                ledger.endpoint(prompts)

        return on_ask
