"""SuperLink, SuperNodes and Flower's command line as child processes that end with their owner.

Every process gets its own ``FLWR_HOME`` and no environment beyond what it needs; what was started
is ended by its process id, children first found, and nothing else is touched.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.processes import began
from conf.errors import RunError
from sim.folders import ROOT
from sim.run.credentials import LOOPBACK, NodeKey, Tls
from sim.run.processes import alive, descendants

ENDING_S = 15.0
STARTING_S = 120.0
POLL_S = 0.2
COMPLETED = "finished:completed"
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "RAY_TMPDIR", "CUDA_VISIBLE_DEVICES")
_PREFIXES = (
    "FLWR_",
    "RAY_",
    "OMP_",
    "GOMP_",
    "HF_",
    "TOKENIZERS_",
    "TORCHDYNAMO_",
    "CDCDA_",
    "NO_PROXY",
    "SSL_",
)


@dataclass(slots=True)
class Started:
    """A process that this one started.

    Attributes:
        name: For messages.
        process: The process.
        log: Where its output goes.
        seen: Its descendants, as far as they were seen: process id and when it started.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    seen: dict[int, str] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def look(self) -> None:
        """Remember what it started in the meantime: an orphan cannot be found later."""
        for pid in descendants(self.pid):
            self.seen[pid] = began(pid)

    def end(self) -> None:
        """End it and what it started, politely first."""
        self.look()
        for pid in self.left():
            _signal(pid, signal.SIGTERM)
        self._wait(ENDING_S)
        self.kill()

    def kill(self) -> None:
        """End it and what it started at once, as a crash would."""
        self.look()
        for pid in self.left():
            _signal(pid, signal.SIGKILL)
        self._wait(ENDING_S)

    def left(self) -> set[int]:
        """Ids of what is still there."""
        seen = {pid for pid, then in self.seen.items() if then and began(pid) == then}
        return seen | ({self.pid} if alive(self.pid) else set())

    def tail(self, lines: int = 3) -> str:
        """The last lines of its output."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return " | ".join(text.strip().splitlines()[-lines:])

    def _wait(self, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            # taken off the process table too, which comes after its last thread has ended
            if self.process.poll() is not None and not self.left():
                return
            time.sleep(POLL_S)


def start_superlink(
    folder: Path,
    port: int,
    tls: Tls | None,
    *,
    simulation: bool = False,
    authenticate: bool = False,
) -> Started:
    """Start a SuperLink on loopback and wait until it takes requests.

    Raises:
        RunError: If it does not come up.
    """
    words = ["--host", LOOPBACK, "--port", str(port), "--disable-runtime-dependency-installation"]
    words += ["--insecure"] if tls is None else _tls_words(tls)
    words += ["--simulation"] if simulation else []
    words += ["--enable-supernode-auth"] if authenticate else []
    return _listening(start("flower-superlink", words, folder, cwd=folder), port)


def start_gateway(folder: Path, superlink_port: int, port: int, tls: Tls) -> Started:
    """Start the gateway for devices (:mod:`sim.deploy.gateway`) and wait until it takes requests.

    Raises:
        RunError: If it does not come up.
    """
    given = {
        "superlink": f"{LOOPBACK}:{superlink_port}",
        "host": LOOPBACK,
        "port": str(port),
        "ca": str(tls.ca),
        "certificate": str(tls.certificate),
        "key": str(tls.key),
    }
    words = ["-m", "sim", "gateway", *(f"{name}={value}" for name, value in given.items())]
    return _listening(start(sys.executable, words, folder, cwd=ROOT, name="gateway"), port)


def _listening(started: Started, port: int) -> Started:
    """The process, once it listens on ``port``; it is ended where it does not come to that."""
    end = time.monotonic() + STARTING_S
    while time.monotonic() < end and started.process.poll() is None:
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return started
        time.sleep(POLL_S)
    started.kill()
    raise RunError(f"{started.name}: it did not come up on port {port}: {started.tail()}")


def start_supernode(
    folder: Path,
    superlink: str,
    *,
    ca: Path | None,
    key: NodeKey | None,
    port: int,
    node_config: Mapping[str, str],
    name: str,
) -> Started:
    """Start one SuperNode whose working folder and Flower home is ``folder``."""
    words = ["--superlink", superlink, "--host", LOOPBACK, "--port", str(port)]
    words += ["--root-certificates", str(ca)] if ca else []
    words += ["--auth-supernode-private-key", str(key.private)] if key else []
    settings = " ".join(f"{each}={json.dumps(value)}" for each, value in node_config.items())
    return start("flower-supernode", [*words, "--node-config", settings], folder, folder, name)


def start(
    command: str, words: Sequence[str], home: Path, cwd: Path, name: str | None = None
) -> Started:
    """Start one of Flower's commands with its output in ``home``."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / f"{name or command}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [command if Path(command).is_absolute() else program(command), *words],
            cwd=cwd,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone; we end it
            preexec_fn=_end_with_parent,  # and where we are killed, the kernel does
        )
    return Started(name or command, process, log)


