"""What the pictures of tasks may make the worker connect to: nothing that only this machine can reach."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from backend import errors
from backend.labelstudio.addresses import MediaAddresses, is_public
from backend.labelstudio.media import MediaFetcher
from tests.labelstudio.loopback_site import Site, body, redirect, serving

LABEL_STUDIO = "http://studio.example:8080"
TOKEN = {"Authorization": "Token of-label-studio"}
HIDDEN = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
hidden_addresses = st.sampled_from(HIDDEN).flatmap(lambda network: st.ip_addresses(v=4, network=network))


class Names:
    """The name service, answering as a test says: one answer after the other, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[str]) -> None:
        self.answers = {name.replace("_", "."): list(listed) for name, listed in answers.items()}
        self.lookups: list[str] = []
        real = socket.getaddrinfo

        def lookup(host: Any, *arguments: Any, **options: Any) -> Any:
            listed = self.answers.get(host)
            if listed is None:
                ip_address(host)  # a test looks no real name up
                return real(host, *arguments, **options)
            self.lookups.append(host)
            return real(listed.pop(0) if len(listed) > 1 else listed[0], *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", lookup)


def fetcher(allow: str = "", label_studio: str = LABEL_STUDIO, **options: Any) -> MediaFetcher:
    return MediaFetcher(label_studio, lambda: TOKEN, allow=allow, **options)


def port_of(site: Site) -> int:
    return int(site.url.rpartition(":")[2])


# --- which addresses are public --------------------------------------------------------------------------------


@given(hidden_addresses)
def test_no_address_of_a_hidden_network_is_public_in_any_packing(address: IPv4Address) -> None:
    number = int(address)
    packings = {
        "plain": address,
        "mapped": IPv6Address(f"::ffff:{address}"),
        "compatible": IPv6Address(number),
        "NAT64": IPv6Address(int(IPv6Address("64:ff9b::")) | number),
        "local NAT64": IPv6Address(int(IPv6Address("64:ff9b:1::")) | number),
        "6to4": IPv6Address((0x2002 << 112) | (number << 80)),
        "Teredo": IPv6Address((0x20010000 << 96) | (0x08080808 << 64) | (number ^ 0xFFFFFFFF)),
    }
    assert [name for name, packed in packings.items() if is_public(packed)] == []


@pytest.mark.parametrize(
    "text",
    [
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
        "100::1", "168.63.129.16", "169.254.169.254", "100.100.100.200", "192.0.0.192", "255.255.255.255",
    ],
)  # fmt: skip
def test_loopback_link_local_and_metadata_addresses_are_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(
    "text", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(ip_address(text))


# --- what is fetched -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "[::1]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::127.0.0.1]", "127.0.0.1.", "①②⑦.⓪.⓪.①", "user@127.0.0.1",
    ],
)  # fmt: skip
def test_loopback_is_refused_in_every_spelling_without_a_request(start_site: Callable[[], Site], host: str) -> None:
    inside = start_site()
    inside.routes["/admin"] = body(b"secret")
    with pytest.raises((errors.MediaAddressRefused, errors.MediaUnreachable, errors.MediaUriUnsupported)):
        fetcher().fetch(f"http://{host}:{port_of(inside)}/admin")
    assert inside.asked == []


def test_the_refusal_names_host_address_and_setting_but_no_secret(start_site: Callable[[], Site]) -> None:
    inside = start_site()
    with pytest.raises(errors.MediaAddressRefused) as caught:
        fetcher().fetch(f"http://me:s3cret@127.0.0.1:{port_of(inside)}/a.png?signature=s3cret#s3cret")
    assert f"add 127.0.0.1:{port_of(inside)} or its network to MMAL_MEDIA_ALLOW" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert not caught.value.transient


@pytest.mark.parametrize(
    "allow", ["127.0.0.1", "127.0.0.0/8", "10.0.0.0/8, 127.0.0.1:{port}", "LOCALHOST:1 127.0.0.1"]
)
def test_what_the_setting_allows_is_fetched(start_site: Callable[[], Site], allow: str) -> None:
    inside = start_site()
    inside.routes["/a.png"] = body(b"picture")
    assert fetcher(allow.format(port=port_of(inside))).fetch(inside.url + "/a.png") == b"picture"


def test_an_allowed_port_allows_no_other(start_site: Callable[[], Site]) -> None:
    inside, other = start_site(), start_site()
    with pytest.raises(errors.MediaAddressRefused):
        fetcher(f"127.0.0.1:{port_of(inside)}").fetch(other.url + "/a.png")
    assert other.asked == []


def test_an_allowed_name_may_lead_anywhere(start_site: Callable[[], Site], monkeypatch: pytest.MonkeyPatch) -> None:
    inside = start_site()
    inside.routes["/a.png"] = body(b"picture")
    Names(monkeypatch, minio_internal=["127.0.0.1"])
    address = f"http://minio.internal:{port_of(inside)}/a.png"
    assert fetcher("minio.internal").fetch(address) == b"picture"
    assert fetcher(f"MinIO.internal.:{port_of(inside)}").fetch(address) == b"picture"
    with pytest.raises(errors.MediaAddressRefused):
        fetcher("minio.internal:1, other.internal").fetch(address)


