"""Fetching and decoding of task pictures, against real servers on loopback."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import struct
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from backend import errors
from backend.labelstudio.media import MediaFetcher
from backend.labelstudio.pictures import decode_image, pixels_in
from tests.labelstudio.loopback_site import Site, body, redirect

TOKEN = {"Authorization": "Bearer secret-token"}


def fetcher(site: Site, **options: object) -> MediaFetcher:
    return MediaFetcher(site.url, lambda: TOKEN, **{"allow": "127.0.0.1", **options})  # type: ignore[arg-type]


# --- who gets the token -------------------------------------------------------------------------------------


def test_token_goes_to_label_studio_and_nowhere_else(start_site: Callable[[], Site]) -> None:
    label_studio, elsewhere = start_site(), start_site()
    label_studio.routes["/data/upload/3/a.png"] = body(b"ours")
    elsewhere.routes["/a.png"] = body(b"theirs")
    media = fetcher(label_studio)

    assert media.fetch("/data/upload/3/a.png") == b"ours"
    assert media.fetch(label_studio.url + "/data/upload/3/a.png") == b"ours"
    assert media.fetch(elsewhere.url + "/a.png") == b"theirs"

    assert label_studio.tokens() == [TOKEN["Authorization"]] * 2
    assert elsewhere.tokens() == [None]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_away_from_label_studio_leaves_the_token_behind(start_site: Callable[[], Site], status: int) -> None:
    label_studio, bucket = start_site(), start_site()
    label_studio.routes["/data/upload/3/a.png"] = redirect(bucket.url + "/signed.png?sig=1", status)
    bucket.routes["/signed.png"] = body(b"picture")

    assert fetcher(label_studio).fetch("/data/upload/3/a.png") == b"picture"
    assert label_studio.tokens() == [TOKEN["Authorization"]]
    assert bucket.tokens() == [None]


def test_token_returns_only_when_a_redirect_comes_back_to_label_studio(start_site: Callable[[], Site]) -> None:
    label_studio, elsewhere = start_site(), start_site()
    elsewhere.routes["/go"] = redirect(label_studio.url + "/data/upload/1/b.png")
    label_studio.routes["/data/upload/1/b.png"] = body(b"b")

    assert fetcher(label_studio).fetch(elsewhere.url + "/go") == b"b"
    assert elsewhere.tokens() == [None]
    assert label_studio.tokens() == [TOKEN["Authorization"]]


def test_label_studios_address_inside_another_address_earns_no_token(start_site: Callable[[], Site]) -> None:
    label_studio, elsewhere = start_site(), start_site()
    elsewhere.routes["/a.png"] = body(b"x")
    own = label_studio.url.removeprefix("http://").replace(":", "%3A")
    fetcher(label_studio).fetch(elsewhere.url.replace("http://", f"http://{own}@") + "/a.png")
    assert len(elsewhere.asked) == 1 and TOKEN["Authorization"] not in elsewhere.tokens()
    assert label_studio.asked == []


def test_cookies_of_one_answer_are_not_sent_with_the_next_request(start_site: Callable[[], Site]) -> None:
    site = start_site()

    def with_cookie(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Set-Cookie", "session=1; Path=/")
        handler.send_header("Content-Length", "1")
        handler.end_headers()
        handler.wfile.write(b"x")

    site.routes["/a.png"] = with_cookie
    media = fetcher(site)
    media.fetch(site.url + "/a.png")
    media.fetch(site.url + "/a.png")
    assert all("Cookie" not in headers for _, headers in site.asked)


# --- addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["/data/upload/3/a%20b.png", "upload/3/a%20b.png", "/upload/3/a%20b.png"])
def test_upload_addresses_in_every_spelling(start_site: Callable[[], Site], uri: str) -> None:
    site = start_site()
    site.routes["/data/upload/3/a%20b.png"] = body(b"ok")
    assert fetcher(site).fetch(uri) == b"ok"


def test_upload_kept_in_cloud_storage_is_fetched_through_the_proxy_address(start_site: Callable[[], Site]) -> None:
    site = start_site()
    site.routes["/storage-data/uploaded/"] = body(b"cloud")
    assert fetcher(site).fetch("/data/upload/3/a b.png") == b"cloud"
    assert site.asked[-1][0] == "/storage-data/uploaded/?filepath=upload/3/a%20b.png"


def test_missing_upload_is_not_found_although_the_proxy_address_answers_400(start_site: Callable[[], Site]) -> None:
    site = start_site()
    site.routes["/storage-data/uploaded/"] = body(b"", 400)
    with pytest.raises(errors.MediaNotFound, match=r"a\.png"):
        fetcher(site).fetch("/data/upload/3/a.png")


def test_label_studio_below_a_path_prefix(start_site: Callable[[], Site]) -> None:
    site = start_site()
    site.routes["/ls/data/upload/3/a.png"] = body(b"ok")
    media = MediaFetcher(site.url + "/ls/", lambda: TOKEN)
    assert media.fetch("/data/upload/3/a.png") == b"ok"
    assert media.fetch("/ls/data/upload/3/a.png") == b"ok"


@pytest.mark.parametrize("uri", ["s3://bucket/a b/ü.png", "gs://bucket/x.png", "azure-blob://box/x.png"])
def test_cloud_addresses_go_through_label_studios_resolver(start_site: Callable[[], Site], uri: str) -> None:
    label_studio, bucket = start_site(), start_site()
    label_studio.routes["/tasks/17/presign/"] = redirect(bucket.url + "/signed.png?X-Signature=1", 303)
    bucket.routes["/signed.png"] = body(b"cloud")
    media = fetcher(label_studio)

    assert media.fetch(uri, task_id=17) == b"cloud"
    (path, headers) = label_studio.asked[0]
    encoded = path.removeprefix("/tasks/17/presign/?fileuri=")
    assert base64.urlsafe_b64decode(encoded).decode() == uri
    assert headers["Authorization"] == TOKEN["Authorization"]
    assert bucket.tokens() == [None]
    with pytest.raises(errors.MediaNeedsTask):
        media.fetch(uri)


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "ftp://h/a.png", "//host/a.png", "a.png", "", "javascript:1"])
def test_other_addresses_are_refused_without_a_request(start_site: Callable[[], Site], uri: str) -> None:
    site = start_site()
    with pytest.raises(errors.MediaUriUnsupported):
        fetcher(site).fetch(uri)
    assert site.asked == []


# --- failures of servers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (404, errors.MediaNotFound, False),
        (410, errors.MediaNotFound, False),
        (401, errors.MediaForbidden, False),
        (403, errors.MediaForbidden, False),
        (418, errors.MediaRefused, False),
        (429, errors.MediaServerFault, True),
        (503, errors.MediaServerFault, True),
    ],
)
def test_each_status_has_its_own_failure(
    start_site: Callable[[], Site], status: int, kind: type[errors.MediaError], transient: bool
) -> None:
    label_studio, site = start_site(), start_site()
    site.routes["/a.png"] = body(b"", status)
    with pytest.raises(kind) as caught:
        fetcher(label_studio).fetch(site.url + "/a.png?token=hidden")
    assert caught.value.transient is transient
    assert "/a.png" in str(caught.value) and "hidden" not in str(caught.value)


def test_closed_port_is_unreachable(start_site: Callable[[], Site]) -> None:
    site = start_site()
    with pytest.raises(errors.MediaUnreachable) as caught:
        fetcher(site).fetch("http://127.0.0.1:1/a.png")
    assert caught.value.transient


def test_announced_size_above_the_limit_is_refused_before_reading(start_site: Callable[[], Site]) -> None:
    site = start_site()
    site.routes["/a.png"] = body(b"x" * 1001)
    with pytest.raises(errors.MediaTooLarge, match="limit 1000"):
        fetcher(site, max_bytes=1000).fetch(site.url + "/a.png")
    site.routes["/a.png"] = body(b"x" * 1000)
    assert len(fetcher(site, max_bytes=1000).fetch(site.url + "/a.png")) == 1000


def test_endless_answer_is_cut_at_the_limit(start_site: Callable[[], Site]) -> None:
    site = start_site()
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):  # the reader hangs up: that is the point
            while sent < 200_000_000:
                handler.wfile.write(b"x" * 65536)
                sent += 65536

    site.routes["/a.png"] = endless
    with pytest.raises(errors.MediaTooLarge):
        fetcher(site, max_bytes=100_000).fetch(site.url + "/a.png")
    assert sent < 200_000_000


def test_silent_server_times_out(start_site: Callable[[], Site]) -> None:
    site = start_site()
    stop = threading.Event()
    site.routes["/a.png"] = lambda handler: stop.wait(30) and None
    try:
        with pytest.raises(errors.MediaTimeout):
            fetcher(site, timeout=0.3).fetch(site.url + "/a.png")
    finally:
        stop.set()


def test_redirect_loops_and_redirects_to_other_schemes_are_refused(start_site: Callable[[], Site]) -> None:
    site = start_site()
    site.routes["/loop"] = redirect("/loop")
    site.routes["/file"] = redirect("file:///etc/passwd")
    for path in ("/loop", "/file"):
        with pytest.raises(errors.MediaRedirectRefused):
            fetcher(site).fetch(site.url + path)


def test_no_thread_waits_for_a_connection_of_another(start_site: Callable[[], Site]) -> None:
    site, together = start_site(), threading.Barrier(24)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        together.wait(30)
        body(b"x")(handler)

    site.routes["/x"] = answer
    media = fetcher(site)
    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(lambda _: media.fetch(site.url + "/x"), range(24))) == [b"x"] * 24


def test_one_fetcher_serves_many_threads(start_site: Callable[[], Site]) -> None:
    site = start_site()
    for index in range(20):
        site.routes[f"/{index}.png"] = body(str(index).encode())
    media = fetcher(site)
    got: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda i=index: got.__setitem__(i, media.fetch(f"{site.url}/{i}.png")))
        for index in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {index: str(index).encode() for index in range(20)}


# --- local files --------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "set").mkdir(parents=True)
    (root / "set" / "a b.png").write_bytes(b"inside")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "root-twin").mkdir()
    (tmp_path / "root-twin" / "secret.txt").write_bytes(b"secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "folder_link").symlink_to(tmp_path)
    (root / "inner_link.png").symlink_to(root / "set" / "a b.png")
    return root


def local(path: str) -> str:
    return "/data/local-files/?d=" + quote(path)


def test_local_files_are_read_from_disk_below_the_root(start_site: Callable[[], Site], folders: Path) -> None:
    site = start_site()
    media = fetcher(site, local_files_root=folders)
    for uri in (
        local("set/a b.png"),
        local("/set/a b.png"),
        local("inner_link.png"),
        site.url + local("set/a b.png"),
    ):
        assert media.fetch(uri) == b"inside"
    assert site.asked == []


def test_without_a_root_local_files_come_from_label_studio(start_site: Callable[[], Site]) -> None:
    site = start_site()
    site.routes["/data/local-files/"] = body(b"served")
    assert fetcher(site).fetch(local("set/a b.png")) == b"served"
    assert site.asked == [("/data/local-files/?d=set/a%20b.png", site.asked[0][1])]
    assert site.tokens() == [TOKEN["Authorization"]]


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "set/../../secret.txt",
        "../root-twin/secret.txt",
        "link.txt",
        "folder_link/secret.txt",
        "/../secret.txt",
        "....//secret.txt",
        "%2e%2e/secret.txt",
        "/etc/passwd",
        "//etc/passwd",
    ],
)
def test_nothing_outside_the_root_is_ever_read(start_site: Callable[[], Site], folders: Path, path: str) -> None:
    media = fetcher(start_site(), local_files_root=folders)
    for uri in (local(path), "/data/local-files/?d=" + path):
        with pytest.raises((errors.MediaPathRefused, errors.MediaNotFound)):
            media.fetch(uri)


def test_escape_is_named_an_escape(start_site: Callable[[], Site], folders: Path) -> None:
    media = fetcher(start_site(), local_files_root=folders)
    for path in ("../secret.txt", "link.txt", "folder_link/secret.txt"):
        with pytest.raises(errors.MediaPathRefused):
            media.fetch(local(path))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "set", "folder_link", "link.txt", "secret.txt", "", "root"]), max_size=7))
def test_no_path_of_any_shape_reads_the_secret(folders: Path, parts: list[str]) -> None:
    media = MediaFetcher("http://127.0.0.1:1", lambda: TOKEN, local_files_root=folders)
    try:
        assert media.fetch(local("/".join(parts))) != b"secret"
    except errors.MediaError:
        pass
    finally:
        media.close()


def test_roots_that_are_the_whole_disk_or_missing_are_refused(start_site: Callable[[], Site], tmp_path: Path) -> None:
    site = start_site()
    (tmp_path / "to_disk").symlink_to("/")
    for root in (Path("/"), Path("/usr/.."), tmp_path / "to_disk", tmp_path / "missing"):
        with pytest.raises(errors.MediaRootInvalid):
            fetcher(site, local_files_root=root)


def test_folders_pipes_and_large_local_files_are_refused(start_site: Callable[[], Site], folders: Path) -> None:
    os.mkfifo(folders / "pipe")
    (folders / "big").write_bytes(b"x" * 2000)
    media = fetcher(start_site(), local_files_root=folders, max_bytes=1000)
    for path, kind in (
        ("set", errors.MediaNotFound),
        ("pipe", errors.MediaNotFound),
        ("absent.png", errors.MediaNotFound),
        ("big", errors.MediaTooLarge),
        ("", errors.MediaUriUnsupported),
        ("a\0b", errors.MediaUriUnsupported),
    ):
        with pytest.raises(kind):
            media.fetch(local(path))


# --- data: addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("data:image/png;base64," + base64.b64encode(b"\x00\xffpicture").decode(), b"\x00\xffpicture"),
        ("data:image/png;base64," + quote(base64.b64encode(b"\xfb\xef\xbe1").decode()), b"\xfb\xef\xbe1"),
        ("data:;base64,YQ", b"a"),
        ("DATA:image/png;BASE64,YW Jj\n", b"abc"),
        ("data:,a%20b%00", b"a b\x00"),
    ],
)
def test_data_addresses_are_decoded_in_place(start_site: Callable[[], Site], uri: str, expected: bytes) -> None:
    assert fetcher(start_site()).fetch(uri) == expected


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("data:image/png;base64", errors.MediaDataUriInvalid),
        ("data:image/png;base64,@@@@", errors.MediaDataUriInvalid),
        ("data:image/png;base64,A", errors.MediaDataUriInvalid),
        ("data:image/png;base64," + "A" * 4000, errors.MediaTooLarge),
        ("data:," + "a" * 1001, errors.MediaTooLarge),
        ("data:," + "a" * 100_000, errors.MediaTooLarge),
    ],
)
def test_bad_data_addresses_fail_clearly(
    start_site: Callable[[], Site], uri: str, kind: type[errors.MediaError]
) -> None:
    with pytest.raises(kind) as caught:
        fetcher(start_site(), max_bytes=1000).fetch(uri)
    assert len(str(caught.value)) < 400


# --- decoding -----------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_with_size(width: int, height: int) -> bytes:
    """Return a PNG whose header announces a size; its pixels are not there."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(15_200, 15_200), (8001, 8001), (1_000_000, 65)])
