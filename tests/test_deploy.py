"""The examples of deploy/ name only what exists, and every alert has its section for the person on call."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from flask.testing import FlaskClient

from backend.server.app import create_app
from backend.settings import Settings
from tests.server.test_metrics import exposed_names

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus-alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"].replace("$project", ".*") for panel in PANELS for target in panel["targets"]]
# Made by Prometheus itself for each address it scrapes.
FROM_PROMETHEUS = {"up"}
OF_HISTOGRAMS = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    web: FlaskClient = create_app(Settings(data_dir=tmp_path_factory.mktemp("deploy"))).test_client()
    return exposed_names(web)


def series_in(node: Any) -> Iterator[str]:
    """Names of all series of a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield str(node.name)
        return
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        if (child := getattr(node, name, None)) is not None:
            yield from series_in(child)
    for child in getattr(node, "args", None) or ():
        yield from series_in(child)


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in RULES), *QUERIES])
def test_every_query_is_valid_and_asks_for_metrics_there_are(query: str, metrics: set[str]) -> None:
    names = set(series_in(promql_parser.parse(query)))
    assert names
    families = {OF_HISTOGRAMS.sub("", name) if name not in metrics else name for name in names}
    assert families <= metrics | FROM_PROMETHEUS


def test_every_metric_of_a_project_the_worker_and_the_requests_is_on_the_dashboard(metrics: set[str]) -> None:
    shown = {OF_HISTOGRAMS.sub("", name) for query in QUERIES for name in series_in(promql_parser.parse(query))}
    # Seen in others: the pool in the queue.
    assert metrics - shown == {"mmal_pool"}


def test_panels_have_numbers_and_titles_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    covered = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & covered, panel["title"]
        assert at["x"] + at["w"] <= 24
        covered |= cells


def test_every_alert_has_a_section_that_says_where_to_look_and_what_to_do() -> None:
    sections = dict(
        part.split("\n", 1)
        for part in (REPOSITORY / "docs" / "operations.md").read_text().split("\n## Alerts")[1].split("\n## ")[0]
        .split("\n### ")[1:]
    )  # fmt: skip
    assert list(sections) == [rule["alert"] for rule in RULES]
    for rule in RULES:
        section = sections[rule["alert"]]
        assert "\n- Look: " in section
        assert "\n- Do: " in section
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_systemd_unit_runs_our_command_with_our_settings_and_is_locked_down(tmp_path: Path) -> None:
    """Parsed here; where systemd is installed, it verifies the unit as well."""
    unit = (DEPLOY / "mmal.service").read_text()
    lines = [line for line in unit.splitlines() if line and not line.startswith(("#", "["))]
    assert all("=" in line for line in lines)
    values = [line.split("=", 1) for line in lines]
    assert ["ExecStart", "/opt/mmal/.venv/bin/mmal serve"] in values
    variables = {pair.split("=")[0] for key, value in values if key == "Environment" for pair in value.split()}
    ours = {variable for variable, *_ in Settings().rows()}
    assert {name for name in variables if name.startswith("MMAL_")} <= ours
    for locked in ("ProtectSystem=strict", "NoNewPrivileges=true", "CapabilityBoundingSet=", "UMask=0077"):
        assert locked in lines
    if systemd := shutil.which("systemd-analyze"):
        copy = tmp_path / "mmal.service"
        # It looks whether the program is there.
        copy.write_text(unit.replace("/opt/mmal/.venv/bin/mmal", "/bin/true"))
        found = subprocess.run([systemd, "verify", str(copy)], capture_output=True, text=True, check=False)
        assert not [line for line in found.stderr.splitlines() if "mmal" in line], found.stderr


def test_the_command_for_root_runs_with_the_settings_of_the_service_as_its_user(tmp_path: Path) -> None:
    """The script with other folders; who it becomes is only written down here."""
    script = (DEPLOY / "mmal.sh").read_text()
    (tmp_path / "mmal.env").write_text("LABEL_STUDIO_URL='http://studio:8080/a b'\nMMAL_DATA_DIR=/elsewhere\n")
    command = tmp_path / ".venv" / "bin" / "mmal"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\necho "$LABEL_STUDIO_URL|$MMAL_DATA_DIR|$PWD|$1|$2"\n')
    become = tmp_path / "runuser"
    become.write_text('#!/bin/sh\necho "$1 $2 $3"\nshift 3\nexec "$@"\n')
    copy = tmp_path / "mmal.sh"
    copy.write_text(script.replace("/etc/mmal", str(tmp_path)).replace("/opt/mmal", str(tmp_path)))
    for path in (command, become, copy):
        path.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    ran = subprocess.run([copy, "restore", "a b"], env=environment, capture_output=True, text=True, check=True)
    first, second = ran.stdout.splitlines()
    assert first == "-u mmal --"
    assert second == f"http://studio:8080/a b|/elsewhere|{tmp_path}|restore|a b"
    unit = (DEPLOY / "mmal.service").read_text()
    caches = ("XDG_CACHE_HOME=/var/cache/mmal", "HF_HOME=/var/cache/mmal/huggingface")
    for shared in (
        "User=mmal",
        "WorkingDirectory=/opt/mmal",
        "/etc/mmal/mmal.env",
        "MMAL_DATA_DIR=/var/lib/mmal",
        *caches,
    ):
        assert shared in unit
        assert shared.split("=")[-1] in script