class Control:
    """Flower's command line towards one SuperLink."""

    def __init__(self, home: Path, address: str, ca: Path | None) -> None:
        """Write the connection below ``home``."""
        self._home = home
        home.mkdir(parents=True, exist_ok=True)
        security = f"root-certificates = {json.dumps(str(ca))}" if ca else "insecure = true"
        (home / "config.toml").write_text(
            '[superlink]\ndefault = "ours"\n[superlink.ours]\n'
            f"address = {json.dumps(address)}\n{security}\n",
            encoding="utf-8",
        )

    def register(self, key: NodeKey) -> int:
        """Let the SuperNode with this public key in.

        Returns:
            The number under which every run knows the node of this key.
        """
        answer = self._call("supernode", "register", str(key.public), "ours")
        return int(answer["node-id"])

    def submit(
        self, app: Path, run_config: Mapping[str, Any], federation: Mapping[str, Any]
    ) -> str:
        """Submit a run and return its id."""
        settings = self._home / "run.toml"
        settings.write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in run_config.items()),
            encoding="utf-8",
        )
        words = ["run", str(app), "ours", "--run-config", str(settings)]
        if federation:
            given = " ".join(f"{key}={value}" for key, value in federation.items())
            words += ["--federation-config", given]
        answer = self._call(*words)
        if not answer.get("run-id"):
            raise RunError(f"flwr run: the SuperLink took no run: {answer}")
        return str(answer["run-id"])

    def status(self, run_id: str) -> tuple[str, str]:
        """What the SuperLink says of a run: status and details."""
        answer = self._call("list", "ours", "--run-id", run_id)
        run = answer["runs"][0]
        return str(run["status"]), str(run.get("status-details", ""))

    def online(self) -> int:
        """How many SuperNodes are there now."""
        nodes = self._call("supernode", "list", "ours").get("nodes", [])
        return sum(str(node.get("status", "")).startswith("online") for node in nodes)

    def stop(self, run_id: str) -> None:
        """Ask for the end of a run."""
        self._call("stop", run_id, "ours")

    def _call(self, *words: str) -> dict[str, Any]:
        result = subprocess.run(
            [program("flwr"), *words, "--format", "json"],
            env=environment(self._home),
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            answer: dict[str, Any] = json.loads(result.stdout[result.stdout.index("{") :])
        except ValueError:
            said = " ".join((result.stderr or result.stdout).split())[-300:]
            raise RunError(f"flwr {words[0]}: expected an answer as JSON, got: {said}") from None
        if answer.get("success") is False:
            raise RunError(f"flwr {words[0]}: {answer.get('error-message', answer)}")
        return answer


def environment(home: Path) -> dict[str, str]:
    """What a child process may see of the environment, and its own ``FLWR_HOME``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(_PREFIXES)
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "FLWR_HOME": str(home), "PYTHONUNBUFFERED": "1"}


def program(name: str) -> str:
    """The path of a command that was installed with this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise RunError(f"{name}: no such command; install the requirements (make install)")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _tls_words(tls: Tls) -> list[str]:
    files = {"ca-certfile": tls.ca, "certfile": tls.certificate, "keyfile": tls.key}
    return [word for name, path in files.items() for word in (f"--ssl-{name}", str(path))]


def _end_with_parent() -> None:
    """Ask the kernel to end this process politely when its parent is gone, however that went."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