def test_too_many_pixels_are_refused_by_the_header_alone(size: tuple[int, int]) -> None:
    # Were it decoded, the missing pixels would make it a damaged picture instead.
    with pytest.raises(errors.MediaTooManyPixels):
        decode_image(png_with_size(*size), max_pixels=64_000_000)


def test_an_icon_is_not_opened_for_the_picture_in_it_may_have_any_size() -> None:
    inside = png_with_size(12_000, 12_000)
    header = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inside), 22)
    with pytest.raises(errors.MediaNotAnImage):
        decode_image(header + inside, max_pixels=64_000_000)


def test_of_an_animation_of_many_frames_only_the_first_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("L", (64, 64), shade) for shade in range(200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    seen: list[int] = []
    real = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda self: (seen.append(self.width), real(self))[1])
    assert decode_image(data, max_pixels=64 * 64).size == (64, 64)
    assert len(seen) < 20


def test_pixel_limit_is_inclusive() -> None:
    data = encoded(Image.new("RGB", (20, 10)), "PNG")
    assert decode_image(data, max_pixels=200).size == (20, 10)
    with pytest.raises(errors.MediaTooManyPixels, match="20 x 10"):
        decode_image(data, max_pixels=199)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_truncated_pictures_are_damaged_not_half_decoded(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert decode_image(data, 10_000).size == (64, 64)
    with pytest.raises(errors.MediaDamaged):
        decode_image(data[: len(data) * 2 // 3], 10_000)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"<!DOCTYPE html><title>Log in</title>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x00" * 5000]
)
def test_bytes_that_are_no_picture_are_named_so(data: bytes) -> None:
    with pytest.raises(errors.MediaNotAnImage) as caught:
        decode_image(data, 10_000)
    assert ("web page" in str(caught.value)) == data.startswith(b"<!DOCTYPE")


def test_pixels_are_counted_from_the_header_alone() -> None:
    assert pixels_in(png_with_size(9000, 8000)) == 72_000_000
    assert pixels_in(encoded(Image.new("L", (30, 20)), "JPEG")[:-10]) == 600
    assert pixels_in(b"hello") == pixels_in(b"") == 0


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]), st.integers(0, 400))
def test_damage_of_any_kind_gives_a_picture_or_a_media_error(garbage: bytes, kind: str, at: int) -> None:
    data = encoded(Image.linear_gradient("L").resize((40, 30)).convert("RGB"), kind)
    damaged = data[:at] + garbage + data[at + len(garbage) :]
    with contextlib.suppress(errors.MediaError):
        assert decode_image(damaged, 1_000_000).mode == "RGB"


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, blue = decode_image(data, 100).getpixel((4, 4))
        assert red > 200 and green < 50 and blue < 50