@pytest.mark.parametrize(
    "entry", ["http://minio", "10.0.0.0/99", "a b/c", "10.0.0.1/8", "*", "user@host", "host:port"]
)
def test_an_entry_that_names_nothing_is_refused_with_its_words(entry: str) -> None:
    with pytest.raises(errors.MediaAllowInvalid, match="MMAL_MEDIA_ALLOW = '"):
        MediaAddresses.parse(entry, LABEL_STUDIO)


def test_label_studio_itself_is_reached_wherever_it_is(start_site: Callable[[], Site]) -> None:
    studio = start_site()
    studio.routes["/data/upload/1/a.png"] = body(b"picture")
    assert fetcher(label_studio=studio.url).fetch("/data/upload/1/a.png") == b"picture"


@pytest.mark.parametrize(
    "route", ["/api/projects/1/next", "/user/login/", "/data/../api/token", "/data/..%2f..%2fapi"]
)
def test_a_task_cannot_have_the_token_sent_to_other_routes_of_label_studio(
    start_site: Callable[[], Site], route: str
) -> None:
    studio = start_site()
    with pytest.raises(errors.MediaError):
        fetcher(label_studio=studio.url).fetch(studio.url + route)
    assert studio.tokens() in ([None], [])


# --- redirects and names that change their minds ---------------------------------------------------------------


def test_redirects_are_checked_like_everything_else(start_site: Callable[[], Site]) -> None:
    studio, outside, inside = start_site(), start_site(), start_site()
    studio.routes["/data/upload/1/a.png"] = redirect(inside.url + "/admin")
    outside.routes["/a.png"] = redirect(inside.url + "/admin", 307)
    inside.routes["/admin"] = body(b"secret")
    media = fetcher(f"127.0.0.1:{port_of(outside)}", label_studio=studio.url)
    for uri in ("/data/upload/1/a.png", outside.url + "/a.png"):
        with pytest.raises(errors.MediaAddressRefused):
            media.fetch(uri)
    assert (len(studio.asked), len(outside.asked), inside.asked) == (1, 1, [])


def test_a_name_is_looked_up_once_and_what_was_checked_is_what_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 127.0.0.2 stands for the internet, 127.0.0.1 for what a rebinding name leads to at the second look.
    with serving("127.0.0.2") as outside:
        outside.routes["/a.png"] = body(b"picture")
        names = Names(monkeypatch, pictures_example=["127.0.0.2", "127.0.0.1"])
        address = f"http://pictures.example:{port_of(outside)}/a.png"
        assert fetcher("127.0.0.2/32").fetch(address) == b"picture"
        assert names.lookups == ["pictures.example"]
        assert outside.asked[0][1]["Host"] == urlsplit(address).netloc
        with pytest.raises(errors.MediaAddressRefused, match=r"pictures\.example is at 127\.0\.0\.1"):
            fetcher("127.0.0.2/32").fetch(address)
        assert len(outside.asked) == 1


def test_of_several_addresses_only_the_public_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", (text, 80)) for text in ("10.0.0.1", "93.184.216.34", "fe80::1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert MediaAddresses.parse("", LABEL_STUDIO).resolve("mixed.example", 80) == ["93.184.216.34"]


def test_tls_is_held_to_the_name_and_not_to_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("pictures.example").configure_cert(tls)
    with serving(tls=tls) as site:
        site.routes["/a.png"] = body(b"picture")
        Names(monkeypatch, pictures_example=["127.0.0.1"], impostor_example=["127.0.0.1"])
        media = fetcher("127.0.0.1")
        assert media.fetch(f"https://pictures.example:{port_of(site)}/a.png") == b"picture"
        with pytest.raises(errors.MediaUnreachable, match=r"(?i)hostname mismatch"):
            media.fetch(f"https://impostor.example:{port_of(site)}/a.png")
        assert len(site.asked) == 1


def test_a_proxy_of_the_environment_is_not_asked(
    start_site: Callable[[], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = start_site()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    with pytest.raises(errors.MediaAddressRefused):
        fetcher().fetch("http://127.0.0.1:9/a.png")
    assert proxy.asked == []


# --- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["status line", "headers", "body"])
def test_dripping_anywhere_ends_at_the_limit_of_the_whole_fetch(start_site: Callable[[], Site], part: str) -> None:
    site = start_site()
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        sent = {"status line": b"", "headers": b"HTTP/1.1 200 OK\r\n", "body": b"HTTP/1.1 200 OK\r\n\r\n"}[part]
        handler.wfile.write(sent)
        while not stop.is_set():
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.02)

    site.routes["/a.png"] = drip
    try:
        with pytest.raises(errors.MediaTimeout):
            fetcher("127.0.0.1", timeout=0.4).fetch(site.url + "/a.png")
    finally:
        stop.set()


def packed(data: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def test_a_packed_answer_is_unpacked_within_the_limit_only(start_site: Callable[[], Site]) -> None:
    site = start_site()
    site.routes["/small"] = packed(gzip.compress(b"picture"))
    site.routes["/bomb"] = packed(gzip.compress(bytes(50_000_000)))
    site.routes["/broken"] = packed(b"no gzip at all")
    media = fetcher("127.0.0.1", max_bytes=100_000)
    assert media.fetch(site.url + "/small") == b"picture"
    with pytest.raises(errors.MediaTooLarge, match="100001 bytes or more"):
        media.fetch(site.url + "/bomb")
    with pytest.raises(errors.MediaRefused, match="packed and damaged"):
        media.fetch(site.url + "/broken")
