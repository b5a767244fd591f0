"""From what was shared and generated to the plans of all arms: who gets what, in which round.

Everything here is a pure function: plans come back with the facts that are worth noting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from conf.schema import FiltersConfig
from conf.seeds import derive_seed
from lamp.records import Pair
from protocol.codec import Arrays
from protocol.recipe import PLAIN, Recipe
from storage.hashing import hash_json
from strategy.arms import Arm
from strategy.base_model import BaseModels
from strategy.diagnosis import Diagnosis, Truth, UserChoice, diagnose
from strategy.filters import Candidate, Selection, select, select_random, select_readable
from strategy.public import NO_RECORDS, RecordPool
from strategy.recipes import RecipeInputs
from strategy.taught import ChosenLogits

AdapterRound = tuple[str, int]  # name of the adapter, federated round
Shares = Mapping[str, Mapping[float, tuple[Pair, ...]]]  # user -> asked ratio -> records


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """One round of one arm, ready to run; only a federated arm has more than one.

    Attributes:
        arm: Method and ratio.
        base_id: Content id of the model that is adapted and answers.
        kept: Per user the synthetic pairs that were chosen.
        logits: Per user the teacher's logits by shared pair.
        taught: Per user the ids of the shared pairs whose logits the adapter is to see.
        recipe: What the devices do besides.
        retrieved: Records of the user's profile in each prompt.
        pool: Public records that every device gets.
        answers: Whether the devices answer after this round.
    """

    arm: Arm
    base_id: str
    kept: Mapping[str, Sequence[Pair]] = field(default_factory=dict)
    logits: Mapping[str, Arrays] = field(default_factory=dict)
    taught: Mapping[str, Sequence[str]] = field(default_factory=dict)
    recipe: Recipe = PLAIN
    retrieved: int = 0
    pool: RecordPool = NO_RECORDS
    answers: bool = True

    @property
    def training(self) -> AdapterRound:
        """What names this round's training; arms that train the same have the same name."""
        return self.arm.adapter, self.recipe.round

    def training_key(self, user: str, context: str) -> str:
        """What names the training of one user: everything that a request for it says.

        Of the teacher's logits only whose they are: the numbers follow from pair and seed.

        Args:
            user: Whose adapter.
            context: What all arms share.
        """
        kept = [[pair.input, pair.response] for pair in self.kept.get(user, ())]
        facts = [self.base_id, kept, self.arm.method.matches_steps, asdict(self.recipe), context]
        taught = [list(self.taught.get(user, ()))] if self.arm.method.distils else []
        pool = [self.pool.content_hash] if self.pool.records else []
        return hash_json([*facts, *taught, *pool])

    def answer_key(self, trained: str) -> str:
        """What names the answers of one user: model, adapter and prompts."""
        return hash_json([self.base_id, trained, self.retrieved])


@dataclass(frozen=True, slots=True)
class RunContext:
    """What all arms share.

    Attributes:
        nodes: Node id by user id.
        settings: Device settings as JSON.
        seed: Root seed.
        cohort: Devices that train together.
        withdrawn: Per user who took records back, what names these.
    """

    nodes: Mapping[str, int]
    settings: str
    seed: int
    cohort: int = 1
    withdrawn: Mapping[str, str] = field(default_factory=dict)

    def training_key(self, plan: ArmPlan, user: str) -> str:
        """What names a user's training; after a withdrawal, arms that share are trained again."""
        withdrawn = self.withdrawn.get(user, "") if plan.arm.method.depends_on_ratio else ""
        return plan.training_key(user, f"{self.seed} {self.settings} {withdrawn}")

    def answer_key(self, plan: ArmPlan, user: str) -> str:
        """What names a user's answers: the adapter, or the settings of who has none."""
        adapts = plan.arm.method.adapts
        trained = self.training_key(plan, user) if adapts else self.settings
        return plan.answer_key(trained)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """The settings that plans depend on.

    Attributes:
        filters: Thresholds where an arm has none of its own.
        recipes: What all arms' recipes depend on; ``k`` is that of arms without a number of their
            own.
        rag_items: Records of the user's profile in each prompt of a ``*_rag`` method.
        seed: Root seed.
    """

    filters: FiltersConfig
    recipes: RecipeInputs = field(default_factory=RecipeInputs)
    rag_items: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ArmInputs:
    """What the server has at hand before the first round.

    Attributes:
        shares: What each user shared, per ratio.
        candidates: Per user k candidates for each record of the largest share, in its order.
        k: Samples per record among the candidates: the largest number that any arm takes.
        truth: What the simulation knows of a synthetic pair, for the report alone.
        pool: Public records, for the arms whose devices get some.
    """

    shares: Shares = field(default_factory=dict)
    candidates: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    k: int = 0
    truth: Truth | None = None
    pool: RecordPool = NO_RECORDS


