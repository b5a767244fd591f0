"""A cloud model behind an OpenAI-compatible endpoint, as the augmentation sees it.

    prompt -> request -> reply | Lost

A request that fails for a passing reason (time-out, 429, 5xx, a connection that breaks, a reply
that is no chat completion or has no text) is sent again with a growing wait, or after what
Retry-After says, within the limits of one request and of the run's budget. A reason that will not
pass (a revoked key, a spent quota, a model that is not there or is another one) ends the writing at
once; a refusal of one prompt ends that prompt. What got no reply is :class:`Lost` with its reason
and the endpoint's own words, and is never cached. Every outcome is counted.

The key is read from the environment when the first prompt comes and is kept in the client alone.
Proxies are those of the environment, as the openai client takes them.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import httpx2

from conf.errors import ConfigError
from conf.schema import AugmenterConfig, EndpointConfig
from conf.seeds import derive_seed
from storage.hashing import hash_json
from storage.proxies import proxy_refusal
from storage.text_files import printable
from strategy.augmentation import Lost, Reply

if TYPE_CHECKING:
    from openai import AsyncOpenAI

NO_KEY = "none"  # the client wants one even where the endpoint does not
SEEDS = 1 << 31  # endpoints take seeds of 31 bits
QUOTA = "quota spent"
REFUSED_STATUS = {
    401: "key refused",
    402: QUOTA,
    403: "key refused",
    404: "no such model or address",
}
CUT = ("length",)  # reasons for which a reply ends before its end
FILTERED = ("content_filter",)
OTHER_MODEL = "answered by another model"
ANY = "*"
_FINAL = (*REFUSED_STATUS.values(), OTHER_MODEL)
_LONGEST_SAID = 200
_LONGEST_ECHO = 24  # characters of a prompt that an endpoint's words may repeat


class EndpointGenerator:
    """The endpoint in the place of the cloud language model.

    Attributes:
        counts: Requests by outcome: "ok", "retried", and "lost: ..." with its reason.
    """

    def __init__(
        self, config: AugmenterConfig, endpoint: EndpointConfig, system: str | None
    ) -> None:
        """Remember where to ask; nothing is sent before the first prompt."""
        self._sampling, self._endpoint, self._system = config.sampling, endpoint, system
        self._retries_left = endpoint.retry_budget
        self._stopped: Lost | None = None
        self.counts: Counter[str] = Counter()

    @cached_property
    def identity(self) -> str:
        """The model's name at its endpoint and the system turn; the address may change."""
        return hash_json(["endpoint", self._endpoint.model, self._system])

    def write(
        self, prompts: Sequence[str], seeds: Sequence[int], on_done: Callable[[int], None]
    ) -> list[Reply | Lost]:
        """Answer each prompt under its own seed, as far as the endpoint keeps the seed."""
        return asyncio.run(self._write(prompts, seeds, on_done))

    async def _write(
        self, prompts: Sequence[str], seeds: Sequence[int], on_done: Callable[[int], None]
    ) -> list[Reply | Lost]:
        places = asyncio.Semaphore(self._endpoint.concurrency)

        async def one(client: AsyncOpenAI, prompt: str, seed: int) -> Reply | Lost:
            async with places:
                outcome = await self._ask(client, prompt, seed)
            on_done(1)
            self.counts["ok" if isinstance(outcome, Reply) else f"lost: {outcome.reason}"] += 1
            return outcome

        async with self._client() as client:
            pairs = zip(prompts, seeds, strict=True)
            return list(await asyncio.gather(*(one(client, *pair) for pair in pairs)))

    async def _ask(self, client: AsyncOpenAI, prompt: str, seed: int) -> Reply | Lost:
        attempt = 0
        while self._stopped is None:
            outcome, wait_s = await self._attempt(client, prompt, seed, attempt)
            if isinstance(outcome, Reply):
                return outcome
            if outcome.reason in _FINAL:
                self._stopped = outcome
            attempt += 1
            spent = attempt == self._endpoint.attempts or self._retries_left <= 0
            if spent or self._stopped or wait_s is None:
                return outcome
            self._retries_left -= 1
            self.counts["retried"] += 1
            await asyncio.sleep(wait_s)
        return self._stopped

    async def _attempt(
        self, client: AsyncOpenAI, prompt: str, seed: int, attempt: int
    ) -> tuple[Reply | Lost, float | None]:
        """Send once; returns the outcome and how long to wait, None where it is no use."""
        import openai

        wait_s = self._backoff(seed, attempt)
        try:
            async with asyncio.timeout(self._endpoint.timeout_s):
                completion = await client.chat.completions.create(**self._request(prompt, seed))
        except (TimeoutError, openai.APITimeoutError):
            return Lost("no reply in time"), wait_s
        except openai.APIStatusError as error:
            return self._refused(error, prompt, wait_s)
        except (openai.APIConnectionError, httpx2.HTTPError):
            return Lost("connection broke"), wait_s
        except _TooLargeError:
            return Lost("reply too large"), wait_s
        except (openai.APIError, ValueError):
            return Lost("reply is no chat completion"), wait_s
        outcome = self._read(completion, prompt)
        refused = isinstance(outcome, Lost) and outcome.reason.startswith("refused")
        return outcome, None if refused else wait_s

    def _refused(self, error: Any, prompt: str, wait_s: float) -> tuple[Lost, float | None]:
        status, said = int(error.status_code), self._said(_message(error.body), prompt)
        if status in REFUSED_STATUS:
            return Lost(REFUSED_STATUS[status], said), None
        if status == 429 and _is_quota(error.body):
            return Lost(QUOTA, said), None
        if status != 429 and status < 500:
            return Lost(f"status {status}", said), None
        asked_s = _retry_after(error.response.headers)
        if asked_s > self._endpoint.max_backoff_s:
            return Lost(f"status {status}, asks to wait too long", said), None
        return Lost(f"status {status}", said), max(wait_s, asked_s)

    def _read(self, completion: Any, prompt: str) -> Reply | Lost:
        try:
            choice, model = completion.choices[0], completion.model
            text, ended = choice.message.content, choice.finish_reason
            refusal = getattr(choice.message, "refusal", None)
            tokens = completion.usage.completion_tokens if completion.usage else 0
        except (AttributeError, IndexError, TypeError):
            return Lost("reply is no chat completion")
        if not isinstance(model, str) or not self._is_served(model):
            return Lost(OTHER_MODEL, self._said(f"it says {model}", prompt))
        if refusal:
            return Lost("refused by the model", self._said(refusal, prompt))
        if ended in FILTERED:
            return Lost("refused by the endpoint's filter")
        if not isinstance(text, str):
            kind = "null" if text is None else f"a {type(text).__name__}"
            return Lost(f"reply has no text: its content is {kind}, finish reason {ended}"[:120])
        if not text.strip():
            return Lost("reply is empty")
        return Reply(text, int(tokens or 0), ended not in CUT)

    def _is_served(self, name: str) -> bool:
        endpoint = self._endpoint
        others = endpoint.served_names
        return ANY in others or any(_same_model(each, name) for each in (endpoint.model, *others))

    def _said(self, message: object, prompt: str) -> str:
        """The endpoint's own words on one line, short, without the key or a part of the prompt."""
        text = printable(" ".join(str(message).split())) if message else ""
        key = key_of(self._endpoint)
        if key != NO_KEY:
            text = text.replace(key, "(key)")
        echoes = (prompt[start : start + _LONGEST_ECHO] for start in range(len(prompt)))
        if any(len(echo) == _LONGEST_ECHO and echo in text for echo in echoes):
            return "(its words repeat the prompt and are not shown)"
        return text if len(text) <= _LONGEST_SAID else f"{text[: _LONGEST_SAID - 1]}…"

    def _request(self, prompt: str, seed: int) -> dict[str, Any]:
        sampling = self._sampling
        turns = [{"role": "user", "content": prompt}]
        if self._system is not None:
            turns.insert(0, {"role": "system", "content": self._system})
        beyond = {}  # what OpenAI's own interface does not know goes along only where it is set
        if sampling.top_k:
            beyond["top_k"] = float(sampling.top_k)
        if sampling.repetition_penalty != 1:
            beyond["repetition_penalty"] = sampling.repetition_penalty
        return {
            "model": self._endpoint.model,
            "messages": turns,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._endpoint.length_field: sampling.max_new_tokens,
            **({"seed": seed % SEEDS} if self._endpoint.send_seed else {}),
            "extra_body": beyond or None,
        }

    def _backoff(self, seed: int, attempt: int) -> float:
        """Wait before the next attempt: doubled each time, spread so that not all come at once."""
        endpoint = self._endpoint
        spread = random.Random(derive_seed(seed, "backoff", attempt)).uniform(0.5, 1)
        return float(min(endpoint.max_backoff_s, endpoint.backoff_s * 2**attempt * spread))

    def _client(self) -> AsyncOpenAI:
        return open_client(self._endpoint)


