"""A gap for one address in what Label Studio refuses, and no other."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import ConfigurationError
from backend.labelstudio.allowed_addresses import DEFAULT_BANNED, environment_allowing


def refused(address: str, networks: str) -> bool:
    return any(ip_address(address) in ip_network(network) for network in networks.split(","))


def banned(*addresses: str) -> str:
    environment = environment_allowing(addresses)
    assert environment["USE_DEFAULT_BANNED_SUBNETS"] == "false"
    return environment["USER_ADDITIONAL_BANNED_SUBNETS"]


@given(
    allowed=st.ip_addresses().map(str),
    asked=st.ip_addresses().map(str)
    | st.sampled_from(DEFAULT_BANNED).flatmap(lambda n: st.ip_addresses(network=n)).map(str),
)
def test_everything_else_is_refused_as_by_default(allowed: str, asked: str) -> None:
    networks = banned(allowed)
    assert not refused(allowed, networks)
    assert refused(asked, networks) == (asked != allowed and refused(asked, ",".join(DEFAULT_BANNED)))


def test_the_neighbours_of_an_allowed_address_are_refused() -> None:
    networks = banned("172.29.57.10", "::1")
    assert not refused("172.29.57.10", networks) and not refused("::1", networks)
    for neighbour in (
        "172.29.57.9",
        "172.29.57.11",
        "172.16.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "fd00::1",
    ):
        assert refused(neighbour, networks), neighbour


def test_a_network_may_be_allowed_as_a_whole() -> None:
    networks = banned("10.0.3.0/29")
    assert not refused("10.0.3.1", networks) and not refused("10.0.3.7", networks)
    assert refused("10.0.3.8", networks)


@pytest.mark.parametrize("junk", ["web", "10.0.0.1/8", "http://10.0.0.1"])
def test_what_is_no_address_is_refused_with_an_example(junk: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is no address or network .* 10\.0\.3\.7"):
        environment_allowing([junk])
