"""Which machines the pictures of tasks may be fetched from.

Whoever writes tasks chooses what the worker connects to, so by default that is the public internet and the configured
Label Studio only, and no machine that merely this one can reach. An address is judged as it is connected to: names
are looked up once, here, and never again between check and connection.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from backend.errors import MediaAddressRefused, MediaAllowInvalid

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
SETTING = "MMAL_MEDIA_ALLOW"

# Not public, whatever the running Python's own tables say: protocol assignments (some clouds keep their metadata
# there), Azure's wire server, 6to4 relays, benchmarks.
_NOT_PUBLIC_V4 = tuple(map(ip_network, ("192.0.0.0/24", "168.63.129.16/32", "192.88.99.0/24", "198.18.0.0/15")))
_UNICAST_V6 = ip_network("2000::/3")
# An IPv4 address in the last 32 bits: mapped, compatible, and translated by a NAT64 gateway.
_ENDS_IN_V4 = tuple(map(ip_network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96")))


def is_public(address: Address) -> bool:
    """Whether an address is out on the internet, and so is every address that is packed into it."""
    if isinstance(address, IPv6Address):
        packed = _packed(address)
        if packed:
            return all(map(is_public, packed))
        return address in _UNICAST_V6 and address.is_global
    local = address.is_multicast or address.is_reserved or any(address in network for network in _NOT_PUBLIC_V4)
    return address.is_global and not local


def _packed(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 one stands for, by whichever way of transition."""
    if any(address in network for network in _ENDS_IN_V4):
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    return [*(address.teredo or ()), *([address.sixtofour] if address.sixtofour else ())]


@dataclass(frozen=True)
class MediaAddresses:
    """The public internet, and what is allowed besides.

    hosts : names, with the port they are allowed at or None for all; trusted wherever they lead
    networks : addresses that are allowed though they are not public
    """

    hosts: frozenset[tuple[str, int | None]]
    networks: tuple[Network, ...]

    @classmethod
    def parse(cls, allowed: str, label_studio_url: str) -> MediaAddresses:
        """Read the setting: names, name:port, addresses and networks, with commas or spaces between them.

        Raises
        ------
        MediaAllowInvalid
            Naming the entry.
        """
        hosts: set[tuple[str, int | None]] = set()
        networks: list[Network] = []
        for entry in allowed.replace(",", " ").split():
            try:
                networks.append(ip_network(entry))
            except ValueError:
                hosts.add(_host(entry))
        base = httpx.URL(label_studio_url)
        hosts.add((_plain(base.host), port_of(base)))
        return cls(frozenset(hosts), tuple(networks))

    def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be connected to; asks the name service once.

        Raises
        ------
        MediaAddressRefused
            None of its addresses may.
        OSError
            The name does not resolve.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if {(_plain(host), None), (_plain(host), port)} & self.hosts:
            return addresses
        public = [text for text in addresses if self._permits(ip_address(text))]
        if not public:
            raise MediaAddressRefused(
                f"{host} is at {', '.join(addresses[:3])}, which is no public address: not fetched. If the pictures"
                f" there are meant to be read, add {host}:{port} or its network to {SETTING}"
            )
        return public

    def _permits(self, address: Address) -> bool:
        meant = [address, *(_packed(address) if isinstance(address, IPv6Address) else ())]
        return is_public(address) or any(one in network for one in meant for network in self.networks)


def port_of(url: httpx.URL) -> int:
    """The port of an address, that of its scheme where it names none."""
    return url.port or {"http": 80, "https": 443}.get(url.scheme, 0)


def _host(entry: str) -> tuple[str, int | None]:
    try:
        url = httpx.URL(f"//{entry}")
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    if not url.host or "/" in entry or "@" in entry or "*" in entry:
        raise MediaAllowInvalid(
            f"{SETTING} = {entry!r} is neither a name, name:port, an address nor a network. Write for example"
            " minio.internal:9000, 10.1.0.0/16"
        )
    return _plain(url.host), url.port


def _plain(host: str) -> str:
    return host.lower().rstrip(".")
