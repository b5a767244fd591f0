"""Cloud augmentation: k similar pairs for each shared pair, all of them scored, nothing chosen yet.

    shared pairs -> prompt -> cloud model -> replies -> parse -> NLI both ways, ROUGE-L, lengths

Replies and scores are cached by content, so another share ratio, threshold or ablation of the same
records costs nothing. A record that several users share is generated once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from conf.schema import AugmenterConfig
from conf.seeds import derive_seed
from lamp.metrics import rouge_l
from lamp.records import Pair
from lamp.scripts import is_latin
from lamp.serialise import record_hash as record_hash
from lamp.tasks import Task
from storage.hashing import hash_json
from strategy.cache import Cache
from strategy.filters import Candidate, Scores, length_ratio
from strategy.parsing import Parsed, synthetic_pair
from strategy.progress import Progress
from strategy.prompting import Prompt, make_prompt, read_reply

NO_REPLY = "no_reply"
KEY_VERSION = 2  # of what is kept of a reply: since 2, whether it ended by itself
GENERATE_CHUNK = 1024  # replies between two writes to the cache

# Told before each chunk: which generator is to write, and each user's prompts.
OnAsk = Callable[[int, Mapping[str, Sequence[str]]], None]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the cloud model wrote for one prompt.

    Attributes:
        text: The reply.
        tokens: Tokens generated.
        finished: Whether it ended by itself, not by the limit on its length.
    """

    text: str
    tokens: int
    finished: bool = True


@dataclass(frozen=True, slots=True)
class Lost:
    """No reply to one prompt, and why; asked again in another run.

    Attributes:
        reason: Why, in our words; outcomes are counted by it.
        said: What the endpoint said of it; "" for nothing.
    """

    reason: str
    said: str = ""

    @property
    def told(self) -> str:
        """The reason with the endpoint's own words."""
        return f"{self.reason}: {self.said}" if self.said else self.reason


class Generator(Protocol):
    """The cloud model: prompts in, replies out."""

    @property
    def identity(self) -> str:
        """What names the model in cache keys."""

    def write(
        self, prompts: Sequence[str], seeds: Sequence[int], on_done: Callable[[int], None]
    ) -> Sequence[Reply | Lost]:
        """Answer each prompt under its own seed."""


