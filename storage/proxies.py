"""What to say when the environment names a proxy that the HTTP client cannot use."""

from __future__ import annotations

import os

VARIABLES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def proxy_refusal(error: Exception) -> str:
    """One line for an error that making an HTTP client raised; values may hold a password.

    Args:
        error: What the client raised: ImportError for a SOCKS proxy without its package, else
            something about an address.
    """
    names = [name for upper in VARIABLES for name in (upper, upper.lower()) if os.environ.get(name)]
    where = ", ".join(names) or "proxy settings of the system"
    if isinstance(error, ImportError):
        return (
            f"{where}: expected an http or https proxy, got a SOCKS one, for which a package is "
            "missing; run `pip install socksio`, name another proxy, or unset the variable"
        )
    return (
        f"{where}: expected addresses such as http://host:port, got one that cannot be used; "
        "correct or unset it"
    )
