"""Devices reach a SuperLink through a gateway: its Fleet interface, and not the control one.

The attack: somebody who holds what a device holds (``ca.pem``, a key of their own) submits an app.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from conf.errors import RunError
from sim.commands.gateway import main
from sim.deploy.gateway import make_app
from sim.run.credentials import LOOPBACK, make_node_key, make_tls
from sim.run.flower_processes import (
    Control,
    free_ports,
    start_gateway,
    start_superlink,
    start_supernode,
)

CONTROL = "/v1/control/start-run"
FLEET = "/v1/fleet/get-run"
PROTOBUF = {"content-type": "application/protobuf"}


def flower():
    """The SuperLink's own web application, as Flower makes it."""
    from flwr.superlink.main import create_app

    return create_app()


def routes(app) -> list[tuple[str, str]]:
    from fastapi.routing import iter_route_contexts

    found = []
    for each in iter_route_contexts(app.routes):
        route = getattr(each, "route", each)
        path = getattr(each, "path", None) or route.path
        found += [(method, path) for method in sorted(getattr(route, "methods", None) or ())]
    return found


def through(app, raise_errors=True):
    """A client of ``app``, and one that has to go through the gateway before it."""
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=raise_errors)
    direct = httpx2.AsyncClient(transport=transport, base_url="http://superlink")
    gateway = httpx2.ASGITransport(app=make_app(direct))
    return direct, httpx2.AsyncClient(transport=gateway, base_url="http://gateway")


def test_of_flowers_own_routes_the_fleets_alone_are_there():
    app = flower()

    async def ask():
        direct, gateway = through(app, raise_errors=False)
        found = {}
        for method, path in routes(app):
            path = path.replace("{", "").replace("}", "")
            replies = [
                await each.request(method, path, headers=PROTOBUF) for each in (direct, gateway)
            ]
            found[method, path] = [(reply.status_code, reply.content) for reply in replies]
        return found

    found = asyncio.run(ask())
    names = {path for _, path in found}
    assert {CONTROL, FLEET, "/v1/control/register-node"} <= names
    for (method, path), (open_, gated) in found.items():
        if method == "POST" and path.startswith("/v1/fleet/"):
            assert gated == open_, path
        else:
            assert gated == (404, b"" if method == "HEAD" else b"not here\n"), path
    assert found["POST", CONTROL][0][0] != 404  # what the gateway keeps away is there behind it


@contextmanager
def listening(app):
    """Serve ``app`` on loopback by a server as the gateway's is."""
    (port,) = free_ports(1)
    server = uvicorn.Server(
        uvicorn.Config(app, host=LOOPBACK, port=port, ws="none", log_level="error")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(30)


def sent_raw(port: int, request: bytes) -> bytes:
    with socket.create_connection((LOOPBACK, port), timeout=30) as line:
        line.sendall(request)
        parts = []
        while part := line.recv(65536):
            parts.append(part)
        return b"".join(parts)


@pytest.fixture
def asked():
    """What reaches a SuperLink through the gateway: method, raw path, body."""
    seen = []

    async def answer(request):
        body = await request.body()
        seen.append((request.method, request.scope["raw_path"], body))
        return Response(body[::-1], 201, headers={"x-of-superlink": "1"})

    inner = Starlette(routes=[Route("/{any:path}", answer, methods=["GET", "POST"])])
    client = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=inner), base_url="http://superlink"
    )
    with listening(make_app(client)) as port:
        yield port, seen


LENGTH = b"Host: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab"
OTHERS = (
    "/v1/control/start-run",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/get-run/../../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet%2f..%2fcontrol%2fstart-run",
    "/v1/fleet/..%5ccontrol",
    "/v1/fleet//get-run",
    "//v1/fleet/get-run",
    "/V1/FLEET/get-run",
    "/v1/fleet/",
    "/v1/fleet",
    "/v1/fleet/get-run/",
    "/v1/fleet/get-run?x=/v1/control",
    "/v1/fleet/get-run;x",
    "/v1/runtime/pull-task",
    "/health",
    "/docs",
    "/openapi.json",
    "/",
    "*",
    "http://superlink/v1/control/start-run",
)


@pytest.mark.parametrize("path", OTHERS)
def test_no_other_path_gets_through_however_it_is_written(asked, path):
    port, seen = asked
    reply = sent_raw(port, f"POST {path} HTTP/1.1\r\n".encode() + LENGTH)
    assert b" 404 " in reply.split(b"\r\n")[0] or b" 400 " in reply.split(b"\r\n")[0]
    assert seen == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_no_other_method_gets_through(asked, method):
    port, seen = asked
    reply = sent_raw(port, f"{method} {FLEET} HTTP/1.1\r\n".encode() + LENGTH)
    assert b" 2" not in reply.split(b"\r\n")[0][:11]
    assert seen == []


