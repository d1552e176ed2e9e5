"""The compose file and the Dockerfile keep their promises, as far as can be seen without a container engine."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest

from backend.errors import CredentialsMissing
from backend.labelstudio.allowed_addresses import environment_allowing
from backend.server.authentication import check_exposure
from backend.settings import Settings, takes_webhooks
from tests.container_files import (
    COMPOSE,
    REPOSITORY,
    VARIABLE,
    VariableMissing,
    dockerfile,
    example_variables,
    filled_in,
    image_environment,
    raw,
    services,
)
from tests.team_servers import PostgresServer

SCHEMA = Path(__file__).parent / "fixtures" / "compose_spec" / "compose-spec.json"
SERVICES = services(filled_in())
# Without these a part of the backend stays closed.
OPTIONAL = ["MMAL_ADMIN_TOKEN", "MMAL_METRICS_TOKEN"]
SECRETS = [name for name in example_variables() if re.search("PASS|TOKEN", name) and name not in OPTIONAL]
# Started by its image's own user; the Dockerfile sets ours.
OURS = {"web", "worker"}
WRITABLE = {"label-studio"}


def arguments(instruction: str) -> list[str]:
    return [words for name, words in dockerfile() if name == instruction]


@pytest.mark.parametrize("document", [raw(), {**raw(), "services": SERVICES}], ids=["as written", "filled in"])
def test_the_compose_file_fits_the_schema_of_the_specification(document: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(document)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_pinned_unprivileged_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"]
    assert service.get("read_only", False) == (name not in WRITABLE)
    if name in OURS:
        assert service["build"] == "." and "user" not in service
    else:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", service["image"])
        assert str(service["user"]).split(":")[0] not in ("root", "0")


def test_services_start_after_those_they_need_are_healthy() -> None:
    needs = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    assert needs == {
        "postgres": set(),
        "redis": set(),
        "label-studio": {"postgres"},
        "web": {"postgres", "redis"},
        "worker": {"web", "label-studio"},
    }
    for service in SERVICES.values():
        assert all(need["condition"] == "service_healthy" for need in service.get("depends_on", {}).values())


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_has_a_default_and_a_missing_one_stops_compose_with_its_name(secret: str) -> None:
    assert example_variables()[secret] == ""
    rules = {rule for name, rule, _ in VARIABLE.findall(COMPOSE.read_text()) if name == secret}
    assert rules == {":?"}
    with pytest.raises(VariableMissing, match=secret):
        services({**filled_in(), secret: ""})


@pytest.mark.parametrize("token", OPTIONAL)
def test_optional_tokens_have_no_default_either(token: str) -> None:
    assert example_variables()[token] == ""
    assert services({**filled_in(), token: ""})["web"]["environment"][token] == ""


def test_the_example_names_every_variable_and_no_other() -> None:
    assert {name for name, _, _ in VARIABLE.findall(COMPOSE.read_text()) if name} == set(example_variables())


def test_only_label_studio_is_published_and_on_loopback_unless_asked_otherwise() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"label-studio": ["127.0.0.1:8080:8080"]}


def test_label_studio_may_call_the_web_process_and_no_other_private_address() -> None:
    networks = {name: service["networks"] for name, service in SERVICES.items()}
    address = networks["web"]["studio"]["ipv4_address"]
    studio = SERVICES["label-studio"]["environment"]
    allowed = environment_allowing([address])
    assert {name: studio[name] for name in allowed} == allowed
    assert not {"ML_BLOCK_LOCAL_IP", "SSRF_PROTECTION_ENABLED"} & studio.keys()
    (subnet,) = [config["subnet"] for config in raw()["networks"]["studio"]["ipam"]["config"]]
    assert ip_address(address) in ip_network(subnet)
    # Over a second network in common the name could lead to another address, which is refused.
    assert set(networks["label-studio"]) & set(networks["web"]) == {"studio"}


def test_stores_are_on_networks_without_a_way_out() -> None:
    internal = {name for name, network in raw()["networks"].items() if (network or {}).get("internal")}
    for name in ("postgres", "redis"):
        assert set(SERVICES[name]["networks"]) <= internal


def test_both_processes_of_the_backend_read_the_same_store() -> None:
    web, worker = SERVICES["web"], SERVICES["worker"]
    assert web["volumes"] == worker["volumes"]
    assert worker["environment"].items() >= web["environment"].items()
    assert {"MMAL_DATABASE_URL", "MMAL_QUEUE_URL", "BASIC_AUTH_USER", "BASIC_AUTH_PASS"} <= web["environment"].keys()


def test_label_studio_and_backend_get_a_database_each_that_the_other_cannot_enter() -> None:
    with PostgresServer() as server:
        administrator = {"POSTGRES_USER": "mmal", "PGHOST": "127.0.0.1", "PGPORT": str(server.port)}
        made = subprocess.run(
            [REPOSITORY / "deploy" / "postgres-init.sh"],
            env={**os.environ, **SERVICES["postgres"]["environment"], **administrator, "PGPASSWORD": server.password},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        local = f"@127.0.0.1:{server.port}/"
        address = SERVICES["web"]["environment"]["MMAL_DATABASE_URL"].replace("@postgres:5432/", local)
        studio = SERVICES["label-studio"]["environment"]
        other = f"postgresql://{studio['POSTGRE_USER']}:{studio['POSTGRE_PASSWORD']}{local}{studio['POSTGRE_NAME']}"
        with psycopg.connect(address) as connection:
            connection.execute("CREATE TABLE kept (number int)")
        with psycopg.connect(other) as connection:
            connection.execute("CREATE EXTENSION pg_trgm")
        for mine, theirs in ((address, studio["POSTGRE_NAME"]), (other, "backend")):
            with pytest.raises(psycopg.OperationalError, match="permission denied"):
                psycopg.connect(mine.rpartition("/")[0] + f"/{theirs}")


def test_the_web_process_may_listen_in_its_network_because_it_asks_for_a_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**image_environment(), **SERVICES["web"]["environment"]}.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.host == "0.0.0.0"
    check_exposure(settings)
    for name in ("BASIC_AUTH_USER", "BASIC_AUTH_PASS"):
        monkeypatch.delenv(name)
    with pytest.raises(CredentialsMissing):
        check_exposure(Settings(_env_file=None))


def test_every_mounted_file_is_there_and_can_be_run() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (REPOSITORY / source).stat().st_mode & 0o111, source


def test_the_image_starts_from_a_pinned_base_and_runs_as_an_unprivileged_user() -> None:
    (base,) = arguments("FROM")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert re.fullmatch(r"[1-9]\d+", arguments("USER")[-1])
    names = [name for name, _ in dockerfile()]
    assert "ADD" not in names
    assert "RUN" not in names[names.index("USER") :]
    assert image_environment()["PIP_NO_CACHE_DIR"] == "1"


def test_what_the_image_copies_is_there_and_not_hidden_from_the_build() -> None:
    rules = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]
    assert rules[0] == "*"
    for words in arguments("COPY"):
        for source in words.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
            assert any(fnmatch.fnmatch(source, rule[1:]) for rule in rules if rule.startswith("!")), source
    assert not any(rule.startswith("!.") for rule in rules)


def test_the_image_has_what_the_compose_file_asks_for() -> None:
    assert any("[team]" in words for words in arguments("RUN"))
    variables = image_environment()
    (data,) = arguments("VOLUME")
    assert variables["MMAL_DATA_DIR"] == data == SERVICES["web"]["volumes"][0].split(":")[1]
    assert variables["PORT"] == arguments("EXPOSE")[0]
    (alias,) = SERVICES["web"]["networks"]["studio"]["aliases"]
    assert takes_webhooks(alias)
    assert SERVICES["web"]["environment"]["MMAL_PUBLIC_URL"] == f"http://{alias}:{variables['PORT']}"
    # The file system is read-only but for the volume and /tmp.
    assert variables["HOME"] in SERVICES["web"]["tmpfs"]
