"""``python -m sim gateway``: let devices reach a SuperLink's Fleet interface, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from conf.errors import ConfigError
from conf.words import read_words, required, whole_number
from sim import exit_status
from sim.terminal import PlainConsole

USAGE = """\
python -m sim gateway superlink=127.0.0.1:8443 port=9443 certificate=server.pem key=server.key
                   [host=0.0.0.0] [ca=ca.pem]

Devices connect to this port; the SuperLink itself listens on loopback. `ca` is the authority of the
SuperLink's own certificate; without it the SuperLink is one with --insecure. docs/deploy.md"""
_ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}")


def main(argv: Sequence[str]) -> int:
    """Serve until the process is ended.

    Raises:
        ConfigError: If a word is refused.
    """
    console = PlainConsole()
    if {"-h", "--help"} & set(argv):
        console.print(USAGE)
        return exit_status.OK
    known = ("superlink", "host", "port", "certificate", "key", "ca")
    values, _ = read_words("gateway", argv, known)
    address = required("gateway", values, "superlink", "127.0.0.1:8443")
    if not _ADDRESS.fullmatch(address):
        raise ConfigError(f"gateway: superlink must be host:port, got '{address}'")
    port = whole_number("gateway", "port", required("gateway", values, "port", "9443"), 65535)
    tls = tuple(_file(values, name) for name in ("certificate", "key"))
    ca = _file(values, "ca") if values.get("ca") else None
    from sim.deploy.gateway import serve

    serve(address, ca, values.get("host") or "0.0.0.0", port, (tls[0], tls[1]))
    return exit_status.OK


def _file(values: dict[str, str], name: str) -> Path:
    path = Path(required("gateway", values, name, f"{name}.pem")).expanduser()
    if not path.is_file():
        raise ConfigError(f"gateway: {name}={path}: no such file; give the one with the {name}")
    return path
