"""The record of one method: all that parts it from the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from protocol.recipe import Local, Recipe, Stream
from protocol.wire import Allowed
from strategy import recipes
from strategy.hand_out import KeptPairs, own_pairs
from strategy.recipes import MakeRecipe, RecipeInputs

Added = Literal["nothing", "kept", "logits", "public"]
SelectionRule = Literal["filtered", "random", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method; the fields say all that parts it from the others.

    Attributes:
        name: Name in configuration, tables and ledger.
        about: One line for tables and help.
        title: Narrow head of a column, of two lines at most; "" takes the name.
        colour: Colour in plots, as "#rrggbb"; "" takes one by the name.
        reference: Paper and year; "" for what is this project's own.
        studied: Whether it is the method that the project is about: case studies and pictures of
            what sharing brings show it.
        compared: Place among the methods that others are compared with, 1 for the first; 0 for
            none.
        without_sharing: Method that is the same at share ratio 0; "" where nothing is shared.
        variant_of: Method that it is a variant of; "" for none.
        oracle: Whether it reads every history outside the wire: all data in the cloud.
        answers: Whose model answers: the device's small one or the cloud's large one.
        tuned: Whether that model is tuned on the public users.
        adapts: Whether an adapter is trained: one per user, for an oracle one for all.
        recipe: What its devices do besides training on D_u and on what the messages bring.
        added: What the messages bring: kept synthetic pairs, the teacher's logits on shared
            pairs, or records of public users, the same for all devices.
        choice: Which of the readable synthetic pairs are kept.
        hand_out: Who gets whose kept pairs, by the run's seed; in simulations alone may it be
            another user's.
        matches_steps: Train on D_u alone, as many steps as with the kept pairs.
        retrieves: Whether records of the user's own profile stand in the prompt (RAG).
        adapter_of: Method whose adapter answers; "" for the method's own.
    """

    name: str
    about: str
    title: str = ""
    colour: str = ""
    reference: str = ""
    studied: bool = False
    compared: int = 0
    without_sharing: str = ""
    variant_of: str = ""
    oracle: bool = False
    answers: Literal["device", "cloud"] = "device"
    tuned: bool = True
    adapts: bool = False
    recipe: MakeRecipe = recipes.plain
    added: Added = "nothing"
    choice: SelectionRule = "filtered"
    hand_out: Callable[[KeptPairs, int], KeptPairs] = own_pairs
    matches_steps: bool = False
    retrieves: bool = False
    adapter_of: str = ""

    @property
    def heading(self) -> str:
        """Narrow head of a column, of two lines at most."""
        return self.title or self.name

    @property
    def usual_recipe(self) -> Recipe:
        """The recipe with the default settings: what kind of training it is."""
        return self.recipe(RecipeInputs())

    @property
    def federated(self) -> bool:
        """Whether the adapters are averaged over the users, round after round."""
        return self.usual_recipe.federated

    @property
    def private(self) -> bool:
        """Whether the adapter is trained with DP-SGD."""
        return self.usual_recipe.epsilon is not None

    @property
    def streaming(self) -> Stream | None:
        """How the device keeps a few records of D_u, seen as a stream; None for all of D_u."""
        return self.usual_recipe.stream

    @property
    def local(self) -> Local:
        """What a device makes by itself from the records that it would share."""
        return self.usual_recipe.local

    @property
    def downloads(self) -> bool:
        """Whether the devices train on synthetic pairs from the cloud."""
        return self.added == "kept"

    @property
    def distils(self) -> bool:
        """Whether the devices train on the teacher's logits."""
        return self.added == "logits"

    @property
    def reads_public(self) -> bool:
        """Whether the devices get records of public users."""
        return self.added == "public"

    @property
    def shares(self) -> bool:
        """Whether records leave the devices, through consent."""
        return self.downloads or self.distils

    @property
    def needs_augmentation(self) -> bool:
        """Whether the cloud has to augment for this method (for its data or its step count)."""
        return self.downloads or self.matches_steps

    @property
    def needs_shares(self) -> bool:
        """Whether the server has to ask for records for this method."""
        return self.shares or self.needs_augmentation

    @property
    def depends_on_ratio(self) -> bool:
        """Whether another share ratio makes another arm."""
        return self.added != "nothing" or self.local != "nothing" or self.matches_steps

    @property
    def depends_on_k(self) -> bool:
        """Whether another number of samples per shared record makes another arm."""
        return self.needs_augmentation or self.local != "nothing"

    @property
    def depends_on_thresholds(self) -> bool:
        """Whether other filter thresholds make another arm."""
        return self.needs_augmentation and self.choice != "all"

    @property
    def crosses_users(self) -> bool:
        """Whether a user may get what was made from another user's records."""
        return self.hand_out is not own_pairs

    @property
    def is_tuned_cloud(self) -> bool:
        """Whether it is the large model as it answers everybody: tuned, without anybody's items."""
        return self.answers == "cloud" and self.tuned and not self.retrieves

    @property
    def needs(self) -> Allowed:
        """What its messages hold beyond identity, settings and numbers."""
        up = {"shared pairs": self.needs_shares, "LoRA weights": self.federated}
        down = {
            "M_base": not self.oracle and self.tuned,
            "device model": not self.oracle and not self.tuned,
            "kept pairs": self.downloads,
            "teacher logits": self.distils,
            "public records": self.reads_public,
            "averaged weights": self.federated,
        }
        return Allowed(*(frozenset(each for each in part if part[each]) for part in (up, down)))