class NliScorer(Protocol):
    """What judges semantic consistency: the NLI model, or a sentence encoder."""

    @property
    def identity(self) -> str:
        """What names the model in cache keys."""

    def both_ways(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
        """Scores from 0 to 1 of each pair of texts: P(x => x') and P(x' => x), or the cosine."""

    def cut(self, pairs: Sequence[tuple[str, str]]) -> int:
        """How many of the pairs are judged by a part of their text, as the whole does not fit."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One sample of one record."""

    pair: Pair
    prompt: str
    record: str
    index: int
    key: str
    seed: int
    writer_index: int  # which generator's


@dataclass(slots=True)
class Counters:
    """What was computed anew; zero when everything came from the cache.

    Attributes:
        cut_pairs: Candidates that were judged by a part of their text, from the cache or not.
        lost: Users who go on without augmentation, and why.
    """

    generated_replies: int = 0
    generated_tokens: int = 0
    nli_pairs: int = 0
    cut_pairs: int = 0
    lost: dict[str, str] = field(default_factory=dict)


def augment(
    shared: Mapping[str, Sequence[Pair]],
    *,
    task: Task,
    config: AugmenterConfig,
    seed: int,
    writer: Generator,
    judge: NliScorer,
    cache: Cache,
    progress: Progress,
    counters: Counters,
    prompt: Prompt | None = None,
    further: Sequence[Generator] = (),
    on_ask: OnAsk | None = None,
) -> dict[str, tuple[Candidate, ...]]:
    """Write and score k candidates for every shared pair of every user.

    A user with a prompt that got no reply goes on without augmentation: half of it would be another
    method. All candidates of that user count as rejected, and ``counters`` has the reason. Where
    there are ``further`` writers, the samples of a record go round all of them. ``prompt`` is the
    configured one, with its examples where it has any.

    Returns:
        Per user the candidates in the order of the user's shared pairs, k for each.
    """
    prompt = prompt or make_prompt(config, task)
    writers = (writer, *further)
    models = [each.identity for each in writers]
    jobs = {
        user: _jobs(pairs, task, config, prompt, seed, models) for user, pairs in shared.items()
    }
    unique = {job.key: job for user in sorted(jobs) for job in jobs[user]}
    for user, own in jobs.items():
        cache.hold(user, _keys_by_record(own, judge))

    def on_chunk(writer_index: int, chunk: Sequence[_Job]) -> None:
        if on_ask is not None:
            on_ask(writer_index, _prompts_by_user(jobs, chunk))

    replies, lost = _replies(unique, writers, cache, progress, counters, on_chunk)
    parsed = {
        key: read_reply(
            task, unique[key].pair, prompt, config.labels, each.text, complete=each.finished
        )
        for key, each in replies.items()
    }
    scores = _scores(unique, parsed, judge, cache, progress, counters)
    for user, own in jobs.items():
        reasons = [lost[job.key] for job in own if job.key in lost]
        if reasons:
            counters.lost[user] = reasons[0]
    return {
        user: tuple(Candidate(job.pair.id, None, NO_REPLY, None) for job in own)
        if user in counters.lost
        else tuple(_candidate(job, parsed[job.key], scores.get(job.key)) for job in own)
        for user, own in jobs.items()
    }


def _jobs(
    pairs: Sequence[Pair],
    task: Task,
    config: AugmenterConfig,
    prompt: Prompt,
    seed: int,
    models: Sequence[str],
) -> list[_Job]:
    settings = {
        "version": KEY_VERSION,
        "prompt": prompt.identity,
        "sampling": asdict(config.sampling),
        "task": task.name,
        "seed": seed,
    }
    jobs = []
    for pair in pairs:
        record = record_hash(pair)
        for index in range(config.k):
            writer_index = index % len(models)
            model = models[writer_index]
            key = hash_json({**settings, "model": model, "record": record, "index": index})
            own_seed = derive_seed(seed, record, index)
            jobs.append(_Job(pair, prompt.ask(pair), record, index, key, own_seed, writer_index))
    return jobs


def writer_name(writer_index: int) -> str:
    """What a report calls a generator: "writer 1" is the first."""
    return f"writer {writer_index + 1}"


def _keys_by_record(jobs: Sequence[_Job], judge: NliScorer) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for job in jobs:
        keys.setdefault(job.record, []).extend((job.key, _score_key(job, judge)))
    return keys


def _replies(
    unique: Mapping[str, _Job],
    writers: Sequence[Generator],
    cache: Cache,
    progress: Progress,
    counters: Counters,
    on_chunk: Callable[[int, Sequence[_Job]], None],
) -> tuple[dict[str, Reply], dict[str, str]]:
    """What was written, and why others were not, by key."""
    lost: dict[str, str] = {}
    found = {key: Reply(**value) for key, value in cache.get(unique).items()}
    missing = [job for key, job in unique.items() if key not in found]
    with progress.phase("augment", len(missing)) as phase:
        for writer_index, chunk in _chunks(missing, len(writers)):
            on_chunk(writer_index, chunk)
            replies = writers[writer_index].write(
                [job.prompt for job in chunk],
                [job.seed for job in chunk],
                phase.advance,
            )
            outcomes = {job.key: reply for job, reply in zip(chunk, replies, strict=True)}
            lost |= {key: each.told for key, each in outcomes.items() if isinstance(each, Lost)}
            good = {key: each for key, each in outcomes.items() if isinstance(each, Reply)}
            cache.put({key: asdict(reply) for key, reply in good.items()})
            found |= good
            counters.generated_replies += len(good)
            counters.generated_tokens += sum(reply.tokens for reply in good.values())
    return found, lost


def _prompts_by_user(
    jobs: Mapping[str, Sequence[_Job]], chunk: Sequence[_Job]
) -> dict[str, list[str]]:
    """The prompts of a chunk by the users whose records they show; some are of several users."""
    keys = {job.key for job in chunk}
    prompts = {user: [job.prompt for job in own if job.key in keys] for user, own in jobs.items()}
    return {user: own for user, own in prompts.items() if own}


def _chunks(jobs: Sequence[_Job], writers: int) -> Iterator[tuple[int, list[_Job]]]:
    """Yield which generator is to write, and what, one writer after the other."""
    for writer_index in range(writers):
        own = [job for job in jobs if job.writer_index == writer_index]
        for start in range(0, len(own), GENERATE_CHUNK):
            yield writer_index, own[start : start + GENERATE_CHUNK]


def _scores(
    unique: Mapping[str, _Job],
    parsed: Mapping[str, Parsed],
    judge: NliScorer,
    cache: Cache,
    progress: Progress,
    counters: Counters,
) -> dict[str, Scores]:
    readable = {
        key: job for key, job in unique.items() if key in parsed and parsed[key].reason is None
    }
    score_keys = {key: _score_key(job, judge) for key, job in readable.items()}
    cached = cache.get(score_keys.values())
    found = {
        key: Scores(**cached[score_key])
        for key, score_key in score_keys.items()
        if score_key in cached
    }
    counters.cut_pairs += judge.cut(
        [(job.pair.input, parsed[key].input) for key, job in readable.items()]
    )
    missing = [key for key in readable if key not in found]
    with progress.phase("score", len(missing)) as phase:
        for start in range(0, len(missing), GENERATE_CHUNK):
            chunk = missing[start : start + GENERATE_CHUNK]
            texts = [(readable[key].pair.input, parsed[key].input) for key in chunk]
            entailments = judge.both_ways(texts)
            new = {
                key: _score(*pair, *entailment)
                for key, pair, entailment in zip(chunk, texts, entailments, strict=True)
            }
            cache.put({score_keys[key]: asdict(scores) for key, scores in new.items()})
            found.update(new)
            counters.nli_pairs += len(chunk)
            phase.advance(len(chunk))
    return found


def _score(original: str, written: str, entails: float, entailed: float) -> Scores:
    return Scores(
        entails=entails,
        entailed=entailed,
        rouge_l=rouge_l(written, original),
        length_ratio_characters=length_ratio(len(original), len(written)),
        length_ratio_words=length_ratio(len(original.split()), len(written.split())),
    )


def _score_key(job: _Job, judge: NliScorer) -> str:
    version = 1 if is_latin(job.pair.input) else 2  # 2: ROUGE-L on Unicode tokens
    return hash_json({"reply": job.key, "judge": judge.identity, "version": version})


def _candidate(job: _Job, parsed: Parsed, scores: Scores | None) -> Candidate:
    name = writer_name(job.writer_index)
    if parsed.reason is not None:
        return Candidate(job.pair.id, None, parsed.reason, None, writer=name)
    pair = synthetic_pair(job.pair, job.index, parsed)
    return Candidate(job.pair.id, pair, None, scores, writer=name)
