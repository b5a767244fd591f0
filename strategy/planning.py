"""From what was shared and generated to the plans of all arms: who gets what, in which round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from conf.schema import Config
from conf.seeds import derive_seed
from lamp.dialogue.lexicons import Lexicon
from lamp.records import Pair
from protocol.codec import Arrays
from protocol.recipe import PLAIN, Recipe
from storage.hashing import hash_json
from strategy.arms import Arm
from strategy.diagnosis import Choice, Truth, diagnose
from strategy.filters import Candidate, Selection, select, select_random, select_readable
from strategy.method import KeptPairs
from strategy.run_log import RunLog
from strategy.taught import ChosenLogits

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
        answers: Whether the devices answer after this round.
    """

    arm: Arm
    base_id: str
    kept: Mapping[str, Sequence[Pair]] = field(default_factory=dict)
    logits: Mapping[str, Arrays] = field(default_factory=dict)
    taught: Mapping[str, Sequence[str]] = field(default_factory=dict)
    recipe: Recipe = PLAIN
    retrieved: int = 0
    answers: bool = True

    @property
    def training(self) -> tuple[str, int]:
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
        return hash_json([*facts, *taught])

    def answer_key(self, trained: str) -> str:
        """What names the answers of one user: model, adapter and prompts."""
        return hash_json([self.base_id, trained, self.retrieved])


@dataclass(frozen=True, slots=True)
class ArmInputs:
    """What the server has at hand before the first round.

    Attributes:
        shares: What each user shared, per ratio.
        candidates: Per user k candidates for each record of the largest share, in its order.
        logits: Per user the teacher's logits by record of the largest share.
        k: Samples per record among the candidates: the largest number that any arm takes.
        lexicons: Words per domain, for devices that see their history as a stream.
        truth: What the simulation knows of a synthetic pair, for the report alone.
    """

    shares: Shares = field(default_factory=dict)
    candidates: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    logits: Mapping[str, Arrays] = field(default_factory=dict)
    k: int = 0
    lexicons: tuple[Lexicon, ...] = ()
    truth: Truth | None = None


def largest_k(arms: Sequence[Arm], config: Config) -> int:
    """Samples per record that have to be written, so that a smaller k is a part of them."""
    return max(
        (arm.k or config.augmenter.k for arm in arms if arm.method.needs_augmentation), default=0
    )


def plan_arm(
    arm: Arm, base_id: str, inputs: ArmInputs, config: Config, log: RunLog
) -> list[ArmPlan]:
    """Plan the rounds of one arm."""
    rounds = config.baselines.fedavg_rounds if arm.method.federated else 1
    kept = _choose(arm, inputs, config, log) if arm.method.needs_augmentation else {}
    logits = _logits(arm, inputs) if arm.method.distils else {}
    return [
        ArmPlan(
            arm=arm,
            base_id=base_id,
            kept=kept,
            logits=logits,
            taught=_taught(arm, inputs) if arm.method.distils else {},
            recipe=arm.recipe(config, number, inputs.lexicons),
            retrieved=config.evaluation.rag_items if arm.method.retrieves else 0,
            answers=number == rounds - 1,
        )
        for number in range(rounds)
    ]


def _choose(arm: Arm, inputs: ArmInputs, config: Config, log: RunLog) -> KeptPairs:
    choices: dict[str, Choice] = {}
    for user, by_ratio in inputs.shares.items():
        shared = by_ratio[arm.asked_ratio]
        candidates = _candidates(inputs, user, len(shared), arm.k or config.augmenter.k)
        selection = _select(arm, candidates, config, derive_seed(config.seed, user, "choice"))
        choices[user] = Choice(shared, candidates, selection)
        if arm.method.downloads:
            log.augmentation(arm.name, user, len(shared), selection)
    if arm.method.downloads and not arm.method.adapter_of:
        seed = derive_seed(config.seed, "diagnosis")
        log.diagnosis(diagnose(arm.name, choices, inputs.truth, seed))
    return arm.method.hand_out({user: choice.selection.kept for user, choice in choices.items()})


def _candidates(inputs: ArmInputs, user: str, shared: int, k: int) -> list[Candidate]:
    """The first ``k`` samples of the first ``shared`` records: a smaller share is a prefix."""
    found = inputs.candidates[user][: shared * inputs.k]
    return [each for place, each in enumerate(found) if place % inputs.k < k]


def _select(arm: Arm, candidates: Sequence[Candidate], config: Config, seed: int) -> Selection:
    filters = arm.filters(config.filters)
    if arm.method.choice == "random":
        return select_random(candidates, filters, seed)
    if arm.method.choice == "all":
        return select_readable(candidates)
    return select(candidates, filters)


def _taught(arm: Arm, inputs: ArmInputs) -> dict[str, tuple[str, ...]]:
    return {
        user: tuple(pair.id for pair in by_ratio[arm.asked_ratio])
        for user, by_ratio in inputs.shares.items()
    }


def _logits(arm: Arm, inputs: ArmInputs) -> Mapping[str, Arrays]:
    return ChosenLogits(inputs.logits, _taught(arm, inputs)) if inputs.logits else {}
