"""All settings of a backend process, in one place, read from the environment."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.errors import ConfigurationError

# Names that Label Studio, which asks Django's URLValidator, sends webhooks to.
_LABEL = r"(?!-)[a-z0-9\u00a1-\uffff-]{1,63}(?<!-)"
_TOP = r"(?!-)(?:[a-z\u00a1-\uffff-]{2,63}|xn--[a-z0-9]{1,59})(?<!-)"
_NAME = re.compile(rf"localhost|(?:{_LABEL}\.)+{_TOP}\.?", re.IGNORECASE)


def takes_webhooks(host: str) -> bool:
    """Return whether Label Studio accepts a webhook to this host: localhost, an IP address or a full name."""
    try:
        ip_address(host)
    except ValueError:
        return _NAME.fullmatch(host) is not None
    return True


class Settings(BaseSettings):
    """Environment variables with their defaults; `mmal settings` prints this table."""

    model_config = SettingsConfigDict(
        env_prefix="MMAL_",
        env_file=".env",
        # `MMAL_DATA_DIR=` means the default, as the table says of an empty value, and not the working folder.
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    label_studio_url: str = Field(
        "http://localhost:8080",
        validation_alias=AliasChoices("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST"),
        description="Address of Label Studio as this process reaches it.",
    )
    label_studio_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="LABEL_STUDIO_API_KEY",
        description="Personal access token or legacy token of a Label Studio user who may edit the projects.",
    )
    basic_auth_user: str = Field(
        "",
        validation_alias="BASIC_AUTH_USER",
        description="User name every request to this backend must carry; empty: no authentication.",
    )
    basic_auth_pass: SecretStr = Field(
        SecretStr(""),
        validation_alias="BASIC_AUTH_PASS",
        description="Password that belongs to BASIC_AUTH_USER.",
    )
    admin_token: SecretStr = Field(
        SecretStr(""),
        description="Token every request to the admin API must carry; empty: open on loopback, closed elsewhere.",
    )
    metrics_token: SecretStr = Field(
        SecretStr(""), description="Token every request to /metrics must carry, instead of basic authentication."
    )
    behind_proxy: bool = Field(
        False, description="true: a proxy in front asks for credentials, so MMAL_HOST may be any without ours."
    )
    port: int = Field(9090, ge=0, le=65535, validation_alias="PORT", description="Port of the web process.")
    host: str = Field("127.0.0.1", description="Address the web process listens on; 0.0.0.0 in a container.")
    public_url: str = Field(
        "", description="Address at which Label Studio reaches this backend; empty: http://localhost:PORT."
    )
    max_request_bytes: int = Field(64 * 2**20, ge=1024, description="Larger requests are refused with 413.")
    data_dir: Path = Field(Path("mmal-data"), description="Folder of everything that must survive a restart.")
    database_url: str = Field(
        "",
        repr=False,
        description="postgresql://USER:PASSWORD@HOST/DATABASE as the store; empty: SQLite in MMAL_DATA_DIR.",
    )
    queue_url: str = Field(
        "",
        repr=False,
        description="redis://:PASSWORD@HOST:6379/0 as the job queue of all workers; empty: hosts share none.",
    )
    encoder: str = Field(
        "packaged",
        description="packaged, open_clip:NAME/PRETRAINED, open_clip:NAME:/path/to/file, import:module:function.",
    )
    device: str = Field("auto", description="Device of the encoder: auto, cpu, cuda, cuda:1.")
    encode_batch: int = Field(32, ge=1, description="Images and texts a call of the encoder; 256 suits a GPU.")
    local_files_root: Path | None = Field(
        None,
        description="Folder from which /data/local-files/ is read directly; empty: fetched from Label Studio.",
    )
    max_media_bytes: int = Field(32 * 2**20, ge=1, description="Larger images are not fetched.")
    max_image_pixels: int = Field(50_000_000, ge=1, description="Images of more pixels are not decoded.")
    media_timeout: float = Field(20.0, gt=0, description="Seconds until a media download is given up.")
    media_allow: str = Field(
        "",
        description="Hosts (name or name:port) and networks media may be fetched from though they are not public.",
    )
    fetch_threads: int = Field(8, ge=1, description="Parallel media downloads, and pictures decoded at once.")
    lease_seconds: float = Field(30.0, gt=0, description="A round whose heartbeat is older than this is taken over.")
    pulse_seconds: float = Field(0.5, gt=0, description="How often the worker looks for something to do.")
    pulse_file: Path | None = Field(
        None, description="File the worker touches after each such look, for health checks; empty: none."
    )
    reconcile_hours: float = Field(24.0, gt=0, description="How often all task ids are compared with Label Studio's.")
    predict_seconds: float = Field(
        2.0, ge=0, description="How long /predict waits for tasks that are not embedded yet."
    )
    web_workers: int = Field(2, ge=1, description="Processes of the web server.")
    web_threads: int = Field(8, ge=1, description="Threads of each web process.")
    worker_threads: int = Field(3, ge=2, description="Jobs the worker runs at once.")
    torch_threads: int = Field(0, ge=0, description="Threads of torch in the worker; 0: torch's default.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG (a line for each request and step), INFO, WARNING or ERROR."
    )
    log_format: Literal["text", "json"] = Field("text", description="text, or json: one object a line.")
    hold_at: str = Field(
        "",
        description="For fault tests: the worker stands still at this point of a round; see docs/operations.md.",
    )

    @field_validator("label_studio_url", "public_url")
    @classmethod
    def _no_credentials(cls, url: str) -> str:
        if "@" in url.partition("?")[0]:
            raise ValueError("the address must not carry a user name or password; tokens have settings of their own")
        return url

    @field_validator("public_url")
    @classmethod
    def _takes_a_webhook(cls, url: str) -> str:
        if url and not takes_webhooks(urlsplit(url).hostname or ""):
            raise ValueError(
                "Label Studio sends webhooks to localhost, an IP address or a name with a dot and no underscore; "
                "in a container network give the web process an alias such as mmal.internal"
            )
        return url

    @property
    def backend_url(self) -> str:
        """Address that is written into Label Studio."""
        return (self.public_url or f"http://localhost:{self.port}").rstrip("/")

    @property
    def basic_auth(self) -> tuple[str, str] | None:
        """User name and password of this backend; None where it asks for none."""
        return (self.basic_auth_user, self.basic_auth_pass.get_secret_value()) if self.basic_auth_user else None

    @property
    def store_url(self) -> str:
        """SQLAlchemy address of the store."""
        return self.database_url or f"sqlite:///{self.sqlite_file}"

    @property
    def sqlite_file(self) -> Path:
        """Where the store lies unless MMAL_DATABASE_URL says otherwise."""
        return self.data_dir.resolve() / "mmal.sqlite3"

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(variable, value in force, default, meaning) of every setting; secrets masked."""
        rows = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
            rows.append(
                (
                    _variable(name),
                    without_credentials(str(value if value is not None else "")),
                    "" if default is None else str(default),
                    field.description or "",
                )
            )
        return rows


def _variable(name: str) -> str:
    """The environment variable of a field; a name that is one already stays."""
    return _variables(name)[0] if name in Settings.model_fields else name


def _variables(name: str) -> list[str]:
    alias = Settings.model_fields[name].validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias or f"MMAL_{name.upper()}"]
    return [str(choice) for choice in choices]


def all_variables() -> frozenset[str]:
    """Every environment variable that settings are read from."""
    return frozenset(variable for name in Settings.model_fields for variable in _variables(name))


@lru_cache
def load_settings() -> Settings:
    """Settings of this process.

    Raises
    ------
    ConfigurationError
        Naming each variable that cannot be read, its value and what it must be.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{_variable(str(e['loc'][0]))} = {without_credentials(str(e['input']))!r}: {e['msg']}"
            for e in error.errors()
        ]
        # Without the cause, which quotes the values as they are.
        raise ConfigurationError("Settings cannot be read: " + "; ".join(lines)) from None


def without_credentials(text: str) -> str:
    """The same text with user names, passwords and tokens taken out of every address in it."""
    text = re.sub(r"://\S*@", "://...@", text)
    return re.sub(r"(?i)\b(\w*(?:password|passwd|token|secret|key))=[^&\s]+", r"\1=...", text)
