"""What the cloud does: write candidates and filter them."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from conf.schema.models import CausalModelConfig
from conf.schema.types import STRICT, Fraction, PositiveShare


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
