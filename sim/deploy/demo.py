"""``python -m sim deploy-demo``: real devices on loopback beside a simulation of the same users.

    simulate three users -> give each a folder of its own -> SuperLink with TLS and known keys, a
    gateway for devices before it -> one SuperNode per folder; two SuperNodes and an app that must
    be refused -> run -> kill a device in mid-run -> compare -> stop everything -> ask a device

Everything happens on loopback and below one folder; what was started is ended by process id.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from clients import folder as device_folder
from clients import policy as policy_file
from clients import private_socket
from conf.compose import to_json
from conf.errors import RunError
from conf.schema import Config, EngineConfig
from sim import exit_status
from sim.deploy.coarse import coarse_run, compare_coarse, make_coarse
from sim.deploy.compare import Check, Sides, compare
from sim.folders import ROOT, RunFolder
from sim.run.credentials import LOOPBACK, Tls, make_node_key, make_signing_key, make_tls
from sim.run.engine import set_environment
from sim.run.flower_processes import (
    Control,
    Started,
    free_ports,
    start,
    start_gateway,
    start_superlink,
    start_supernode,
)
from sim.run.processes import alive, title
from sim.terminal import words_table
from storage import atomic, jsonlines
from strategy import public
from strategy.public import PublicUsers

USERS = 3
ARMS = ("cdcda@0.3", "cdcda@0.6")
WORDS = (
    "experiment=smoke",
    f"users={USERS}",
    "methods=[cdcda]",
    "ratios=[0.3,0.6]",
    "privacy=fixed",
    "privacy.ratio=0.6",
    "augmenter.k=3",
    # the tiny models judge and write at random: what can be read is kept
    "filters.eps_scf=0",
    "filters.eps_tdf=1",
    "filters.eps_min_len=0",
    "filters.eps_max_len=100",
    "qlora.cohort=1",
    "qlora.compute_dtype=float32",
    "model.cloud.dtype=float32",
    "model.device.dtype=float32",
    "evaluation.ship_predictions=true",  # so that texts can be compared
    "resources.client_limit_s=600",
    "resources.torch_threads=1",
)
OWN_FILES = ("history.json", "policy.json", "secret.bin", "order.json", "limits.json")
ONLINE_S = 180.0
RUN_S = 900.0
TRAINERS_S = 15.0  # a trainer looks every second whether its SuperNode is there
POLL_S = 0.3
REFUSALS = ("CERTIFICATE", "certificate verify", "uthenticat", "denied", "Failed to activate")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(slots=True)
class Demo:
    """What the demonstration has so far.

    Attributes:
        root: Where everything lies.
        console: Where it speaks.
        started: What it started, to be ended.
        trainers: Ids of the devices' trainers; each ends by itself when its SuperNode is gone.
        began: When it began.
    """

    root: Path
    console: Console
    started: list[Started] = field(default_factory=list)
    trainers: set[int] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Say one line with the time since the beginning."""
        seconds = time.monotonic() - self.began
        self.console.print(f"{seconds:5.0f} s  {text}")

    def look_for_trainers(self, devices: Mapping[str, Path]) -> None:
        """Remember the trainers that run now; they are no children of their SuperNodes."""
        found = {private_socket.written_pid(own) for own in devices.values()}
        self.trainers |= {pid for pid in found if pid is not None and b"trainer" in title(pid)}

    def own(self, started: Started) -> Started:
        """Remember a process that must be ended."""
        self.started.append(started)
        return started


def demonstrate(root: Path, cache: Path, console: Console) -> int:
    """Run the demonstration below ``root``.

    Returns:
        0 if every check is good, else 1.
    """
    set_environment()
    demo = Demo(root, console)
    with _ended(demo):
        checks = _demonstrate(demo, cache)
    checks.append(_nothing_left(demo))
    _print(demo, checks)
    return exit_status.OK if all(check.good for check in checks) else exit_status.FAILED


