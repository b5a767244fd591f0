"""The pool of device processes, one that hands out living ones only.

Flower's pool takes a dead actor back and hands it out next, so one death takes many messages with
it, and an actor whose node is lost takes them for ever. Here, after a death, whoever is idle is
asked whether he is there; who does not answer rests until he does. An actor that Ray brings back on
another node works again, one that fits nowhere rests to the end, and the others do its work.
"""

from __future__ import annotations

import importlib
import time
from threading import Lock, Thread
from typing import Any

import ray
from flwr.simulation.ray_transport.ray_actor import BasicActorPool

from conf.errors import RunError

POLL_S = 0.2
NOBODY_S = 300.0  # a lost node is noticed within seconds, a process comes back within a minute


def get_ready() -> Thread:
    """Import in the background what every device needs; a first message would wait for it."""
    thread = Thread(target=importlib.import_module, args=("clients.cohorts",), daemon=True)
    thread.start()
    return thread


class LivingPool(BasicActorPool):
    """Stands in for Flower's own pool."""

    def __init__(self, *, actor_kwargs: dict[str, Any] | None = None, **settings: Any) -> None:
        """Make a pool as Flower does, of actors that get ready while the server does.

        Not on a GPU: bitsandbytes would take memory of it while the cloud model has it.
        """
        kwargs = dict(actor_kwargs or {})
        if not settings["client_resources"].get("num_gpus"):
            kwargs["on_actor_init_fn"] = get_ready
        super().__init__(actor_kwargs=kwargs, **settings)
        self._lock = Lock()
        self._resting: dict[Any, Any] = {}  # the reply that would tell of an actor's life -> actor
        self._lost: set[Any] = set()

    def submit(self, actor_fn: Any, job: Any) -> Any:
        """Give a job to a living actor, as soon as there is one.

        Raises:
            RunError: If none is at work and none comes back.
        """
        actor = self._take()
        future = actor_fn(actor, *job)
        self._future_to_actor[future] = actor
        return future

    def fetch_result_and_return_actor_to_pool(self, future: Any) -> Any:
        """Return what the device replied; note where its process died."""
        try:
            return super().fetch_result_and_return_actor_to_pool(future)
        except ray.exceptions.RayTaskError:  # the device raised, its process is there
            raise
        except ray.exceptions.RayError:
            self._lost.add(future)
            raise

    def add_actor_back_to_pool(self, future: Any) -> None:
        """Take an actor back; after a death ask all who are idle."""
        with self._lock:
            self.pool.append(self._future_to_actor.pop(future))
            if future in self._lost:
                self._lost.discard(future)
                for actor in self.pool:
                    self._ask(actor)
                self.pool.clear()

    def _take(self) -> Any:
        alone_since = time.monotonic()
        while True:
            with self._lock:
                self._listen()
                if self.pool:
                    return self.pool.pop()
                if self._future_to_actor:
                    alone_since = time.monotonic()
            if time.monotonic() - alone_since > NOBODY_S:
                raise RunError(f"no device process came back within {NOBODY_S:.0f} s")
            time.sleep(POLL_S)

    def _ask(self, actor: Any) -> None:
        self._resting[actor.__ray_ready__.remote()] = actor

    def _listen(self) -> None:
        """Take those who answered back to work; ask the others again."""
        if not self._resting:
            return
        asked = list(self._resting)
        told, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
        for reply in told:
            actor = self._resting.pop(reply)
            try:
                ray.get(reply)
            except ray.exceptions.RayError:
                self._ask(actor)
            else:
                self.pool.append(actor)