def test_what_gets_through_is_unchanged_both_ways(asked):
    port, seen = asked
    reply = sent_raw(port, f"POST {FLEET} HTTP/1.1\r\n".encode() + LENGTH)
    assert seen == [("POST", FLEET.encode(), b"ab")]
    assert b" 201 " in reply.split(b"\r\n")[0]
    assert b"x-of-superlink: 1" in reply.lower()
    assert reply.endswith(b"\r\n\r\nba")


def test_a_second_request_hidden_in_the_first_is_no_request(asked):
    """Two lengths, by which the two sides of a gateway could part a stream in two ways."""
    port, seen = asked
    hidden = b"0\r\n\r\nPOST /v1/control/start-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    heads = (
        b"Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(hidden),
        b"Host: x\r\nContent-Length: 5\r\nContent-Length: %d\r\n\r\n" % len(hidden),
    )
    for head in heads:
        sent_raw(port, f"POST {FLEET} HTTP/1.1\r\n".encode() + head + hidden)
    assert {path for _, path, _ in seen} <= {FLEET.encode()}


def test_a_superlink_that_is_not_there_is_told():
    (port,) = free_ports(1)
    client = httpx2.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", trust_env=False)

    async def ask():
        gateway = httpx2.ASGITransport(app=make_app(client))
        async with httpx2.AsyncClient(transport=gateway, base_url="http://gateway") as device:
            return await device.post(FLEET, content=b"x")

    assert asyncio.run(ask()).status_code == 502


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("superlink=x", "port=1"), "superlink must be host:port, got 'x'"),
        (("superlink=x:1", "port=0"), "port must be a whole number from 1 to 65535, got '0'"),
        (("superlink=x:1", f"port={'9' * 5000}"), "port must be a whole number from 1 to 65535"),
        (("superlink=x:1", "port=9443"), "certificate is missing"),
        (("superlink=x:1", "port=9443", "certificate=/none"), "/none: no such file"),
        (("superlink=x:1", "gateway=9443"), "unknown key 'gateway'"),
    ],
)
def test_the_command_refuses_what_it_cannot_serve(words, message):
    from conf.errors import ConfigError

    with pytest.raises(ConfigError, match=message):
        main(words)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_who_holds_what_a_device_holds_gets_no_app_run(tmp_path):
    """Real processes: the attack works on the SuperLink's own port, and fails at the gateway."""
    tls, ports = make_tls(tmp_path / "authority"), free_ports(3)
    superlink = start_superlink(tmp_path / "superlink", ports[0], tls, authenticate=True)
    started = [superlink]
    try:
        started.append(start_gateway(tmp_path / "gateway", ports[0], ports[1], tls))
        operator = Control(tmp_path / "operator", f"{LOOPBACK}:{ports[0]}", tls.ca)
        device = Control(tmp_path / "attacker", f"{LOOPBACK}:{ports[1]}", tls.ca)
        app = write_app(tmp_path / "app", tmp_path / "ran")
        for attack in (
            lambda: device.submit(app, {}, {}),
            lambda: device.register(make_node_key(tmp_path / "own")),
            device.online,
        ):
            with pytest.raises(RunError):
                attack()
        assert operator.online() == 0
        key = make_node_key(tmp_path / "ana")
        operator.register(key)
        started.append(
            start_supernode(
                tmp_path / "supernode", f"{LOOPBACK}:{ports[1]}", ca=tls.ca, key=key,
                port=ports[2], node_config={}, name="device",
            )
        )  # fmt: skip
        end = time.monotonic() + 240
        while operator.online() < 1:
            assert time.monotonic() < end, started[-1].tail()
            time.sleep(0.5)
        assert not (tmp_path / "ran").exists()
        operator.submit(app, {}, {})  # at the SuperLink's own port the same app is taken
    finally:
        for each in reversed(started):
            each.end()


def write_app(folder: Path, mark: Path) -> Path:
    """A Flower app whose server leaves a file where it ran."""
    (folder / "evil").mkdir(parents=True)
    (folder / "evil" / "__init__.py").touch()
    (folder / "evil" / "server.py").write_text(
        "from pathlib import Path\nfrom flwr.serverapp import ServerApp\napp = ServerApp()\n"
        f"@app.main()\ndef main(grid, context):\n    Path({str(mark)!r}).touch()\n"
    )
    (folder / "evil" / "client.py").write_text(
        "from flwr.clientapp import ClientApp\napp = ClientApp()\n"
    )
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "evil"\nversion = "1.0.0"\ndescription = ""\nlicense = "Apache-2.0"\n'
        'dependencies = []\n[build-system]\nrequires = ["hatchling"]\n'
        'build-backend = "hatchling.build"\n'
        '[tool.flwr.app]\npublisher = "nobody"\n[tool.flwr.app.components]\n'
        'serverapp = "evil.server:app"\nclientapp = "evil.client:app"\n'
    )
    return folder
