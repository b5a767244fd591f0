"""The gateway for devices: it passes the Fleet interface of a SuperLink on, and nothing else.

Flower 1.41 serves its control interface, which has no accounts, on the port that devices need: who
reaches that port can submit an app, which then runs on the server and on the devices. So the
SuperLink listens on loopback and devices reach this gateway alone. A request passes if it is a POST
to ``/v1/fleet/<name>``, letter for letter, without a query; all others get 404 and go nowhere. Keys
of devices, their signatures and all bytes go through unchanged.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from pathlib import Path

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

PASSED = re.compile(rb"/v1/fleet/[a-z]+(?:-[a-z]+)*")
LIMIT_S = 120.0
# of one connection, never passed on: the two sides of the gateway have connections of their own
_HOP = {"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


def make_app(superlink: httpx2.AsyncClient) -> Starlette:
    """The gateway as an ASGI app in front of the SuperLink that ``superlink`` reaches."""

    async def answer(request: Request) -> Response:
        scope = request.scope
        path = scope.get("raw_path") or b""
        if request.method != "POST" or scope["query_string"] or not PASSED.fullmatch(path):
            return PlainTextResponse("not here\n", 404)
        asked = superlink.build_request(
            "POST",
            path.decode("ascii"),
            headers=_passed(request.headers.items()),
            content=request.stream(),
        )
        try:
            got = await superlink.send(asked, stream=True)
        except httpx2.HTTPError:
            return PlainTextResponse("the SuperLink does not answer\n", 502)
        reply = StreamingResponse(
            got.aiter_raw(), got.status_code, background=BackgroundTask(got.aclose)
        )
        reply.raw_headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in _passed(got.headers.items())
        ]
        return reply

    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(routes=[Route("/{any:path}", answer, methods=methods)])


def _passed(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers of the message itself; of a chunked one the length is not told by a header."""
    given = [(name.lower(), value) for name, value in headers]
    chunked = any(name == "transfer-encoding" for name, _ in given)
    dropped = _HOP | ({"content-length"} if chunked else set())
    return [(name, value) for name, value in given if name not in dropped]


def serve(superlink: str, ca: Path | None, host: str, port: int, tls: tuple[Path, Path]) -> None:
    """Serve until the process is ended.

    Args:
        superlink: Address of the SuperLink, as host:port.
        ca: Certificate of its authority; None where it listens without TLS.
        host: Where devices are let in.
        port: The port there.
        tls: Certificate and private key that devices see.
    """
    verify = True if ca is None else ssl.create_default_context(cafile=str(ca))
    client = httpx2.AsyncClient(
        base_url=f"{'http' if ca is None else 'https'}://{superlink}",
        verify=verify,
        timeout=LIMIT_S,
        trust_env=False,  # no proxy stands between this gateway and its SuperLink
    )
    certificate, key = map(str, tls)
    uvicorn.run(
        make_app(client),
        host=host,
        port=port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="warning",
        ws="none",
        server_header=False,
        date_header=False,
    )