def test_transparency_becomes_white_in_every_mode() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    palette = clear.convert("PA").convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    cases = {
        "RGBA": encoded(clear, "PNG"),
        "LA": encoded(clear.convert("LA"), "PNG"),
        "P": encoded(palette, "PNG", transparency=palette.getpixel((0, 0))),
        "GIF": encoded(palette, "GIF", transparency=palette.getpixel((0, 0))),
        "RGB": encoded(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
    }
    for mode, data in cases.items():
        assert decode_image(data, 100).getpixel((3, 3)) == (255, 255, 255), mode
    assert abs(decode_image(encoded(half, "PNG"), 100).getpixel((3, 3))[0] - 127) <= 1


def test_deep_greys_keep_their_shades() -> None:
    ramp = np.linspace(0, 65535, 64 * 8).reshape(8, 64).astype(np.uint16)
    grey = np.asarray(decode_image(encoded(Image.fromarray(ramp), "PNG"), 1000))[..., 0].astype(int)
    assert grey.min() == 0 and grey.max() == 255 and abs(grey.mean() - 127) < 2


def test_pictures_are_turned_the_way_browsers_show_them() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    assert decode_image(encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif), 1000).size == (10, 20)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "I", "F"])
def test_every_colour_mode_comes_out_as_rgb(mode: str) -> None:
    image = Image.linear_gradient("L").convert(mode) if mode != "P" else Image.linear_gradient("L").quantize()
    decoded = decode_image(encoded(image, "TIFF"), 100_000)
    assert decoded.mode == "RGB" and decoded.size == (256, 256)
    assert np.asarray(decoded).std() > 30