def _demonstrate(demo: Demo, cache: Path) -> list[Check]:
    demo.say("simulation of the same users, one at a time, float32, one thread")
    simulated = _simulate(demo, cache)
    deployed, devices = _split(demo, simulated)
    demo.say("SuperLink with TLS; three SuperNodes with known keys, two intruders")
    tls = make_tls(demo.root / "authority")
    port, outer = free_ports(2)
    address, shown = f"{LOOPBACK}:{port}", f"{LOOPBACK}:{outer}"
    superlink = demo.own(
        start_superlink(demo.root / "server" / "superlink", port, tls, authenticate=True)
    )
    gateway = demo.own(start_gateway(demo.root / "server" / "gateway", port, outer, tls))
    control = Control(demo.root / "server" / "operator", address, tls.ca)
    signing_key, public_key = make_signing_key(demo.root / "server" / "signing")
    for own in devices.values():  # exact numbers, for the comparison alone
        policy = device_folder.read(own).policy
        policy_file.write(own, replace(policy, base_keys=(public_key,)))
    nodes, bound = _connect(demo, devices, shown, tls, control)
    intruders = _intrude(demo, shown, tls)
    attacked = _attack(demo, shown, tls)
    _write_config(deployed, simulated, address, tls, signing_key, bound)
    _until(lambda: control.online() >= USERS, ONLINE_S, "three SuperNodes online")
    demo.say(f"three devices online; the server runs {', '.join(ARMS)}")
    users = sorted(devices)
    lost = users[-1]
    status = _run_with_a_loss(demo, deployed, nodes, devices)
    demo.say(f"the run ended with exit status {status}")
    refused = [_refused(each) for each in intruders]
    coarse = _run_coarse(demo, deployed, {user: devices[user] for user in users if user != lost})
    demo.look_for_trainers(devices)
    for each in (*nodes.values(), gateway, superlink):
        each.end()
    sides = Sides(simulated, deployed, devices, lost, ARMS[-1])
    compared = [*compare(sides), *coarse]
    partial = Check(
        "exit status", "0", f"{status} (some users failed)", status == exit_status.PARTIAL
    )
    demo.say("everything is stopped; a device answers alone")
    alone = _ask_alone(demo, sides, users[0])
    return [*compared, partial, *refused, attacked, _trainers_ended(demo), alone]


def _simulate(demo: Demo, cache: Path) -> RunFolder:
    """Simulate; the models may come from the cache, generations may not."""
    scratch = demo.root / "simulation" / "cache"
    for name in ("models", "worlds"):  # links: what is built now stays for the next time
        (cache / name).mkdir(parents=True, exist_ok=True)
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / name).symlink_to(cache / name, target_is_directory=True)
    runs = demo.root / "simulation"
    words = [
        *WORDS,
        "resources.backend=inline",
        f"paths.cache='{scratch}'",
        f"paths.runs='{runs}'",
        "name=simulated",
    ]
    status = _wait(_sim(demo, "simulation", words))
    if status != exit_status.OK:
        raise RunError(f"simulation: exit status {status}; see {demo.root}/simulation.log")
    return RunFolder(runs / "simulated")


def _split(demo: Demo, simulated: RunFolder) -> tuple[RunFolder, dict[str, Path]]:
    """Give each user a folder of its own, and the server neither history nor policy."""
    devices = {}
    for each in device_folder.device_folders(simulated.devices):
        own = demo.root / "devices" / each.name
        atomic.make_folder(own, private=True)
        for name in OWN_FILES:
            if (each / name).is_file():
                shutil.copy2(each / name, own / name)
        devices[device_folder.read(own).user_id] = own
    server = json.loads(simulated.server.read_text(encoding="utf-8"))
    known = public.read(PublicUsers(Path(server["public"]), server["content_hash"]))
    users = public.write(demo.root / "server" / "cache" / "public", known)
    deployed = RunFolder(demo.root / "server" / "runs" / "deployed")
    atomic.write_json(
        deployed.server, {"public": str(users.path), "content_hash": users.content_hash}
    )
    shutil.copy2(simulated.manifest, deployed.manifest)
    return deployed, devices


def _run_coarse(demo: Demo, deployed: RunFolder, devices: Mapping[str, Path]) -> list[Check]:
    """The last arm once more, with devices that let coarse numbers go."""
    demo.say("the same once more under coarse numbers, with the devices that are left")
    make_coarse(devices.values())
    run = coarse_run(deployed, len(devices), ARMS[-1])
    status = _wait(_sim(demo, "coarse", ["resume", f"run={run.path}"]))
    if status != exit_status.OK:
        said = f"exit status {status}; see {demo.root}/coarse.log"
        return [Check("coarse: exit status", "0", said, False)]
    return compare_coarse(deployed, run, devices, ARMS[-1])


