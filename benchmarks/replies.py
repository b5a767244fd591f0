r"""What a cloud model's replies are worth, per prompt and temperature: read, rejected, kept.

    python -m benchmarks.replies --prompts paper,paraphrase --temperatures 0.7,1.0 --records 40 \
        task=lamp_4 data=<folder> model=smollm2 model.cloud.path=<checkpoint>

Records are drawn from public users, never from target users, so that what is chosen here has seen
none of what is scored later. Replies, scores and filters are the product's own. They stay in the
cache: a measurement that was ended goes on where it was, and a run that asks the same finds them.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from rich.console import Console

from benchmarks.measure import Sheet, machine, markdown
from conf.compose import compose
from conf.errors import CdcdaError, ConfigError, DataError
from conf.schema import Config
from conf.seeds import derive_seed
from lamp import dataset
from lamp.records import Pair, UserHistory
from lamp.tasks import task
from models import sources
from sim.report.filter_tables import ALIGNED, FILTER_TITLES, READING_TITLES
from sim.run.cloud_workers import cloud_here
from sim.run.lifecycle import with_absolute_paths
from sim.run.progress import TerminalProgress
from storage import atomic
from strategy.augmentation import Counters, augment
from strategy.cache import Cache
from strategy.filters import Candidate, Selection, select
from strategy.progress import Progress, StepProgress
from strategy.prompting import Prompt, make_prompt

TITLES = {**READING_TITLES, ALIGNED: "other label", **FILTER_TITLES}
PART = 16  # records between two writes to the cache
USER = "replies"  # holds the entries in the cache


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to ask.

    Attributes:
        prompt: Name of the template, or its file.
        temperature: Sampling temperature.
    """

    prompt: str
    temperature: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one way to ask.

    Attributes:
        variant: The way.
        selection: What the filters kept and rejected.
    """

    variant: Variant
    selection: Selection

    @property
    def readable(self) -> int:
        """Replies from which a pair was read."""
        unread = (self.selection.rejected.get(reason, 0) for reason in READING_TITLES)
        return self.selection.generated - sum(unread)


def main(argv: Sequence[str]) -> int:
    """Measure, and print one Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replies", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="as for python -m sim")
    parser.add_argument("--prompts", default="paper", help="comma-separated: names or files")
    parser.add_argument("--temperatures", default="0.7", help="comma-separated")
    parser.add_argument("--records", type=int, default=40)
    parser.add_argument("--prefill", default="", help='how each reply begins, e.g. "Input: ["')
    parser.add_argument("--out", type=Path, help="file for the table as well")
    given = parser.parse_intermixed_args(argv)
    try:
        variants = variants_of(given.prompts, given.temperatures)
        config = with_absolute_paths(compose(given.words))
        augmenter = replace(config.augmenter, prefill=given.prefill)
        text = run(replace(config, augmenter=augmenter), variants, given.records)
    except CdcdaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.out is not None:
        atomic.write_text(given.out, f"{text}\n")
    print(text)
    return 0


def variants_of(prompts: str, temperatures: str) -> list[Variant]:
    """Every prompt at every temperature.

    Raises:
        ConfigError: If a temperature is no number.
    """
    try:
        numbers = [float(word) for word in temperatures.split(",")]
    except ValueError:
        raise ConfigError(
            f"--temperatures: expected numbers such as 0.7,1.0, got '{temperatures}'"
        ) from None
    return [Variant(*pair) for pair in product(prompts.split(","), numbers)]


def run(config: Config, variants: Sequence[Variant], records: int) -> str:
    """Ask in every way about the same records, and write the table.

    Raises:
        DataError: If there are no public records.
    """
    progress = TerminalProgress(Console(stderr=True))
    data = dataset.load(config)
    pairs = draw_records(data.public, records, config.seed)
    prompts = {
        name: make_prompt(
            replace(config.augmenter, prompt=name), data.task, data.public, config.seed
        )
        for name in {variant.prompt for variant in variants}
    }
    with StepProgress(progress) as steps:
        config, _ = sources.resolve(config, steps)
    outcomes = []
    for variant in variants:
        candidates = _ask(config, variant, prompts[variant.prompt], pairs, progress)
        outcomes.append(Outcome(variant, select(candidates, config.filters)))
        progress.note(" ".join(_cells(outcomes[-1], _reasons(outcomes[-1:]))))
    return "\n\n".join([machine(), markdown(sheet(config, outcomes, len(pairs)))])


