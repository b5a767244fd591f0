"""Running the trials of a tuning: the product's own tuning, adaptation, answering and augmentation.

Everything runs in this process, without Flower: the models are called directly. A trial that was
measured before, with the same models, users, settings and seed, is read from the log of trials.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from clients.folder import SECRET_BYTES, Device
from clients.policy import Policy
from conf.errors import ModelError
from conf.schema import Config, TuneStage
from lamp.dataset import LampData
from lamp.records import Pair, UserHistory
from lamp.serialise import history_to_json
from protocol.messages import AdaptRequest, AnswerReply
from protocol.settings import DeviceSettings, settings_of, settings_to_json
from sim.run.cloud_workers import cloud_here
from sim.run.placement import suited_size
from sim.run.server import public_tuning
from sim.tuning.grid import THRESHOLDS, Setting, Trial, applied, grid
from storage import atomic, jsonlines
from storage.hashing import hash_json
from strategy import public as public_users
from strategy.augmenter import CloudAugmenter
from strategy.augmenter_tuning import ensure_augmenter
from strategy.base_model import BaseModel, ensure_base, ensure_cloud, name_base, name_cloud
from strategy.candidates import Candidates
from strategy.filters import Selection, select
from strategy.large_model import LargeModel
from strategy.ledger import Ledger
from strategy.oracle import answer_together
from strategy.progress import LoggedProgress, Progress
from strategy.public import PublicUsers

if TYPE_CHECKING:  # these load torch
    from clients.adaptation import PreparedTraining
    from clients.base import Base
    from models.multi_lora.cohort import CohortResult

VERSION = 2  # of what a trial measures; part of its key

Kept = Mapping[str, tuple[Pair, ...]]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all trials of one tuning have in common.

    Attributes:
        config: The run, model paths resolved.
        users: The pseudo-targets.
        public: The public users without them: whom M_base and M_cloud are tuned on.
        log: JSON lines file of all trials ever measured with this cache.
        progress: Where progress is told.
    """

    config: Config
    users: tuple[UserHistory, ...]
    public: PublicUsers
    log: Path
    progress: Progress

    @property
    def who(self) -> str:
        """What names the pseudo-targets: their content."""
        return hash_json([history_to_json(user) for user in self.users])


def make_bench(config: Config, data: LampData, progress: Progress) -> Bench:
    """Put the bench together.

    Args:
        config: The run, model paths resolved.
        data: Its data as :func:`lamp.dataset.pseudo_targets` splits them: no target user in them.
        progress: Where progress is told.
    """
    cache = Path(config.paths.cache)
    evaluation = replace(config.evaluation, disclose="sums", ship_predictions=False, bertscore=None)
    return Bench(
        config=replace(config, evaluation=evaluation),
        users=data.targets,
        public=public_users.write(cache / "public", data.public),
        log=cache / "tune" / "trials.jsonl",
        progress=progress,
    )


def base_trials(bench: Bench) -> Iterator[Trial]:
    """M_base under each setting, answering without an adapter."""
    for setting in grid(bench.config, "base"):
        config = applied(bench.config, setting)
        key = [name_base(config.model.device, public_tuning(config, bench.public))]
        yield _measured(bench, "base", setting, key, partial(_score_base, bench, config))


def retrieval_trials(bench: Bench) -> Iterator[Trial]:
    """M_base with so many records of the pseudo-target's own profile in each prompt (device_rag).

    M_base is tuned on prompts with as many records where ``qlora.base_rag`` says so.
    """
    for setting in grid(bench.config, "retrieval"):
        config = applied(bench.config, setting)
        evaluation = config.evaluation
        key = [
            name_base(config.model.device, public_tuning(config, bench.public)),
            ["retrieved", evaluation.rag_items, evaluation.rag_max_tokens],
        ]
        measure = partial(_score_base, bench, config, retrieved=evaluation.rag_items)
        yield _measured(bench, "retrieval", setting, key, measure)


def cloud_trials(bench: Bench) -> Iterator[Trial]:
    """M_cloud under each setting."""
    for setting in grid(bench.config, "cloud"):
        config = applied(bench.config, setting)
        key = [name_cloud(config.model.cloud, public_tuning(config, bench.public))]
        yield _measured(bench, "cloud", setting, key, partial(_score_cloud, bench, config))


def adapter_trials(bench: Bench) -> Iterator[Trial]:
    """Adapters on D_u alone (direct_ft) under each setting."""
    base = _base(bench, bench.config)
    for setting in grid(bench.config, "adapters"):
        yield _adapter_trial(bench, base, "adapters", setting, {})


