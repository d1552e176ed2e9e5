"""Label Studio's protection against requests into its own network, with a gap for one address instead of none.

It has a list of networks it never calls, no list of exceptions, and switches that end the protection. The list can
be replaced, though: by all its networks without the addresses that are let through.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from backend.errors import ConfigurationError

Network = IPv4Network | IPv6Network

# What Label Studio 1.23.2 refuses by default (core/utils/io.py); a live test compares.
DEFAULT_BANNED = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "233.252.0.0/24", "240.0.0.0/4", "255.255.255.255/32", "::/128", "::1/128", "::ffff:0:0/96",
    "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:20::/28", "2001:db8::/32",
    "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip


def environment_allowing(addresses: Iterable[str]) -> dict[str, str]:
    """Environment of a Label Studio that may call these addresses and is protected otherwise as by default.

    Parameters
    ----------
    addresses
        Where backends listen, such as "10.0.3.7", "::1", or a network such as "10.0.3.0/29".

    Raises
    ------
    ConfigurationError
        For what is no address or network.
    """
    banned: list[Network] = [ip_network(text) for text in DEFAULT_BANNED]
    for allowed in map(_network, addresses):
        banned = [part for network in banned for part in _without(network, allowed)]
    # One version at a time, as collapsing mixes none.
    parts = [
        *collapse_addresses(n for n in banned if isinstance(n, IPv4Network)),
        *collapse_addresses(n for n in banned if isinstance(n, IPv6Network)),
    ]
    return {"USE_DEFAULT_BANNED_SUBNETS": "false", "USER_ADDITIONAL_BANNED_SUBNETS": ",".join(map(str, parts))}


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no address or network ({error}). Write for example 10.0.3.7 or 10.0.3.0/29"
        ) from None


def _without(network: Network, allowed: Network) -> Iterable[Network]:
    if network.version != allowed.version or not network.overlaps(allowed):
        return [network]
    if isinstance(network, IPv4Network) and isinstance(allowed, IPv4Network):
        return [] if network.subnet_of(allowed) else network.address_exclude(allowed)
    assert isinstance(network, IPv6Network) and isinstance(allowed, IPv6Network)
    return [] if network.subnet_of(allowed) else network.address_exclude(allowed)
