"""Nobody reaches more than their credentials say, and nothing listens to others without any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from typer.testing import CliRunner

from backend.cli import app as mmal
from backend.errors import ConfigurationError, CredentialsMissing
from backend.server.app import create_app
from backend.server.authentication import check_exposure, is_loopback
from backend.settings import Settings, load_settings

BASIC = {"basic_auth_user": "studio", "basic_auth_pass": SecretStr("pass")}
ADMIN = {"admin_token": SecretStr("admin-token")}
METRICS = {"metrics_token": SecretStr("metrics-token")}


@pytest.fixture
def client(tmp_path: Path) -> Any:
    return lambda **settings: create_app(Settings(data_dir=tmp_path, **settings)).test_client()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- listening ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "backend.internal", ""])
def test_listening_to_others_without_credentials_is_refused_in_words(host: str) -> None:
    with pytest.raises(CredentialsMissing, match="BASIC_AUTH_USER and BASIC_AUTH_PASS, or MMAL_BEHIND_PROXY=true"):
        check_exposure(Settings(host=host))
    check_exposure(Settings(host=host, **BASIC))
    check_exposure(Settings(host=host, behind_proxy=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_credentials(host: str) -> None:
    assert is_loopback(host)
    check_exposure(Settings(host=host))


@pytest.mark.parametrize("half", [{"basic_auth_user": "studio"}, {"basic_auth_pass": SecretStr("pass")}])
def test_half_of_the_credentials_is_refused_everywhere(half: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CredentialsMissing, match="is empty"):
        create_app(Settings(data_dir=tmp_path, **half))


@pytest.mark.parametrize("command", ["web", "serve"])
def test_the_commands_refuse_before_they_start_anything(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMAL_HOST", "0.0.0.0")
    monkeypatch.setenv("MMAL_DATA_DIR", str(tmp_path / "data"))
    load_settings.cache_clear()
    try:
        result = CliRunner().invoke(mmal, [command])
    finally:
        load_settings.cache_clear()
    assert isinstance(result.exception, CredentialsMissing)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("variable", ["LABEL_STUDIO_URL", "MMAL_PUBLIC_URL"])
def test_addresses_carry_no_password_and_the_refusal_does_not_quote_it(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://me:s3cret@studio.example")
    load_settings.cache_clear()
    with pytest.raises(ConfigurationError, match="must not carry a user name") as caught:
        load_settings()
    load_settings.cache_clear()
    assert "s3cret" not in str(caught.value) and caught.value.__cause__ is None


def test_an_address_that_label_studio_sends_no_webhook_to_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MMAL_PUBLIC_URL", "http://web:9090")
    load_settings.cache_clear()
    with pytest.raises(ConfigurationError, match=r"MMAL_PUBLIC_URL.*http://web:9090.*mmal\.internal"):
        load_settings()
    load_settings.cache_clear()


# --- admin API and metrics --------------------------------------------------------------------------------------


def test_on_loopback_the_admin_api_is_open_until_something_is_set(client: Any) -> None:
    assert client().get("/api/projects").status_code == 200
    assert client(**BASIC).get("/api/projects").status_code == 401
    assert client(**BASIC).get("/api/projects", auth=("studio", "pass")).status_code == 200


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0", **BASIC}, {"behind_proxy": True}])
def test_beyond_loopback_the_admin_api_is_closed_without_a_token(client: Any, settings: dict[str, Any]) -> None:
    answer = client(**settings).get("/api/projects", auth=("studio", "pass"))
    assert answer.status_code == 403
    assert "MMAL_ADMIN_TOKEN" in answer.get_json()["detail"]


@pytest.mark.parametrize("settings", [{}, BASIC, {"host": "0.0.0.0", **BASIC}, {"behind_proxy": True}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/strategies"),
        ("GET", "/api/projects"),
        ("GET", "/api/projects/1"),
        ("PATCH", "/api/projects/1/options"),
        ("POST", "/api/projects/1/rounds"),
    ],
)
def test_with_a_token_the_admin_api_takes_that_token_only(
    client: Any, settings: dict[str, Any], method: str, path: str
) -> None:
    web: FlaskClient = client(**settings, **ADMIN, **METRICS)
    for wrong in ({}, bearer("guessed"), bearer("metrics-token"), {"Authorization": "admin-token"}):
        assert web.open(path, method=method, headers=wrong).status_code == 401
    assert web.open(path, method=method, auth=("studio", "pass")).status_code == 401
    assert web.open(path, method=method, headers=bearer("admin-token")).status_code not in (401, 403)


def test_metrics_take_their_own_token_or_else_what_everything_takes(client: Any) -> None:
    assert client().get("/metrics").status_code == 200
    assert client(**BASIC).get("/metrics").status_code == 401
    assert client(**BASIC).get("/metrics", auth=("studio", "pass")).status_code == 200
    web = client(**BASIC, **METRICS, **ADMIN)
    assert web.get("/metrics", headers=bearer("metrics-token")).status_code == 200
    assert web.get("/metrics", headers=bearer("admin-token")).status_code == 401
    assert web.get("/metrics", auth=("studio", "pass")).status_code == 401


def test_the_admin_token_opens_nothing_else(client: Any) -> None:
    web = client(**BASIC, **ADMIN)
    for path in ("/versions", "/metrics", "/nowhere"):
        assert web.get(path, headers=bearer("admin-token")).status_code == 401


def test_credentials_that_cannot_be_read_are_refused_like_wrong_ones(client: Any) -> None:
    web = client(**BASIC)
    for header in ("Basic", "Basic ====", "Basic /////w==", "Bearer", "Basic c3R1ZGlv", "Digest x", "\xff\xfe"):
        assert web.get("/versions", headers={"Authorization": header}).status_code == 401
