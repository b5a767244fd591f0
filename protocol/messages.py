"""The messages of one run: query.hello, query.share, train.adapt, evaluate.answer.

A device that shares no disk with the server gets M_base by query.base first. Where devices of one
simulation train together (``qlora.cohort``), train.adapt comes in two parts: train.queue brings
what a device trains on, train.collect has it trained and fetches the numbers.

A device never sends a record that its consent does not cover, an adapter (but for fedavg, which is
about that), or the text of a query or prediction, except where ``evaluation.ship_predictions`` asks
for case studies and the ledger says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from conf.errors import ProtocolError
from lamp.records import Pair
from protocol.codec import Arrays, Range, WireMessage, holds

PROTOCOL_VERSION = 6

ANY = Range(low=-(1 << 63), high=(1 << 63) - 1)
NAME = Range(most=1 << 16)
UNIT = Range(0, 1)
SIGNED = Range(-1e308, 1e308)
RECORDS = Range(0, 10_000_000)
SUMS = Range(0, 1e308, undefined=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloRequest:
    """Server asks a node who it is."""

    TYPE: ClassVar[str] = "query.hello"
    version: int = holds("settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloReply:
    """Device names its user.

    Attributes:
        user_id: Whose device it is.
        version: Protocol version of the device.
        downloads: Whether base models are to be sent to it; a virtual device reads the server's.
        held: SHA-256 of the base models that a downloading device holds already.
    """

    TYPE: ClassVar[str] = "query.hello"
    user_id: str = holds("identity", within=NAME)
    version: int = holds("settings")
    downloads: bool = holds("settings", False)
    held: tuple[str, ...] = holds("settings", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRequest:
    """Server sends one part of a base model's bundle; all parts together have the digest.

    Attributes:
        base_id: The model's id, by which later messages name it.
        digest: SHA-256 of the whole bundle.
        part: Number of this part, from 0.
        parts: Number of parts.
        m_base: The part under the key "bytes", uint8, where the model is M_base.
        device_model: The same where it is the device model as it comes.
        signature: Ed25519 signature of the digest's hexadecimal digits, itself in such digits; ""
            where the operator signs nothing.
    """

    TYPE: ClassVar[str] = "query.base"
    base_id: str = holds("settings")
    digest: str = holds("settings")
    part: int = holds("settings")
    parts: int = holds("settings")
    m_base: Arrays = holds("M_base", dict)
    device_model: Arrays = holds("device model", dict)
    signature: str = holds("settings", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseReply:
    """Device has the part.

    Attributes:
        user_id: Whose device it is.
        complete: Whether the model is now there, checked and unpacked.
    """

    TYPE: ClassVar[str] = "query.base"
    user_id: str = holds("identity", within=NAME)
    complete: bool = holds("settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRequest:
    """Server asks for records; the device alone decides what it grants.

    Attributes:
        ratios: Share ratios asked for; 1.0 asks for as much as the user allows.
    """

    TYPE: ClassVar[str] = "query.share"
    ratios: tuple[float, ...] = holds("settings", within=Range(0, 1e6, most=10_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareReply:
    """Records that the user's consent covers.

    Attributes:
        user_id: Who shares.
        pairs: The records for the largest granted ratio, in the device's own sharing order.
        counts: Per ratio of the request, how many of ``pairs`` from the start belong to it.
        redactions: Per record, how many spans the device redacted.
    """

    TYPE: ClassVar[str] = "query.share"
    user_id: str = holds("identity", within=NAME)
    pairs: tuple[Pair, ...] = holds("shared pairs")
    counts: tuple[int, ...] = holds("numbers")
    redactions: tuple[int, ...] = holds("numbers", ())

    def __post_init__(self) -> None:
        """Refuse records that are there twice, and counts of other records."""
        number = len(self.pairs)
        if len({pair.id for pair in self.pairs}) != number:
            raise ProtocolError(f"{self.TYPE}: expected every record once, got one twice")
        if any(count > number for count in self.counts) or len(self.redactions) not in (0, number):
            raise ProtocolError(f"{self.TYPE}: expected counts of {number} records, got others")


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawRequest:
    """Server asks what the user took back since, so that it can forget it."""

    TYPE: ClassVar[str] = "query.withdraw"


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawReply:
    """Records that the user withdrew, by what they were.

    Attributes:
        user_id: Who withdrew.
        records: Content hashes of every form in which withdrawn records left the device.
    """

    TYPE: ClassVar[str] = "query.withdraw"
    user_id: str = holds("identity", within=NAME)
    records: tuple[str, ...] = holds("identity", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptRequest:
    """Server offers kept synthetic pairs and asks the device to train its private adapter.

    Attributes:
        arm: Name of the arm.
        base_id: Content id of M_base, which the device holds.
        settings: JSON of :class:`protocol.settings.DeviceSettings`.
        seed: The run's root seed.
        kept: Synthetic pairs that were chosen for this user.
        extra_records: Train as many steps as if D_u had so many more records (the control
            that is matched in steps).
        adapter: Names the adapter on the device; "" takes the arm's name.
        recipe: JSON of :class:`protocol.recipe.Recipe`.
        weights: Averaged LoRA weights to start from, float32, by the names of an adapter file.
        logits: What the teacher says by the shared pair's id, in the order of the completion's
            tokens: float16 logits of shape (scored tokens, vocabulary) of a small vocabulary;
            else float32 of shape (scored tokens, k + 1, 2), the k most likely tokens with their
            log probabilities, at last -1 and the log of the others' mass.
        public: Records of public users; the device trains on those nearest to its own, where the
            recipe says so.
    """

    TYPE: ClassVar[str] = "train.adapt"
    arm: str = holds("settings", within=NAME)
    base_id: str = holds("settings")
    settings: str = holds("settings")
    seed: int = holds("settings", within=ANY)
    kept: tuple[Pair, ...] = holds("kept pairs")
    extra_records: int = holds("settings")
    adapter: str = holds("settings", "")
    recipe: str = holds("settings", "{}")
    weights: Arrays = holds("averaged weights", dict)
    logits: Arrays = holds("teacher logits", dict)
    public: tuple[Pair, ...] = holds("public records", ())

    @property
    def adapter_name(self) -> str:
        """Name under which the device keeps the adapter."""
        return self.adapter or self.arm


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRequest(AdaptRequest):
    """Server leaves an adapt request on the device, to be trained when it is collected.

    Only requests without arrays are queued.
    """

    TYPE: ClassVar[str] = "train.queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReply:
    """Device has the request."""

    TYPE: ClassVar[str] = "train.queue"
    user_id: str = holds("identity", within=NAME)
    arm: str = holds("settings", within=NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectRequest:
    """Server asks for the training of what was queued; the reply is an :class:`AdaptReply`.

    Attributes:
        arm: Name of the arm.
        base_id: Content id of M_base.
        settings: JSON of :class:`protocol.settings.DeviceSettings`.
        adapter: Names the adapter on the device; "" takes the arm's name.
    """

    TYPE: ClassVar[str] = "train.collect"
    arm: str = holds("settings", within=NAME)
    base_id: str = holds("settings")
    settings: str = holds("settings")
    adapter: str = holds("settings", "")

    @property
    def adapter_name(self) -> str:
        """Name under which the device keeps the adapter."""
        return self.adapter or self.arm


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptReply:
    """What training took; the adapter itself stays on the device unless the recipe is federated.

    Attributes:
        user_id: Who trained.
        arm: Of the request.
        steps: Optimizer steps.
        records: Records of D_u trained on.
        synthetic: Further records trained on.
        losses: Mean loss of every step, nats per scored token.
        tokens: Tokens processed, padding left out.
        seconds: Wall time of the training.
        peak_memory_bytes: What an NF4 device would need for weights, adapter, gradients and
            optimizer; activations left out.
        adapter_bytes: Size of the stored adapter.
        weights: LoRA weights, where the recipe is federated; else none.
        curve_seen: Where the recipe has a stream: records seen at each point of the learning curve.
        curve: The task's headline metric on the held-out queries at each of these points.
        epoch_seconds: Seconds per epoch of each fine-tuning.
        phase_seconds: Seconds of selection, synthesis and the curve's answers.
        annotations: Records that the user was asked about.
        synthesis: Texts that the device wrote: kept, unreadable, copies, too unlike.
        buffer_bytes: Most bytes that the buffer held.
        shortened: Training examples that were too long and lost text; of a stream those of the
            last training.
        variation: Where the recipe has a stream: coefficients of variation over it of the entropy
            of embedding and of the domain-specific score.
        gate: Where the recipe has folds: 1 where the adapter is used, 0 where M_base answers in
            its place; else -1.
        reductions: How often memory ran out and training went on in a smaller way.
    """

    TYPE: ClassVar[str] = "train.adapt"
    user_id: str = holds("identity", within=NAME)
    arm: str = holds("settings", within=NAME)
    steps: int = holds("numbers")
    records: int = holds("numbers", within=RECORDS)
    synthetic: int = holds("numbers", within=RECORDS)
    losses: tuple[float, ...] = holds("numbers", within=SIGNED)
    tokens: int = holds("numbers")
    seconds: float = holds("numbers")
    peak_memory_bytes: int = holds("numbers")
    adapter_bytes: int = holds("numbers")
    weights: Arrays = holds("LoRA weights", dict)
    curve_seen: tuple[int, ...] = holds("numbers", ())
    curve: tuple[float, ...] = holds("numbers", (), SIGNED)
    epoch_seconds: tuple[float, ...] = holds("numbers", ())
    phase_seconds: tuple[float, ...] = holds("numbers", ())
    annotations: int = holds("numbers", 0)
    synthesis: tuple[int, ...] = holds("numbers", ())
    buffer_bytes: int = holds("numbers", 0)
    shortened: int = holds("numbers", 0)
    variation: tuple[float, ...] = holds("numbers", ())
    gate: int = holds("numbers", -1, Range(-1, 1))
    reductions: int = holds("numbers", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequest:
    """Server asks the device to answer its own queries offline and to report numbers.

    Attributes:
        arm: Name of the arm.
        base_id: Content id of the model that answers, M_base unless the arm takes another.
        settings: JSON of :class:`protocol.settings.DeviceSettings`.
        adapted: Whether an adapter answers; without one the model alone does.
        adapter: Name of the adapter; "" takes the arm's name.
        retrieved: Records of the user's own profile that stand in the prompt.
        weights: Averaged LoRA weights; the device keeps them as its adapter and answers with them.
    """

    TYPE: ClassVar[str] = "evaluate.answer"
    arm: str = holds("settings", within=NAME)
    base_id: str = holds("settings")
    settings: str = holds("settings")
    adapted: bool = holds("settings")
    adapter: str = holds("settings", "")
    retrieved: int = holds("settings", 0)
    weights: Arrays = holds("averaged weights", dict)

    @property
    def adapter_name(self) -> str | None:
        """Name of the adapter that answers; None for the model alone."""
        return (self.adapter or self.arm) if self.adapted else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerReply:
    """Numbers per query, or their sums; no texts unless case studies were asked for.

    The columns are parallel. A column that the task's metrics do not use is empty. With
    ``evaluation.disclose=sums`` all columns are empty and ``sums`` is filled instead.

    Attributes:
        user_id: Who answered.
        arm: Of the request.
        num_queries: How many queries were answered.
        query_ids: Official query ids.
        gold: Gold label indices (classification).
        predicted: Predicted label indices, -1 for an unreadable answer (classification).
        errors: Signed rating errors in stars (rating).
        rouge1: ROUGE-1 F1 (text).
        rouge_l: ROUGE-L F1 (text).
        bertscore: BERTScore F1 (text), where a model is configured.
        unicode_rouge1: ROUGE-1 F1 on Unicode tokens (text), where a gold answer is in a script that
            LaMP's ROUGE does not see; -1 for the others.
        parsed: 1 where the answer could be read.
        sums: Sums over the user's queries as ``lamp.metrics.sums`` defines them.
        seconds: Wall time of answering.
        tokens: Tokens generated.
        shortened: Queries whose prompt was too long and lost text.
        texts: Prediction texts; empty unless case studies were asked for.
        gold_texts: Gold texts; empty unless case studies were asked for.
    """

    TYPE: ClassVar[str] = "evaluate.answer"
    user_id: str = holds("identity", within=NAME)
    arm: str = holds("settings", within=NAME)
    num_queries: int = holds("numbers", within=RECORDS)
    query_ids: tuple[str, ...] = holds("identity")
    gold: tuple[int, ...] = holds("numbers", within=Range(0, 10_000))
    predicted: tuple[int, ...] = holds("numbers", within=Range(-1, 10_000))
    errors: tuple[float, ...] = holds("numbers", within=SIGNED)
    rouge1: tuple[float, ...] = holds("numbers", within=UNIT)
    rouge_l: tuple[float, ...] = holds("numbers", within=UNIT)
    bertscore: tuple[float, ...] = holds("numbers", within=Range(-1.001, 1.001))
    unicode_rouge1: tuple[float, ...] = holds("numbers", (), Range(-1, 1))
    parsed: tuple[int, ...] = holds("numbers", within=UNIT)
    sums: tuple[float, ...] = holds("numbers", within=SUMS)
    seconds: float = holds("numbers")
    tokens: int = holds("numbers")
    shortened: int = holds("numbers", 0)
    texts: tuple[str, ...] = holds("case studies")
    gold_texts: tuple[str, ...] = holds("case studies")

    def __post_init__(self) -> None:
        """Refuse columns that are not parallel, and a query that is there twice."""
        columns = (
            self.query_ids, self.gold, self.predicted, self.errors, self.rouge1, self.rouge_l,
            self.bertscore, self.unicode_rouge1, self.parsed, self.texts, self.gold_texts,
        )  # fmt: skip
        given = () if self.sums else (self.query_ids, self.parsed)
        if {len(column) for column in (*given, *filter(None, columns))} - {self.num_queries}:
            raise ProtocolError(
                f"{self.TYPE}: expected columns of {self.num_queries} queries, got others; "
                "both sides must run the same version"
            )
        if len(set(self.query_ids)) != len(self.query_ids):
            raise ProtocolError(f"{self.TYPE}: expected every query once, got one twice")


DEVICE_TO_SERVER: dict[str, type[WireMessage]] = {
    "query.hello": HelloReply,
    "query.base": BaseReply,
    "query.share": ShareReply,
    "query.withdraw": WithdrawReply,
    "train.adapt": AdaptReply,
    "train.queue": QueueReply,
    "train.collect": AdaptReply,
    "evaluate.answer": AnswerReply,
}
SERVER_TO_DEVICE = {
    each.TYPE: each
    for each in (
        HelloRequest,
        BaseRequest,
        ShareRequest,
        WithdrawRequest,
        AdaptRequest,
        QueueRequest,
        CollectRequest,
        AnswerRequest,
    )
}
