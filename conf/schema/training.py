"""How adapters are trained, tuned, answered with and compared."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from conf.schema.cloud import SamplingConfig
from conf.schema.types import STRICT, AnswerRuntime, Dtype, Fraction, GgufWeights, TuneStage


@dataclass(frozen=True, kw_only=True, config=STRICT)
class QLoraConfig:
    """Hyperparameters of the adapters: of one user's, and of the base model's on the public users.

    Attributes:
        quant_type: bitsandbytes 4-bit type, stated because the library's own default is "fp4".
        double_quant: Quantise the quantisation constants too.
        compute_dtype: Type of the matrix products; adapters are kept in float32.
        dequantise_once: Keep one dequantised copy of the base per process: the same numbers,
            without dequantising at every step. Memory is reported as the device would need it.
        rank: LoRA rank r: A is (r, d_in), B is (d_out, r).
        alpha: LoRA scaling numerator; the update is scaled by alpha / r.
        dropout: Dropout in front of A.
        learning_rate: AdamW peak learning rate of a user's adapter.
        epochs: Passes over a user's records.
        batch_size: Records per optimizer step.
        warmup: Share of the steps with rising learning rate; then linear decay to 0.
        clip: Largest gradient norm.
        weight_decay: AdamW weight decay.
        max_seq_len: Prompt and response, in tokens; longer prompts lose their oldest tokens.
        cohort: Users trained in one pass over the base; "auto" takes what suits machine and model.
            The adapters are the same up to rounding; with 1 they are the same to the last byte
            whoever else is in the run.
        save_every: A device that trains alone saves where it stands every so many steps, and goes
            on there after it was killed, to the same bytes; 0 begins again.
        gradient_checkpointing: Keep the inputs of a model's blocks alone and compute the rest again
            in the backward pass, for half as much arithmetic again. "auto" does so where a device's
            memory holds no row without, and where memory ran out with single rows.
        base_learning_rate: Peak learning rate of the base model's tuning.
        base_epochs: Passes over the public users' records.
        base_batch_size: Records per optimizer step of the base model's tuning.
        base_max_records: At most this many public records; None for all.
        base_rag: Tune M_base and M_cloud for the *_rag methods too: every second prompt, drawn by
            the seed, has evaluation.rag_items of the public user's own other records in it.
        cloud_learning_rate: As ``base_learning_rate``, of the large model's tuning; None takes that
            one.
        cloud_epochs: As ``base_epochs``, of the large model's tuning; None takes that one.
        cloud_batch_size: As ``base_batch_size``, of the large model's tuning; None takes that one.
    """

    quant_type: Literal["nf4"] = "nf4"
    double_quant: bool = False
    compute_dtype: Dtype = "bfloat16"
    dequantise_once: bool = True
    rank: PositiveInt = 16
    alpha: PositiveFloat = 8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    learning_rate: PositiveFloat = 1e-4
    epochs: PositiveInt = 2
    batch_size: PositiveInt = 16
    warmup: Fraction = 0.1
    clip: PositiveFloat = 0.3
    weight_decay: NonNegativeFloat = 0.01
    max_seq_len: PositiveInt = 1024
    cohort: Literal["auto"] | PositiveInt = "auto"
    save_every: NonNegativeInt = 0
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    base_learning_rate: PositiveFloat = 1e-4
    base_epochs: PositiveInt = 3
    base_batch_size: PositiveInt = 16
    base_max_records: PositiveInt | None = None
    base_rag: bool = False
    cloud_learning_rate: PositiveFloat | None = None
    cloud_epochs: PositiveInt | None = None
    cloud_batch_size: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TuneConfig:
    """What ``python -m sim tune`` tries, on public users set apart as pseudo-targets.

    An empty list leaves a setting as it is configured.

    Attributes:
        stages: What is tuned; always in the order M_base, retrieval, M_cloud, adapters,
            augmentation. Retrieval, for the *_rag methods, is left out unless it is named.
        users: Pseudo-target users: the longest histories among the public users.
        base_learning_rates: Tried as ``qlora.base_learning_rate``.
        base_epochs: Tried as ``qlora.base_epochs``.
        base_batch_sizes: Tried as ``qlora.base_batch_size``.
        rag_items: Tried as ``evaluation.rag_items``; with ``qlora.base_rag`` each has an M_base
            that was tuned on so many.
        cloud_learning_rates: Tried as ``qlora.cloud_learning_rate``.
        cloud_epochs: Tried as ``qlora.cloud_epochs``.
        cloud_batch_sizes: Tried as ``qlora.cloud_batch_size``.
        learning_rates: Tried as ``qlora.learning_rate``.
        epochs: Tried as ``qlora.epochs``.
        batch_sizes: Tried as ``qlora.batch_size``.
        prompts: Tried as ``augmenter.prompt``.
        temperatures: Tried as ``augmenter.sampling.temperature``.
        eps_scf: Tried as ``filters.eps_scf``, where the judge is an NLI model.
        eps_embedding: Tried as ``filters.eps_embedding``, where it is an encoder.
        eps_tdf: Tried as ``filters.eps_tdf``.
        least_kept: Adapters are trained for a setting of the augmentation only where at least this
            share of the generated pairs is kept (the paper's Table 4 implies .03).
        most_kept: And at most this one (the paper's Table 4 implies .33).
    """

    stages: Annotated[tuple[TuneStage, ...], Field(min_length=1)] = (
        "base",
        "cloud",
        "adapters",
        "augmentation",
    )
    users: Annotated[int, Field(ge=2)] = 12
    base_learning_rates: tuple[PositiveFloat, ...] = (1e-4, 3e-4, 1e-3)
    base_epochs: tuple[PositiveInt, ...] = (1, 3)
    base_batch_sizes: tuple[PositiveInt, ...] = ()
    rag_items: tuple[PositiveInt, ...] = (1, 2, 4, 8)
    cloud_learning_rates: tuple[PositiveFloat, ...] = (1e-4, 3e-4, 1e-3)
    cloud_epochs: tuple[PositiveInt, ...] = (1, 3)
    cloud_batch_sizes: tuple[PositiveInt, ...] = ()
    learning_rates: tuple[PositiveFloat, ...] = (1e-4, 3e-4, 1e-3)
    epochs: tuple[PositiveInt, ...] = (2, 4)
    batch_sizes: tuple[PositiveInt, ...] = (8, 16)
    prompts: tuple[str, ...] = ("paper", "paraphrase")
    temperatures: tuple[NonNegativeFloat, ...] = (0.5, 0.7, 0.9)
    eps_scf: tuple[Fraction, ...] = (0.5, 0.75)
    eps_embedding: tuple[Fraction, ...] = (0.7, 0.85)
    eps_tdf: tuple[Fraction, ...] = (0.75, 0.85)
    least_kept: Fraction = 0.03
    most_kept: Fraction = 0.33


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """How the target users' queries are answered and what of it crosses the wire.

    Attributes:
        disclose: "queries" sends numbers per query id, "sums" only their sums per user.
        ship_predictions: Send prediction texts too (case studies); the ledger says so.
        exclude_contaminated: Leave out queries whose text stands in the user's own profile.
        batch_size: Queries answered at once.
        bertscore: Encoder of BERTScore-F1 for texts, a folder or a name on the hub; on a GPU where
            the device's process has one. None reports 'n/a'.
        rag_items: Records of the user's profile that the *_rag methods put into a prompt.
        rag_max_tokens: Length of these records together, in tokens, split evenly over them.
        bootstrap: Resamples of every interval.
        confidence: Coverage of every interval.
        margin: Non-inferiority to the cloud model is shown where a method's headline score is
            not worse by more than this, in the metric's own unit.
        runtime: What devices answer through: "transformers", or "llamacpp" as on a phone, one
            prompt at a time (docs/device.md). The cloud's oracles stay with transformers.
        weights: Type of the base's matrices for llama.cpp.
        merge_adapters: Add a user's adapter to the base's weights while that user is answered,
            users one after the other: faster one prompt at a time, at a rounding (docs/device.md).
    """

    disclose: Literal["queries", "sums"] = "queries"
    ship_predictions: bool = False
    exclude_contaminated: bool = True
    batch_size: PositiveInt = 64
    bertscore: str | None = None
    rag_items: PositiveInt = 4
    rag_max_tokens: PositiveInt = 256
    bootstrap: PositiveInt = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    margin: NonNegativeFloat = 0.05
    runtime: AnswerRuntime = "transformers"
    weights: GgufWeights = "q8_0"
    merge_adapters: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BaselinesConfig:
    """Settings of the methods that cdcda is compared with.

    Attributes:
        eda_rate: Share of an input's words that one EDA operation changes; at least one word.
        thesaurus: Where EDA finds synonyms: "wordnet" through nltk, or the miniature "world"'s own
            words; "auto" takes the world's for data=miniature.
        rkd_weight: Weight of the reverse KL beside the cross-entropy.
        fedavg_rounds: Rounds of fedavg: every user trains, the server averages.
        fedavg_epochs: Passes over a user's records in each of these rounds.
        dp_epsilons: Privacy losses of the *_dp methods; each gets an arm where there are several.
        dp_delta: Probability of a larger loss; below one over the records of a user.
        dp_clip: Largest gradient norm of one record under DP-SGD.
        gate_folds: Parts of D_u in the cross-validation of the *_gated methods.
        neighbours_pool: At most so many public records are sent to every device of
            neighbours_ft, which looks for the nearest among them.
    """

    eda_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    thesaurus: Literal["auto", "wordnet", "world"] = "auto"
    rkd_weight: NonNegativeFloat = 1.0
    fedavg_rounds: PositiveInt = 5
    fedavg_epochs: PositiveInt = 1
    dp_epsilons: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (8.0,)
    dp_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    dp_clip: PositiveFloat = 1.0
    gate_folds: Annotated[int, Field(ge=2)] = 2
    neighbours_pool: PositiveInt = 2000


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StreamConfig:
    """A device that sees its records as a stream and keeps a few (Qin et al., DAC'24).

    Attributes:
        bins: Places of the buffer.
        bin_bytes: Bytes of one place; a record that needs more is counted and not kept.
        dialogues: The stream is the newest so many records of the history; None for all.
        every: Fine-tune after every so many records of the stream.
        annotations: At most so many records are kept over the whole stream, as the user is asked
            for the response of each; None for no limit.
        reads: What selection may look at: what the user typed, or the response as well.
        entropy: What the entropy of embedding is taken of (re-derived, docs/assumptions.md): how
            often each input embedding stands in the text ("token"), the tokens' "surprisal", or
            the norms of the "hidden" states in front of the last normalisation.
        lexicons: Word lists per domain: "auto" for the miniature world's own or else made from
            the public users' texts, or a JSON file with domain -> words.
        lexicon_domains: Domains that "auto" looks for where texts carry none.
        lexicon_words: Words per domain of lexicons made by "auto".
        sets: Texts that the device writes per kept record; 0 for none.
        synth_response: Response of such a text: the record's own, or rewritten too.
        min_rouge1: Sanity check: least ROUGE-1 F1 to the record's own text.
        sampling: Sampling settings of the device's own model.
        batch_size: Records embedded or rewritten at once.
        curve: Answer the held-out queries after every fine-tuning, for the learning curve.
    """

    bins: PositiveInt = 128
    bin_bytes: PositiveInt = 22528
    dialogues: PositiveInt | None = None
    every: PositiveInt = 800
    annotations: NonNegativeInt | None = None
    reads: Literal["input", "pair"] = "input"
    entropy: Literal["token", "surprisal", "hidden"] = "token"
    lexicons: str = "auto"
    lexicon_domains: PositiveInt = 6
    lexicon_words: PositiveInt = 40
    sets: NonNegativeInt = 3
    synth_response: Literal["keep", "generate"] = "keep"
    min_rouge1: Fraction = 0.5
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    batch_size: PositiveInt = 64
    curve: bool = True
