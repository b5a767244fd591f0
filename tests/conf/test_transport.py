"""Off this machine nothing crosses a network in the clear unless somebody asks for it."""

from __future__ import annotations

import pytest

from conf.compose import compose
from conf.errors import ConfigError

DEPLOYED = ("engine=deployment", "data=lamp")
SERVED = ("augmenter=openai", "augmenter.endpoint.model=m")


@pytest.mark.parametrize(
    "host",
    ["server", "10.0.0.7", "0.0.0.0", "localhost.example.org", "127.0.0.1.example.org", "[::2]"],
)
def test_a_superlink_elsewhere_needs_its_authority(host):
    address = f"engine.superlink='{host}:8443'"
    with pytest.raises(ConfigError, match=r"engine\.root_certificates is required for .*TLS"):
        compose([*DEPLOYED, address])
    assert compose([*DEPLOYED, address, "engine.root_certificates=ca.pem"]).engine.superlink


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.8.8"])
def test_a_superlink_on_this_machine_may_do_without(host):
    assert compose([*DEPLOYED, f"engine.superlink='{host}:8443'"]).engine.superlink


@pytest.mark.parametrize("host", ["server:8000", "10.0.0.7", "127.0.0.1.example.org", "[fe80::1]"])
def test_an_endpoint_elsewhere_is_asked_by_https_or_on_request(host):
    words = [*SERVED, f"augmenter.endpoint.base_url='http://{host}/v1'"]
    with pytest.raises(ConfigError, match="shared records would cross the network in the clear"):
        compose(words)
    assert compose([*words, "augmenter.endpoint.allow_http=true"]).augmenter.endpoint.allow_http
    compose([*SERVED, f"augmenter.endpoint.base_url='https://{host}/v1'"])


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000"])
def test_an_endpoint_on_this_machine_may_be_asked_by_http(host):
    assert compose([*SERVED, f"augmenter.endpoint.base_url='http://{host}/v1'"])
