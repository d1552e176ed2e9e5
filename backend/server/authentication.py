"""Who may call: basic authentication for all but a few routes, and tokens of their own for admin API and metrics."""

from __future__ import annotations

import hmac
from ipaddress import ip_address

from flask import Response, current_app, request
from pydantic import SecretStr

from backend.errors import CredentialsMissing
from backend.server.refusals import refusal
from backend.settings import Settings

# Our webhook carries its own secret, and a container's health check knows no password.
OPEN_ENDPOINTS = {"protocol.events_hook", "protocol.health"}


def check_exposure(settings: Settings) -> None:
    """Refuse to listen where others reach it while nothing tells them from Label Studio.

    Raises
    ------
    CredentialsMissing
        Naming the settings that are missing.
    """
    user, password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    if bool(user) != bool(password):
        missing = "BASIC_AUTH_PASS" if user else "BASIC_AUTH_USER"
        raise CredentialsMissing(f"{missing} is empty: set BASIC_AUTH_USER and BASIC_AUTH_PASS, or neither")
    if not user and not settings.behind_proxy and not is_loopback(settings.host):
        raise CredentialsMissing(
            f"MMAL_HOST = {settings.host!r} lets other machines connect, and no credentials are set: set"
            " BASIC_AUTH_USER and BASIC_AUTH_PASS, or MMAL_BEHIND_PROXY=true where a proxy in front asks for"
            " credentials, or listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether a server at this address is reached by its own machine only."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def require_credentials() -> Response | None:
    """Refuse a request that does not carry what its route asks for."""
    settings: Settings = current_app.extensions["mmal"][0].settings
    if request.endpoint in OPEN_ENDPOINTS:
        return None
    if request.blueprint == "admin" and settings.admin_token.get_secret_value():
        return _bearer(settings.admin_token, "MMAL_ADMIN_TOKEN")
    if request.blueprint == "admin" and (settings.behind_proxy or not is_loopback(settings.host)):
        words = "The admin API is closed: set MMAL_ADMIN_TOKEN and send it as `Authorization: Bearer ...`"
        return refusal(403, words, "Forbidden")
    if request.blueprint == "metrics" and settings.metrics_token.get_secret_value():
        return _bearer(settings.metrics_token, "MMAL_METRICS_TOKEN")
    return _basic(settings) if settings.basic_auth_user else None


def _bearer(token: SecretStr, variable: str) -> Response | None:
    given = request.headers.get("Authorization", "")
    if _same(given, f"Bearer {token.get_secret_value()}"):
        return None
    return _unauthorized(f"Send the token of {variable} as `Authorization: Bearer ...`", "Bearer")


def _basic(settings: Settings) -> Response | None:
    given = request.authorization
    if given is not None and given.type == "basic":
        # Both are compared, so that the time tells nothing of either.
        user = _same(given.username or "", settings.basic_auth_user)
        if _same(given.password or "", settings.basic_auth_pass.get_secret_value()) and user:
            return None
    return _unauthorized(
        "Set the user name and password of BASIC_AUTH_USER and BASIC_AUTH_PASS in Label Studio's model settings",
        "Basic",
    )


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _unauthorized(words: str, scheme: str) -> Response:
    answer = refusal(401, words, "Unauthorized")
    answer.headers["WWW-Authenticate"] = f'{scheme} realm="mmal"'
    return answer
