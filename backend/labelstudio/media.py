"""Fetches the pictures of tasks from wherever Label Studio lets them live.

Sources: http(s) addresses, Label Studio uploads, local files storage, cloud storage through Label Studio's
resolver, and ``data:`` addresses. The Label Studio token goes to the media routes of Label Studio's own origin only,
redirects included. What is not public is not fetched (addresses.py). Bytes are limited while reading, and one limit
of time holds for the whole fetch.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote_to_bytes

import httpcore
import httpx

from backend.errors import (
    MediaAddressRefused,
    MediaDataUriInvalid,
    MediaForbidden,
    MediaNeedsTask,
    MediaNotFound,
    MediaPathRefused,
    MediaRedirectRefused,
    MediaRefused,
    MediaRootInvalid,
    MediaServerFault,
    MediaTimeout,
    MediaTooLarge,
    MediaUnreachable,
    MediaUriUnsupported,
)
from backend.labelstudio.addresses import MediaAddresses, port_of
from backend.labelstudio.media_transport import MediaTransport, within

MAX_BYTES = 64 * 2**20
TIMEOUT_SECONDS = 30.0
_MAX_REDIRECTS = 5
_CONNECTION_FAULTS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol)
_CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
# Only these of Label Studio's routes are asked with its token: a task must not make it do anything else in our name.
_MEDIA_ROUTES = re.compile(r"/(data|storage-data)/|/(tasks|projects)/\d+/(presign|resolve)/")
_HEADERS = {"User-Agent": "mmal-backend (Label Studio ML backend)", "Accept-Encoding": "identity"}


class MediaFetcher:
    """Reads the bytes behind a task's picture field; safe to share between threads.

    Parameters
    ----------
    label_studio_url
        Base address of Label Studio, with its path prefix when it has one.
    authorization
        Returns the headers that Label Studio wants, e.g. ``{"Authorization": "Bearer ..."}``; called per request.
    local_files_root
        Folder that local files storage is served from (Label Studio's LOCAL_FILES_DOCUMENT_ROOT). When set,
        ``/data/local-files/?d=`` is read from disk below it; when None it is fetched from Label Studio.
    max_bytes
        Largest picture, in bytes.
    timeout
        Seconds that one fetch may take in all, redirects included.
    allow
        Hosts and networks that are no part of the public internet and may be fetched from all the same.

    Raises
    ------
    MediaRootInvalid, MediaAllowInvalid
    """

    def __init__(
        self,
        label_studio_url: str,
        authorization: Callable[[], Mapping[str, str]],
        local_files_root: Path | None = None,
        max_bytes: int = MAX_BYTES,
        timeout: float = TIMEOUT_SECONDS,
        allow: str = "",
    ) -> None:
        self._base = httpx.URL(label_studio_url.rstrip("/"))
        self._authorization = authorization
        self._root = None if local_files_root is None else _checked_root(local_files_root)
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._client = httpx.Client(
            transport=MediaTransport(MediaAddresses.parse(allow, label_studio_url)),
            follow_redirects=False,
            headers=_HEADERS,
            cookies=_no_cookies(),
            timeout=timeout,
        )

    def close(self) -> None:
        """Close the kept connections."""
        self._client.close()

    def fetch(self, uri: str, task_id: int | None = None) -> bytes:
        """Return the bytes that a task's picture field stands for.

        Raises
        ------
        MediaError
            One of its kinds, with the address and the remedy. ``transient`` tells whether to try again later.
        """
        uri = uri.strip()
        scheme = uri.partition(":")[0].lower() if ":" in uri else ""
        if scheme == "data":
            return _decode_data_uri(uri, self._max_bytes)
        with within(self._timeout):
            return self._fetched(uri, scheme, task_id)

    def _fetched(self, uri: str, scheme: str, task_id: int | None) -> bytes:
        if scheme in _CLOUD_SCHEMES:
            return self._download(self._presigned(uri, task_id), uri)
        url = self._absolute(uri, scheme)
        ours = self._is_label_studio(url)
        if ours and url.path.rstrip("/").endswith("/data/local-files") and self._root is not None:
            return self._read_local(url, uri)
        upload = url.path.partition("/data/upload/")[2] if ours else ""
        try:
            return self._download(url, uri)
        except MediaNotFound:
            if not upload:
                raise
        # Uploads kept in cloud storage are served here instead (400 when they are kept on disk).
        proxy = self._join(f"/storage-data/uploaded/?filepath={quote('upload/' + upload)}")
        try:
            return self._download(proxy, uri)
        except MediaRefused as error:
            raise MediaNotFound(f"{_shown(uri)}: Label Studio has no such upload; was it deleted?") from error

    def _absolute(self, uri: str, scheme: str) -> httpx.URL:
        if scheme in ("http", "https"):
            return _parsed(uri)
        if uri.startswith(("upload/", "/upload/")):
            return self._join("/data/" + uri.lstrip("/"))
        if uri.startswith("/") and not uri.startswith("//"):
            return self._join(uri)
        raise MediaUriUnsupported(
            f"{_shown(uri)!r} is no address to fetch a picture from. Use http(s), a Label Studio upload or local "
            "file (/data/...), s3, gs or azure-blob of a connected storage, or data:."
        )

    def _join(self, path: str) -> httpx.URL:
        prefix = self._base.path.rstrip("/")
        if prefix and not path.startswith(prefix + "/"):
            path = prefix + path
        return _parsed(f"{self._base.copy_with(raw_path=b'/')}".rstrip("/") + path)

    def _presigned(self, uri: str, task_id: int | None) -> httpx.URL:
        if task_id is None:
            raise MediaNeedsTask(f"{_shown(uri)}: Label Studio resolves cloud storage per task; pass the task id.")
        encoded = base64.urlsafe_b64encode(uri.encode()).decode()
        return self._join(f"/tasks/{task_id}/presign/?fileuri={encoded}")

    def _is_label_studio(self, url: httpx.URL) -> bool:
        """Whether this is one of Label Studio's own media routes."""
        prefix = self._base.path.rstrip("/")
        here = _origin(url) == _origin(self._base) and url.path.startswith(prefix + "/")
        route = url.path.removeprefix(prefix)
        return here and ".." not in route.split("/") and _MEDIA_ROUTES.match(route) is not None

    def _download(self, url: httpx.URL, uri: str) -> bytes:
        for _ in range(_MAX_REDIRECTS + 1):
            # Decided afresh at each hop: a redirect away from Label Studio must not take the token along.
            ours = self._is_label_studio(url)
            headers = dict(self._authorization()) if ours else {}
            with _transport_errors(uri, url), self._client.stream("GET", url, headers=headers) as response:
                if not response.is_redirect:
                    _check_status(response.status_code, uri, ours)
                    return self._read_body(response, uri)
                url = self._redirected(url, response.headers["location"], uri)
        raise MediaRedirectRefused(f"{_shown(uri)}: more than {_MAX_REDIRECTS} redirects. Store the final address.")

    def _redirected(self, url: httpx.URL, location: str, uri: str) -> httpx.URL:
        target = url.join(_parsed(location))
        if target.scheme not in ("http", "https") or not target.host:
            raise MediaRedirectRefused(f"{_shown(uri)}: redirected to {target.scheme or 'nowhere'}:, not http(s).")
        return target

    def _read_body(self, response: httpx.Response, uri: str) -> bytes:
        announced = response.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise _too_large(uri, int(announced), self._max_bytes)
        # Asked for as it is; storage that keeps packed files sends them packed all the same. Unpacked here, because
        # a small answer may unpack to any size.
        packed = response.headers.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate")
        unpacking = zlib.decompressobj(wbits=47) if packed else None
        body = bytearray()
        for chunk in response.iter_raw():
            body += unpacking.decompress(chunk, self._max_bytes - len(body) + 1) if unpacking else chunk
            if len(body) > self._max_bytes:
                raise _too_large(uri, len(body), self._max_bytes)
        return bytes(body)

    def _read_local(self, url: httpx.URL, uri: str) -> bytes:
        assert self._root is not None
        # Decoded once, the last value wins, always relative to the root: as Label Studio's own view does it.
        values = parse_qs(url.query.decode("ascii"), keep_blank_values=True).get("d", [""])
        relative = values[-1].lstrip("/")
        if not relative or "\0" in relative:
            raise MediaUriUnsupported(f"{_shown(uri)}: local file address without a path (?d=...).")
        path = Path(os.path.realpath(self._root / relative))
        if not path.is_relative_to(self._root):
            raise MediaPathRefused(f"{_shown(uri)}: leads out of the local files folder {self._root}; not read.")
        return _read_regular_file(path, uri, self._max_bytes)


def _checked_root(root: Path) -> Path:
    resolved = root.expanduser().resolve()
    if resolved == Path(resolved.anchor):
        raise MediaRootInvalid(f"local files root {str(root)!r} is the whole disk. Name the folder of the pictures.")
    if not resolved.is_dir():
        raise MediaRootInvalid(f"local files root {str(root)!r} is no folder. Create or mount it, or unset it.")
    return resolved


def _read_regular_file(path: Path, uri: str, max_bytes: int) -> bytes:
    try:
        # The path is resolved: a link that appears in its last place now was put there to escape.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise MediaNotFound(f"{_shown(uri)}: {path} cannot be read ({error.strerror}). Restore it.") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise MediaNotFound(f"{_shown(uri)}: {path} is no file. Correct the address.")
    with open(descriptor, "rb") as file:
        if status.st_size > max_bytes:
            raise _too_large(uri, status.st_size, max_bytes)
        return file.read(max_bytes)


def _decode_data_uri(uri: str, max_bytes: int) -> bytes:
    header, comma, payload = uri.partition(",")
    if not comma:
        raise MediaDataUriInvalid(f"{_shown(uri)!r} has no comma. Write data:image/png;base64,....")
    encoded_by_base64 = header.lower().endswith(";base64")
    shortest = len(payload) // 3 if not encoded_by_base64 else len(payload) // 12 * 3
    if shortest > max_bytes:
        raise _too_large(uri, shortest, max_bytes)
    data = unquote_to_bytes(payload)
    if encoded_by_base64:
        compact = b"".join(data.split())
        try:
            data = base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
        except binascii.Error as error:
            raise MediaDataUriInvalid(f"{_shown(uri)!r} is not base64: {error}. Encode the picture again.") from error
    if len(data) > max_bytes:
        raise _too_large(uri, len(data), max_bytes)
    return data


def _no_cookies() -> CookieJar:
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, port_of(url)


def _parsed(uri: str) -> httpx.URL:
    try:
        return httpx.URL(uri)
    except (httpx.InvalidURL, ValueError, UnicodeError):
        # Not with the reason: it may quote the part of the address that holds a password.
        raise MediaUriUnsupported(f"{_shown(uri)!r} is no valid address. Correct it.") from None


def _check_status(status: int, uri: str, ours: bool) -> None:
    if 200 <= status < 300:
        return
    if status in (404, 410):
        raise MediaNotFound(f"{_shown(uri)}: not found ({status}). Correct the address or restore the file.")
    if status in (401, 403):
        remedy = "Check the Label Studio token and that its user sees the project." if ours else "Make it readable."
        raise MediaForbidden(f"{_shown(uri)}: access refused ({status}). {remedy}")
    if status == 429 or status >= 500:
        raise MediaServerFault(f"{_shown(uri)}: server error {status}. It is tried again later.")
    raise MediaRefused(f"{_shown(uri)}: unexpected answer {status}. Check the address.")


@contextmanager
def _transport_errors(uri: str, url: httpx.URL) -> Iterator[None]:
    try:
        yield
    except MediaAddressRefused as error:
        raise MediaAddressRefused(f"{_shown(uri)}: {error}") from None
    except (httpcore.TimeoutException, httpx.TimeoutException) as error:
        raise MediaTimeout(
            f"{_shown(uri)}: not complete in time from {url.host}. Try again, or allow more (MMAL_MEDIA_TIMEOUT)."
        ) from error
    except zlib.error as error:
        raise MediaRefused(f"{_shown(uri)}: the answer is packed and damaged: {error}. Store it again.") from error
    except (*_CONNECTION_FAULTS, httpx.HTTPError, httpx.InvalidURL) as error:
        raise MediaUnreachable(f"{_shown(uri)}: no connection to {url.host}: {error}. Is it up?") from error


def _too_large(uri: str, size: int, limit: int) -> MediaTooLarge:
    return MediaTooLarge(
        f"{_shown(uri)}: {size} bytes or more, limit {limit}. Store a smaller picture, or raise the limit."
    )


def _shown(uri: str) -> str:
    """Return the address for a message: short, without the parts that may hold secrets."""
    head, separator, rest = uri.partition("://")
    if separator:
        # Whatever an address means by its parts: credentials come before an "@", signatures after "?" or "#".
        _, at, rest = re.split("[?#]", rest, maxsplit=1)[0].rpartition("@")
        uri = f"{head}://{'...@' if at else ''}{rest}"
    elif "/local-files/?d=" not in uri and not uri.startswith("data:"):
        uri = re.split("[?#]", uri, maxsplit=1)[0]
    return uri if len(uri) <= 120 else uri[:117] + "..."