def augmentation_trials(bench: Bench) -> Iterator[Trial]:
    """Adapters on D_u and the kept pairs under each setting.

    Texts are written once for all thresholds. Where the kept share is outside of what
    ``tune.least_kept`` and ``tune.most_kept`` allow, or nothing is kept, no adapter is trained.
    """
    base = _base(bench, bench.config)
    written: dict[str, Candidates] = {}
    for setting in grid(bench.config, "augmentation"):
        config = applied(bench.config, setting)
        texts = hash_json([each for each in setting.items() if not each[0].startswith(THRESHOLDS)])
        if texts not in written:
            written = {texts: _candidates(bench, config)}  # the last ones are not asked for again
        selections = _selections(written[texts], config)
        share = kept_share(selections.values())
        if reason := _not_exercised(share, config):
            yield Trial("augmentation", setting, kept=share, note=reason)
        else:
            kept = {user: selection.kept for user, selection in selections.items()}
            yield replace(_adapter_trial(bench, base, "augmentation", setting, kept), kept=share)


def kept_share(selections: Iterable[Selection]) -> float:
    """Kept pairs as a share of the generated ones, all users together."""
    counts = [(len(each.kept), each.generated) for each in selections]
    return sum(kept for kept, _ in counts) / max(1, sum(generated for _, generated in counts))


def _not_exercised(share: float, config: Config) -> str:
    """Why a setting is not worth an adapter; "" where it is."""
    least, most = config.tune.least_kept, config.tune.most_kept
    if share == 0:
        return "nothing kept"
    if share < least:
        return f"kept < {least:g}"
    return f"kept > {most:g}" if share > most else ""


def _measured(
    bench: Bench,
    stage: TuneStage,
    setting: Setting,
    provenance_key: Sequence[Any],
    measure: Callable[[], Trial],
) -> Trial:
    """Take a trial from the log, or measure and note it.

    Args:
        bench: What all trials have in common.
        stage: Stage that the trial belongs to.
        setting: The values tried.
        provenance_key: Names of everything that the scores depend on besides the pseudo-targets.
        measure: Gives a trial whose stage and setting are filled in here.
    """
    key = hash_json([VERSION, *provenance_key, bench.who])
    for row in jsonlines.read(bench.log):
        if row["key"] == key:
            return trial_from_json(row, stage, setting)
    started = time.perf_counter()
    try:
        trial = measure()
    except ModelError as error:  # a rate at which losses are no numbers is a finding
        trial = Trial(stage, setting, note=str(error))
    trial = replace(trial, stage=stage, setting=setting, seconds=time.perf_counter() - started)
    jsonlines.append(bench.log, [{"key": key, **trial_to_json(trial)}])
    return trial


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """A trial as a JSON object; it holds ids and numbers, no text of anybody."""
    return asdict(trial)


def trial_from_json(row: Mapping[str, Any], stage: TuneStage, setting: Setting) -> Trial:
    """Read a trial back, for a stage and setting that come to the same thing."""
    return Trial(
        stage=stage,
        setting=setting,
        sums={user: tuple(own) for user, own in row["sums"].items()},
        steps=row["steps"],
        seconds=row["seconds"],
        kept=row["kept"],
        note=row["note"],
    )


def _score_base(bench: Bench, config: Config, retrieved: int = 0) -> Trial:
    made = _base(bench, config)
    base = _loaded(bench, made)
    replies = answer_together(
        "M_base",
        bench.users,
        [None] * len(bench.users),
        base.model,
        base.tokenizer,
        settings_of(bench.config),
        bench.progress,
        system=config.model.device.system_prompt,
        retrieved=retrieved,
    )
    return Trial("base", {}, _sums(replies), steps=len(made.losses))


def _score_cloud(bench: Bench, config: Config) -> Trial:
    tuning = public_tuning(config, bench.public)
    large = LargeModel(config.model.cloud, tuning, bench.progress)
    replies = answer_together(
        "M_cloud",
        bench.users,
        [large.adapter] * len(bench.users),
        large.model,
        large.tokenizer,
        settings_of(bench.config),
        bench.progress,
        system=large.system_prompt,
    )
    marker = ensure_cloud(config.model.cloud, tuning, bench.progress) / atomic.MARKER
    losses = json.loads(marker.read_text(encoding="utf-8"))["losses"]
    return Trial("cloud", {}, _sums(replies), steps=len(losses))


def _adapter_trial(
    bench: Bench, made: BaseModel, stage: TuneStage, setting: Setting, kept: Kept
) -> Trial:
    settings = settings_of(applied(bench.config, setting))
    texts = [
        [user, [[pair.input, pair.response] for pair in own]]
        for user, own in sorted(kept.items())
        if own
    ]
    key = [made.base_id, settings_to_json(settings), bench.config.seed, texts]
    return _measured(
        bench, stage, setting, key, partial(_score_adapters, bench, made, settings, kept)
    )