@dataclass(frozen=True, slots=True)
class PlannedArm:
    """The rounds of one arm, and how the pairs were chosen that its devices download.

    Attributes:
        name: The arm's name.
        rounds: One plan per round.
        choices: Per user what was shared, generated and kept; empty where nothing is downloaded.
        diagnosis: What the pairs are worth; empty where another arm has the same adapter.
    """

    name: str
    rounds: tuple[ArmPlan, ...]
    choices: Mapping[str, UserChoice] = field(default_factory=dict)
    diagnosis: tuple[Diagnosis, ...] = ()


def asked_ratios(arms: Sequence[Arm]) -> tuple[float, ...]:
    """The share ratios that the devices have to be asked for, rising."""
    return tuple(sorted({arm.asked_ratio for arm in arms if arm.method.needs_shares}))


def to_augment(arms: Sequence[Arm], shares: Shares) -> dict[str, tuple[Pair, ...]]:
    """Per user the records that have to be augmented: the largest share that any arm needs."""
    ratios = [arm.asked_ratio for arm in arms if arm.method.needs_augmentation]
    return {user: by_ratio[max(ratios)] for user, by_ratio in shares.items()} if ratios else {}


def largest_k(arms: Sequence[Arm], k: int) -> int:
    """Samples per record that have to be written, so that a smaller number is a part of them."""
    return max((arm.k or k for arm in arms if arm.method.needs_augmentation), default=0)


def plan_arms(
    arms: Sequence[Arm], bases: BaseModels, inputs: ArmInputs, settings: PlanSettings
) -> list[PlannedArm]:
    """Plan all arms that devices take part in, in their order."""
    return [
        plan_arm(arm, bases.of(tuned=arm.method.tuned).base_id, inputs, settings)
        for arm in arms
        if not arm.method.oracle
    ]


def plan_arm(arm: Arm, base_id: str, inputs: ArmInputs, settings: PlanSettings) -> PlannedArm:
    """Plan the rounds of one arm."""
    rounds = settings.recipes.baselines.fedavg_rounds if arm.method.federated else 1
    choices = _choose(arm, inputs, settings) if arm.method.needs_augmentation else {}
    kept = {user: choice.selection.kept for user, choice in choices.items()}
    plans = tuple(
        ArmPlan(
            arm=arm,
            base_id=base_id,
            kept=arm.method.hand_out(kept, settings.seed),
            taught=_taught(arm, inputs.shares) if arm.method.distils else {},
            recipe=arm.recipe(settings.recipes, number),
            retrieved=settings.rag_items if arm.method.retrieves else 0,
            pool=inputs.pool if arm.method.reads_public else NO_RECORDS,
            answers=number == rounds - 1,
        )
        for number in range(rounds)
    )
    if not arm.method.downloads:
        return PlannedArm(arm.name, plans)
    if arm.method.adapter_of:
        return PlannedArm(arm.name, plans, choices)
    diagnosis = diagnose(arm.name, choices, inputs.truth, derive_seed(settings.seed, "diagnosis"))
    return PlannedArm(arm.name, plans, choices, tuple(diagnosis))


def to_teach(
    plans: Sequence[ArmPlan], shares: Shares, is_trained: Callable[[ArmPlan, str], bool]
) -> dict[str, tuple[Pair, ...]]:
    """The largest shares of the users who still need the teacher's logits on them."""
    distilling = [plan for plan in plans if plan.arm.method.distils]
    ratio = max((plan.arm.asked_ratio for plan in distilling), default=0.0)
    return {
        user: by_ratio[ratio]
        for user, by_ratio in shares.items()
        if any(not is_trained(plan, user) for plan in distilling)
    }


def with_logits(plan: ArmPlan, logits: Mapping[str, Arrays]) -> ArmPlan:
    """The plan with the teacher's logits, those of its own share, where its devices distil."""
    if not plan.arm.method.distils:
        return plan
    return replace(plan, logits=ChosenLogits(logits, plan.taught))


def _choose(arm: Arm, inputs: ArmInputs, settings: PlanSettings) -> dict[str, UserChoice]:
    choices: dict[str, UserChoice] = {}
    for user, by_ratio in inputs.shares.items():
        shared = by_ratio[arm.asked_ratio]
        candidates = _candidates(inputs, user, len(shared), arm.k or settings.recipes.k)
        seed = derive_seed(settings.seed, user, "choice")
        selection = _select(arm, candidates, arm.filters(settings.filters), seed)
        choices[user] = UserChoice(shared, candidates, selection)
    return choices


def _candidates(inputs: ArmInputs, user: str, shared: int, k: int) -> list[Candidate]:
    """The first ``k`` samples of the first ``shared`` records: a smaller share is a prefix."""
    found = inputs.candidates[user][: shared * inputs.k]
    return [each for place, each in enumerate(found) if place % inputs.k < k]


def _select(
    arm: Arm, candidates: Sequence[Candidate], filters: FiltersConfig, seed: int
) -> Selection:
    if arm.method.choice == "random":
        return select_random(candidates, filters, seed)
    if arm.method.choice == "all":
        return select_readable(candidates)
    return select(candidates, filters)


def _taught(arm: Arm, shares: Shares) -> dict[str, tuple[str, ...]]:
    return {
        user: tuple(pair.id for pair in by_ratio[arm.asked_ratio])
        for user, by_ratio in shares.items()
    }