def draw_records(public: Sequence[UserHistory], count: int, seed: int) -> list[Pair]:
    """Draw ``count`` public records, from as many users as there are, then from the same again.

    Raises:
        DataError: If there are none.
    """
    rng = random.Random(derive_seed(seed, "replies"))
    users = [rng.sample(user.pairs, len(user.pairs)) for user in public if user.pairs]
    rng.shuffle(users)
    deepest = max(map(len, users), default=0)
    drawn = [pairs[turn] for turn in range(deepest) for pairs in users if turn < len(pairs)]
    if not drawn:
        raise DataError("public users: expected records to ask about, got none; lower users")
    return [replace(pair, id=str(number)) for number, pair in enumerate(drawn[:count])]


def _ask(
    config: Config, variant: Variant, prompt: Prompt, pairs: Sequence[Pair], progress: Progress
) -> tuple[Candidate, ...]:
    sampling = replace(config.augmenter.sampling, temperature=variant.temperature)
    asked = replace(config.augmenter, prompt=variant.prompt, sampling=sampling)
    cloud = cloud_here(replace(config, augmenter=asked))
    cache = Cache(Path(config.paths.cache) / "augmentation.sqlite")

    def of(part: Sequence[Pair]) -> tuple[Candidate, ...]:
        return augment(
            {USER: part},
            task=task(config.task),
            config=asked,
            seed=config.seed,
            writer=cloud.writer,
            judge=cloud.judge,
            cache=cache,
            progress=progress,
            counters=Counters(),
            prompt=prompt,
            further=cloud.further,
        )[USER]

    try:  # in parts, each of which the cache keeps
        parts = [pairs[start : start + PART] for start in range(0, len(pairs), PART)]
        return tuple(each for part in parts for each in of(part))
    finally:
        cloud.end()


def sheet(config: Config, outcomes: Sequence[Outcome], records: int) -> Sheet:
    """The table: shares of all replies, so that a row's rejected and kept ones add up to all."""
    model, augmenter, filters = config.model, config.augmenter, config.filters
    reasons = _reasons(outcomes)
    begins = f", each reply begun with '{augmenter.prefill}'" if augmenter.prefill else ""
    return Sheet(
        setting=(
            f"{task(config.task).title}: {records} public records, {augmenter.k} replies each, at "
            f"most {augmenter.sampling.max_new_tokens} tokens{begins}; cloud "
            f"{Path(model.cloud.path).name}, NLI {Path(model.nli.path).name}; thresholds SCF "
            f"{filters.eps_scf:g}, TDF {filters.eps_tdf:g}, LSF {filters.eps_min_len:g} to "
            f"{filters.eps_max_len:g}; seed {config.seed}. Shares of all replies; a rejection "
            "counts under the first reason."
        ),
        heads=(
            "Prompt",
            "T",
            "Replies",
            "Readable",
            *(TITLES.get(reason, reason) for reason in reasons),
            "Kept",
        ),
        rows=tuple(_cells(outcome, reasons) for outcome in outcomes),
    )


def _reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """Every reason that occurs, reading first, then the filters in their order."""
    known = list(TITLES)
    named = {reason for outcome in outcomes for reason in outcome.selection.rejected}
    return [*(reason for reason in known if reason in named), *sorted(named - set(known))]


def _cells(outcome: Outcome, reasons: Sequence[str]) -> tuple[str, ...]:
    variant, selection = outcome.variant, outcome.selection
    counts = (
        outcome.readable,
        *(selection.rejected.get(reason, 0) for reason in reasons),
        len(selection.kept),
    )
    shares = (f"{count / max(1, selection.generated):.1%}" for count in counts)
    name = Path(variant.prompt).name
    return (name, f"{variant.temperature:g}", str(selection.generated), *shares)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