def _write_config(
    deployed: RunFolder,
    simulated: RunFolder,
    address: str,
    tls: Tls,
    signing_key: Path,
    bound: Mapping[int, str],
) -> None:
    """The simulation's configuration, with another engine and the server's own folders."""
    config: Config = simulated.read_config()
    server = deployed.path.parent.parent
    nodes = server / "nodes.csv"
    rows = "".join(f"{node},{user}\n" for node, user in sorted(bound.items()))
    atomic.write_text(nodes, f"node_id,user_id\n{rows}")
    engine = EngineConfig(
        name="deployment",
        superlink=address,
        root_certificates=str(tls.ca),
        nodes=str(nodes),
        signing_key=str(signing_key),
    )
    changed = replace(
        config,
        resources=replace(config.resources, backend="ray"),
        data=str(server / "data"),
        engine=engine,
        paths=replace(config.paths, cache=str(server / "cache"), runs=str(server / "runs")),
        name=deployed.path.name,
    )
    atomic.write_text(deployed.config, to_json(changed) + "\n")


def _connect(
    demo: Demo, devices: dict[str, Path], address: str, tls: Tls, control: Control
) -> tuple[dict[str, Started], dict[int, str]]:
    """Start a SuperNode per device folder, its key registered under its user."""
    nodes, bound = {}, {}
    for user, port in zip(sorted(devices), free_ports(len(devices)), strict=True):
        key = make_node_key(demo.root / "keys" / devices[user].name)
        bound[control.register(key)] = user
        nodes[user] = demo.own(
            start_supernode(
                demo.root / "supernodes" / devices[user].name,
                address,
                ca=tls.ca,
                key=key,
                port=port,
                node_config={"device-folder": str(devices[user])},
                name=f"SuperNode of {user}",
            )
        )
    return nodes, bound


def _intrude(demo: Demo, address: str, tls: Tls) -> list[Started]:
    """A SuperNode with a key that nobody registered, and one that has no certificate."""
    intruders = []
    for (name, ca), port in zip(
        (("with an unknown key", tls.ca), ("without the certificate", None)),
        free_ports(2),
        strict=True,
    ):
        home = demo.root / "intruders" / name.replace(" ", "-")
        intruders.append(
            demo.own(
                start_supernode(
                    home,
                    address,
                    ca=ca,
                    key=make_node_key(home),
                    port=port,
                    node_config={},
                    name=f"SuperNode {name}",
                )
            )
        )
    return intruders


def _attack(demo: Demo, address: str, tls: Tls) -> Check:
    """Who holds what a device holds asks for an app of theirs to be run, and who is there."""
    device = Control(demo.root / "intruders" / "with-ca-pem", address, tls.ca)
    said = []
    for ask in (lambda: device.submit(ROOT, {}, {}), device.online):
        try:
            said.append(f"answered: {ask()}")
        except RunError as error:
            said.append(f"refused: {' '.join(str(error).split())[-60:]}")
    good = all(each.startswith("refused") for each in said)
    return Check("an app from a device's side", "-", said[0] if good else "; ".join(said), good)


def _run_with_a_loss(
    demo: Demo, deployed: RunFolder, nodes: Mapping[str, Started], devices: Mapping[str, Path]
) -> int:
    """Run the server's side; kill one device as soon as all have answered in the first arm."""
    victim = nodes[max(nodes)]
    server = _sim(demo, "server", ["resume", f"run={deployed.path}"])
    answers = deployed.path / "answers.jsonl"

    def first_arm_is_answered() -> bool:
        if server.process.poll() is not None:
            raise RunError(f"server: it ended too early: {server.tail()}")
        rows = [row for row in jsonlines.read(answers) if row["arm"] == ARMS[0]]
        return {row["user"] for row in rows} == set(devices)

    _until(first_arm_is_answered, RUN_S, "answers of all devices in the first arm")
    demo.look_for_trainers(devices)
    victim.kill()
    demo.say(f"all answered in {ARMS[0]}; {victim.name} was killed (SIGKILL)")
    return _wait(server)