def open_client(endpoint: EndpointConfig) -> AsyncOpenAI:
    """The client of an endpoint; nothing is sent yet.

    Raises:
        ConfigError: If there is no key, or the environment names a proxy that cannot be used.
    """
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    async def bound(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _TooLargeError  # what it would become is known after it has become so
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _BoundedStream(response.stream, endpoint.max_reply_bytes)

    key = key_of(endpoint)
    try:
        http_client = DefaultAsyncHttpxClient(
            timeout=endpoint.timeout_s, event_hooks={"response": [bound]}
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise ConfigError(proxy_refusal(error)) from error
    return AsyncOpenAI(
        api_key=key,
        base_url=endpoint.base_url,
        max_retries=0,  # the retries here are counted and have a budget
        timeout=endpoint.timeout_s,
        http_client=http_client,
        default_headers={"Accept-Encoding": "identity"},
    )


def key_of(endpoint: EndpointConfig) -> str:
    """The endpoint's key.

    Raises:
        ConfigError: If the environment has none.
    """
    name = endpoint.key_variable
    if name is None:
        return NO_KEY
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"augmenter.endpoint: expected the key in ${name}, there is none; export {name}=..., "
            "or set augmenter.endpoint.key_variable=null for an endpoint without keys"
        )
    return key


def _message(body: object) -> object:
    """The endpoint's message in the body of an error, as OpenAI and the servers like it send it."""
    inner = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(inner, dict):
        return inner.get("message") or inner.get("detail")
    return inner


def _is_quota(body: object) -> bool:
    """Whether an error with status 429 is a spent quota, which waiting does not bring back."""
    inner = body.get("error", body) if isinstance(body, dict) else {}
    told = (inner.get("code"), inner.get("type")) if isinstance(inner, dict) else ()
    return any(each in ("insufficient_quota", "billing_hard_limit_reached") for each in told)


def _same_model(asked: str, got: str) -> bool:
    """Whether ``got`` is the model asked for; endpoints add versions ("gpt-4o-2024-08-06")."""
    return got.rpartition("/")[2].startswith(asked.rpartition("/")[2])


def _retry_after(headers: httpx2.Headers) -> float:
    """Seconds that the endpoint asks to wait; 0 where it names none, or a date."""
    try:
        return max(0.0, float(headers.get("retry-after", 0)))
    except ValueError:
        return 0.0


class _TooLargeError(Exception):
    """A reply has more bytes than are accepted."""


class _BoundedStream(httpx2.AsyncByteStream):
    """Stops reading a reply that is too large."""

    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream, self._left = stream, max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            self._left -= len(part)
            if self._left < 0:
                raise _TooLargeError
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