def _score_adapters(bench: Bench, made: BaseModel, settings: DeviceSettings, kept: Kept) -> Trial:
    """Adapt and answer for every pseudo-target, as many together as suits the model."""
    base = _loaded(bench, made)
    size = suited_size(base.model.config.hidden_size, on_gpu=base.model.device.type == "cuda")
    sums: dict[str, tuple[float, ...]] = {}
    steps = 0
    with bench.progress.phase("adapters", len(bench.users)) as phase:
        for start in range(0, len(bench.users), size):
            part = bench.users[start : start + size]
            requests = [_request(bench, made, settings, kept.get(u.user_id, ())) for u in part]
            for reply, taken in adapt_and_answer(base, part, requests, settings):
                sums[reply.user_id], steps = reply.sums, steps + taken
                phase.advance()
    return Trial("adapters", {}, sums, steps=steps)


def _request(
    bench: Bench, made: BaseModel, settings: DeviceSettings, kept: Sequence[Pair]
) -> AdaptRequest:
    return AdaptRequest(
        arm="tune",
        base_id=made.base_id,
        settings=settings_to_json(settings),
        seed=bench.config.seed,
        kept=tuple(kept),
        extra_records=0,
    )


def adapt_and_answer(
    base: Base,
    users: Sequence[UserHistory],
    requests: Sequence[AdaptRequest],
    settings: DeviceSettings,
) -> Iterator[tuple[AnswerReply, int]]:
    """Train the users' adapters together and answer with each its own queries.

    Yields:
        Per user the scored answers and the optimizer steps taken.

    Raises:
        ModelError: If a loss is not finite.
    """
    from clients import adaptation

    with TemporaryDirectory() as folder:
        work = [
            adaptation.prepare(device_of(user, Path(folder, str(place))), base, request, settings)
            for place, (user, request) in enumerate(zip(users, requests, strict=True))
        ]
    results = [_sound(each) for each in _trained(base, work)]
    replies = answer_together(
        "tune",
        users,
        [result.state for result in results],
        base.model,
        base.tokenizer,
        settings,
        LoggedProgress(),
        system=settings.system_prompt,
    )
    for reply, result in zip(replies, results, strict=True):
        yield reply, result.report.steps


def _trained(base: Base, work: Sequence[PreparedTraining]) -> Sequence[CohortResult]:
    from clients import adaptation
    from models.multi_lora.cohort import train_shrinking
    from models.multi_lora.stacked import NotStackableError

    try:
        return train_shrinking(
            base.model,
            [own.job for own in work],
            checkpointing=work[0].checkpointing,  # none of these devices has limits
        )
    except NotStackableError:
        return [adaptation.train_alone(base, own) for own in work]


def _sound(result: CohortResult) -> CohortResult:
    if result.error is not None:
        raise result.error
    return result


def device_of(user: UserHistory, folder: Path) -> Device:
    """A device for a public user; what it notes of its trainings goes to ``folder``."""
    return Device(folder, user, Policy(ratio=1.0), bytes(SECRET_BYTES))


def _base(bench: Bench, config: Config) -> BaseModel:
    """M_base of one setting, from the cache or made."""
    return ensure_base(config.model.device, public_tuning(config, bench.public), bench.progress)


def _loaded(bench: Bench, made: BaseModel) -> Base:
    """M_base with its adapter slot; loaded once for all trials of one M_base.

    It takes all processors, as this process alone works.
    """
    from clients import base

    threads = bench.config.resources.num_cpus or os.cpu_count() or 1
    return base.load(made.folder, bench.config.qlora, threads)


def _candidates(bench: Bench, config: Config) -> Candidates:
    """Write and score k candidates for every record of every pseudo-target."""
    tuning = public_tuning(config, bench.public)
    adapter = ensure_augmenter(config.augmenter, config.model.cloud, tuning, bench.progress)
    if adapter is not None:
        config = replace(config, augmenter=replace(config.augmenter, adapter=str(adapter)))
    augmenter = CloudAugmenter(
        config.augmenter,
        config.task,
        cloud_here(config),
        public=bench.public,
        cache=tuning.cache,
        seed=config.seed,
    )
    shared = {user.user_id: user.pairs for user in bench.users}
    ledger = Ledger(bench.log.parent / "ledger.jsonl")
    return augmenter.write(shared, augmenter.k, ledger, bench.progress).candidates


def _selections(candidates: Candidates, config: Config) -> dict[str, Selection]:
    """What the filters keep: counted anew from stored scores, no model is asked."""
    return {user: select(own, config.filters) for user, own in candidates.items()}


def _sums(replies: Iterable[AnswerReply]) -> dict[str, tuple[float, ...]]:
    return {reply.user_id: reply.sums for reply in replies}
