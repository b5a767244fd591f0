"""A device that sees D_u as a stream (Qin et al., DAC'24): select, write similar texts, fine-tune.

The stream comes in chunks. Of each chunk the device embeds all records at once, offers them to its
buffer one by one, lets its own model rewrite what is new in the buffer, and goes on training its
adapter on the buffer and these texts. Between chunks it keeps nothing but the buffer and them.

Seeds depend on the user, not on the arm: the devices of all rules see the same stream, start from
the same adapter and write the same texts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from clients import adapters
from clients.base import Base
from clients.capacity import require_capacity, training_memory_bytes
from clients.dac24.buffer import Buffer, BufferEntry
from clients.dac24.replacement import RULES, ReplacementContext
from clients.dac24.scores import domain_score, dominant_domain, embedding_entropy
from clients.dac24.self_synthesis import FATES, SynthesisOutcome, synthesise
from clients.folder import Device
from conf.seeds import derive_seed
from lamp import metrics, tasks
from lamp.dialogue.lexicons import words_of
from lamp.records import Pair
from models import lora, training
from models.answering import answer_queries
from models.chat import encode_pairs
from models.embedding import embed
from models.multi_lora.cohort import CohortJob, train_one
from models.training import TrainReport
from protocol.answers import greedy, prompts
from protocol.messages import AdaptReply, AdaptRequest
from protocol.recipe import Stream
from protocol.settings import DeviceSettings

T = TypeVar("T")


@dataclass(slots=True)
class StreamStats:
    """What is counted on the way; numbers only, and all that the server hears of the stream.

    Attributes:
        seen: Records seen at each point of the learning curve.
        curve: Headline metric at each of these points.
        reports: One per fine-tuning.
        epoch_seconds: Seconds per epoch of each fine-tuning.
        seconds: Seconds of selection, synthesis and the curve's answers.
        annotations: Records that the user was asked about.
        too_large: Records that no bin could hold.
        fates: What became of the texts that the device wrote.
        buffer_bytes: Most bytes that the buffer held.
        shortened: Examples of the last fine-tuning that were too long.
        scores: Entropy of embedding and domain-specific score of every record seen.
    """

    seen: list[int] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    reports: list[TrainReport] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"selection": 0.0, "synthesis": 0.0, "curve": 0.0}
    )
    annotations: int = 0
    too_large: int = 0
    fates: Counter[SynthesisOutcome] = field(default_factory=Counter)
    buffer_bytes: int = 0
    shortened: int = 0
    scores: list[tuple[float, float]] = field(default_factory=list)

    @property
    def variation(self) -> tuple[float, ...]:
        """Coefficient of variation of each score over the stream; 0 where a score is always 0."""
        columns = [np.asarray(column) for column in zip(*self.scores, strict=True)]
        return tuple(float(each.std() / (abs(each.mean()) or 1.0)) for each in columns)

    def timed(self, phase: str, step: Callable[[], T]) -> T:
        """Run ``step`` on the clock of ``phase``."""
        started = time.perf_counter()
        result = step()
        self.seconds[phase] += time.perf_counter() - started
        return result


class StreamingDevice:
    """One user's device on the way through its stream."""

    def __init__(
        self,
        device: Device,
        base: Base,
        stream: Stream,
        settings: DeviceSettings,
        seed: int,
    ) -> None:
        """Start with an empty buffer; ``seed`` is the run's root seed."""
        self._device, self._base, self._stream, self._settings = device, base, stream, settings
        self._seed = derive_seed(seed, device.user_id, "stream")
        self._root = seed
        self._generator = np.random.default_rng(derive_seed(self._seed, "replacement"))
        self._own: dict[str, tuple[Pair, ...]] = {}
        self._seen = 0
        self.buffer = Buffer(stream.settings.bins, stream.settings.bin_bytes)
        self.diary = StreamStats()

    def run(self) -> None:
        """See the whole stream; the adapter is in the model's slot afterwards."""
        config = self._stream.settings
        records = self._device.history.pairs[-(config.dialogues or 0) :]
        lora.reset(self._base.model, derive_seed(self._root, self._device.user_id, "adapter"))
        self._note()
        for start in range(0, len(records), config.every):
            chunk = records[start : start + config.every]
            self.diary.timed("selection", partial(self._select, chunk))
            self.diary.timed("synthesis", self._synthesise)
            self._train(number=start // config.every)
            self._note()

    @property
    def examples(self) -> tuple[Pair, ...]:
        """What the next fine-tuning is on: the buffer, then the texts of the device's own model."""
        kept = [each.pair for each in self.buffer]
        return (*kept, *(own for pair in kept for own in self._own.get(pair.id, ())))

    def _select(self, chunk: Sequence[Pair]) -> None:
        for record in describe(chunk, self._base, self._stream, self._settings):
            self.offer(record)

    def offer(self, record: BufferEntry) -> bool:
        """Keep ``record`` if there is room for it, or if the rule makes some.

        Keeping one costs an annotation: the user is asked for the response they prefer.
        """
        self._seen += 1
        self.diary.scores.append((record.entropy, record.domain_score))
        allowed = self._stream.settings.annotations
        if allowed is not None and self.diary.annotations >= allowed:
            return False
        if not self.buffer.fits(record):
            self.diary.too_large += 1
            return False
        place = None
        if self.buffer.full:
            means = ReplacementContext(self._stream.scores, self._seen, self._generator)
            place = RULES[self._stream.replace](self.buffer, record, means)
            if place is None:
                return False
        self.buffer.put(record, place)
        self.diary.annotations += 1
        self.diary.buffer_bytes = max(self.diary.buffer_bytes, self.buffer.num_bytes)
        return True

    def _synthesise(self) -> None:
        """Write texts for what is new in the buffer; those of what has left it are dropped."""
        config = self._stream.settings
        kept = [each.pair for each in self.buffer]
        new = [pair for pair in kept if pair.id not in self._own]
        self._own = {pair.id: self._own[pair.id] for pair in kept if pair.id in self._own}
        if not (self._stream.synthesis and config.sets and new):
            return
        made = synthesise(
            self._base, new, config, derive_seed(self._seed, "own"), self._settings.system_prompt
        )
        self._own |= {pair.id: texts for pair, texts in zip(new, made.pairs, strict=True)}
        self.diary.fates += made.fates

    def _train(self, number: int) -> None:
        """Go on training the adapter on what the device has now."""
        settings = self._settings
        pairs = self.examples
        encoded = encode_pairs(
            self._base.tokenizer,
            tasks.task(settings.task),
            pairs,
            system=settings.system_prompt,
            max_len=settings.qlora.max_seq_len,
        )
        job = CohortJob(
            examples=encoded,
            schedule=training.user_schedule(settings.qlora, len(encoded)),
            adapter_seed=0,  # unused: the adapter goes on from where it stands
            batch_seed=derive_seed(self._seed, "batches", number),
            start=lora.snapshot(self._base.model),
        )
        report = train_one(
            self._base.model,
            self._base.tokenizer.pad_token_id,
            job,
            checkpointing=settings.qlora.gradient_checkpointing,
        )
        self.diary.reports.append(report)
        self.diary.shortened = sum(example.shortened for example in encoded)
        self.diary.epoch_seconds.append(report.seconds / settings.qlora.epochs)

    def _note(self) -> None:
        """Add a point to the learning curve, from the user's held-out queries."""
        if self._stream.settings.curve and self._device.history.queries:
            self.diary.curve.append(self.diary.timed("curve", self._score))
            self.diary.seen.append(self._seen)

    def _score(self) -> float:
        """The task's headline metric on the held-out queries, with the adapter as it stands."""
        settings, history = self._settings, self._device.history
        task = tasks.task(settings.task)
        (replies,) = answer_queries(
            self._base.model,
            self._base.tokenizer,
            [prompts(history, settings, self._base.tokenizer, retrieved=0)],
            [lora.snapshot(self._base.model)],
            sampling=greedy(settings),
            batch_size=settings.evaluation.batch_size,
            system=settings.system_prompt,
        )
        scores = [
            metrics.score_query(task, reply.text, query.gold)
            for reply, query in zip(replies, history.queries, strict=True)
        ]
        name, _ = metrics.headline(task)
        return float(metrics.metrics_of_sums(task, metrics.sums(task, scores))[name])


def describe(
    records: Sequence[Pair], base: Base, stream: Stream, settings: DeviceSettings
) -> list[BufferEntry]:
    """Embed and score ``records``, without looking at a response unless the stream says so."""
    config, lexicons = stream.settings, stream.lexicons
    texts = [_read(pair, config.reads) for pair in records]
    embeddings = embed(
        base.model,
        base.tokenizer,
        texts,
        batch_size=config.batch_size,
        max_tokens=settings.qlora.max_seq_len,
        masses=config.entropy,
    )
    words = [words_of(text) for text in texts]
    return [
        BufferEntry(
            pair,
            dominant_domain(said, lexicons),
            embedding.vector,
            embedding_entropy(embedding.masses, embedding.num_parts),
            domain_score(said, lexicons),
        )
        for pair, said, embedding in zip(records, words, embeddings, strict=True)
    ]


def adapt_to_stream(
    device: Device, base: Base, request: AdaptRequest, settings: DeviceSettings, stream: Stream
) -> AdaptReply:
    """Send ``device`` through its stream, store the adapter and tell what it took.

    Raises:
        ModelError: If the device has no room for it, or a loss is not finite.
    """
    longest = settings.qlora.max_seq_len
    require_capacity(device, base, longest)
    on_the_way = StreamingDevice(device, base, stream, settings, request.seed)
    on_the_way.run()
    diary = on_the_way.diary
    steps = sum(report.steps for report in diary.reports)
    facts = {"base_id": request.base_id, "steps": steps}
    return AdaptReply(
        user_id=device.user_id,
        arm=request.arm,
        steps=steps,
        records=len(on_the_way.buffer),
        synthetic=len(on_the_way.examples) - len(on_the_way.buffer),
        losses=tuple(loss for report in diary.reports for loss in report.losses),
        tokens=sum(report.tokens for report in diary.reports),
        seconds=sum(report.seconds for report in diary.reports),
        peak_memory_bytes=training_memory_bytes(base, longest),
        adapter_bytes=adapters.store(device, request.adapter_name, base.model, facts),
        curve_seen=tuple(diary.seen),
        curve=tuple(diary.curve),
        epoch_seconds=tuple(diary.epoch_seconds),
        phase_seconds=tuple(diary.seconds.values()),
        annotations=diary.annotations,
        synthesis=tuple(diary.fates[fate] for fate in FATES),
        buffer_bytes=diary.buffer_bytes,
        shortened=diary.shortened,
        variation=diary.variation,
        reductions=sum(report.reductions for report in diary.reports),
    )


def _read(pair: Pair, reads: str) -> str:
    return pair.input if reads == "input" else f"{pair.input}\n{pair.response}".strip()
