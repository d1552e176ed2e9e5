"""Who may call: basic authentication for everything, a secret of our own for our webhook."""

from __future__ import annotations

import hmac

from flask import Response, current_app, request

from backend.settings import Settings

# Our webhook carries its own secret, and a container's health check knows no password.
OPEN_ENDPOINTS = {"protocol.events_hook", "protocol.health"}


def require_basic_auth() -> Response | None:
    """Refuse a request without the user name and password of the settings, where these are set."""
    settings: Settings = current_app.extensions["mmal"][0].settings
    if not settings.basic_auth_user or request.endpoint in OPEN_ENDPOINTS:
        return None
    given = request.authorization
    expected = (settings.basic_auth_user, settings.basic_auth_pass.get_secret_value())
    if given is not None and given.type == "basic":
        pairs = zip((given.username or "", given.password or ""), expected, strict=True)
        if all(hmac.compare_digest(a.encode(), b.encode()) for a, b in pairs):
            return None
    return Response(
        "Set the user name and password of BASIC_AUTH_USER and BASIC_AUTH_PASS in Label Studio's model settings.",
        401,
        {"WWW-Authenticate": 'Basic realm="mmal"'},
    )