def _refused(intruder: Started) -> Check:
    ended = intruder.process.poll()
    intruder.end()
    log = intruder.log.read_text(encoding="utf-8", errors="replace")
    reason = next(
        (
            line.split("]")[-1].strip(" |")
            for line in log.splitlines()
            if any(word in line for word in REFUSALS)
        ),
        intruder.tail(1),
    )
    plain = COLOURS.sub("", reason)[:90]
    said = f"refused, exit status {ended}: {plain}" if ended else "was let in"
    return Check(intruder.name, "-", said, bool(ended))


def _ask_alone(demo: Demo, sides: Sides, user: str) -> Check:
    """Ask a device its own first query: the answer is the one that the simulation gave."""
    own = sides.devices[user]
    query = device_folder.read(own).history.queries[0]
    expected = next(
        row["text"]
        for row in jsonlines.read(sides.simulated.path / "answers.jsonl")
        if (row["arm"], row["user"], row["query"]) == (ARMS[-1], user, query.id)
    )
    words = ["-m", "clients", f"folder={own}", f"arm={ARMS[-1]}", query.input]
    asked = demo.own(start(sys.executable, words, demo.root / "asked", cwd=ROOT, name="answer"))
    status = _wait(asked)
    said = asked.log.read_text(encoding="utf-8")  # libraries' warnings come first
    good = status == 0 and f"\n{said}".endswith(f"\n{expected}\n")
    return Check(
        "a device answers with all else stopped",
        "the same text",
        "equal" if good else f"exit status {status}, other text",
        good,
    )


def _trainers_ended(demo: Demo) -> Check:
    """Nobody ends the trainers: they see that their SuperNodes are gone, killed or stopped."""
    end = time.monotonic() + TRAINERS_S
    while (left := _trainers_left(demo)) and time.monotonic() < end:
        time.sleep(POLL_S)
    said = f"{len(demo.trainers)}, of them {len(left)} left"
    return Check("local trainers", "-", said, len(demo.trainers) >= USERS and not left)


def _trainers_left(demo: Demo) -> list[int]:
    return sorted(pid for pid in demo.trainers if alive(pid) and b"trainer" in title(pid))


def _nothing_left(demo: Demo) -> Check:
    left = [*(pid for each in demo.started for pid in each.left()), *_trainers_left(demo)]
    count = sum(1 + len(each.seen) for each in demo.started) + len(demo.trainers)
    return Check("processes left", "-", f"{len(left)} of {count} that were started", not left)


def _print(demo: Demo, checks: Sequence[Check]) -> None:
    table = words_table(
        "Simulation and deployment", ("", "simulation", "deployment", ""), numbers=()
    )
    lines = ["| | simulation | deployment | |", "|---|---|---|---|"]
    for check in checks:
        cells = (check.what, check.simulation, check.deployment, "ok" if check.good else "NOT OK")
        table.add_row(*cells)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    atomic.write_text(demo.root / "comparison.md", "\n".join(lines) + "\n")
    demo.console.print(table)
    demo.say(f"all files in {demo.root}")


def _sim(demo: Demo, name: str, words: Sequence[str]) -> Started:
    """Start ``python -m sim`` with its output in a file."""
    return demo.own(start(sys.executable, ["-m", "sim", *words], demo.root, cwd=ROOT, name=name))


def _wait(started: Started) -> int:
    end = time.monotonic() + RUN_S
    while started.process.poll() is None:
        started.look()
        if time.monotonic() > end:
            raise RunError(f"{started.name}: not finished after {RUN_S:g} s: {started.tail()}")
        time.sleep(POLL_S)
    return started.process.returncode


def _until(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise RunError(f"deploy-demo: expected {what} within {limit_s:g} s, it did not happen")
        time.sleep(POLL_S)


@contextmanager
def _ended(demo: Demo) -> Iterator[None]:
    """End everything that was started, whatever happens; the last started goes first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(exit_status.FAILED))
    try:
        yield
    finally:
        for each in reversed(demo.started):
            if each.left():
                each.end()
        for pid in _trainers_left(demo):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
