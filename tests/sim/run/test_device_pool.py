"""A dead device process gets no messages, and those who live get them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

ignored = ("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(*ignored)]  # Ray leaves files open


class Device:
    """What Flower's actor does, without an app."""

    def __init__(self, on_actor_init_fn=None):
        self.getting_ready = on_actor_init_fn and on_actor_init_fn.__name__

    def run(self, app, message, cid, context):
        if message == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if message == "raise":
            raise ValueError("a device's own")
        if message == "how do you start?":
            return cid, self.getting_ready, context
        return cid, os.getpid(), context


@pytest.fixture
def make_pool(ray_up):
    from sim.run.device_pool import LivingPool

    made = []

    def make(**options):
        resources = {"num_cpus": 1, **options}
        pool = LivingPool(actor_type=ray_up.remote(Device), client_resources=resources)
        pool.add_actors_to_pool(pool.actors_capacity)
        made.extend(pool.pool)
        return pool

    yield make
    for actor in made:
        ray_up.kill(actor)


def ask(pool, message: str = "") -> int:
    """Let a device work on a message as Flower's backend does; return the id of its process."""
    future = pool.submit(
        lambda actor, app, message, cid, context: actor.run.remote(app, message, cid, context),
        (None, message, "0", None),
    )
    try:
        return pool.fetch_result_and_return_actor_to_pool(future)[0]
    except Exception:
        pool.add_actor_back_to_pool(future)
        raise


def test_who_never_comes_back_gets_nothing_more(make_pool, ray_up):
    pool = make_pool(max_restarts=0)  # as when its node is lost and no other has room
    with pytest.raises(ray_up.exceptions.RayActorError):
        ask(pool, "die")
    assert len({ask(pool) for _ in range(10)}) == 1


def test_who_comes_back_works_again(make_pool, ray_up):
    pool = make_pool(max_restarts=-1, max_task_retries=0)
    for _ in range(2):
        with pytest.raises(ray_up.exceptions.RayActorError):
            ask(pool, "die")
    assert ask(pool)
    while len(pool.pool) < 2:
        ask(pool)


def test_a_device_that_raises_stays_at_work(make_pool):
    pool = make_pool()
    with pytest.raises(ValueError, match="a device's own"):
        ask(pool, "raise")
    assert len(pool.pool) == 2


def test_a_device_process_gets_ready_before_its_first_message(make_pool):
    assert ask(make_pool(), "how do you start?") == "get_ready"


def test_getting_ready_imports_what_handlers_need():
    """In a process of its own, where nothing is imported yet."""
    script = (
        "import sys\n"
        "from sim.run.device_pool import get_ready\n"
        "get_ready().join(120)\n"
        "assert hasattr(sys.modules['clients.cohorts'], 'collect')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=150)
