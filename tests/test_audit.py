"""The audit never calls audited what nobody was asked about, and fails on what a service knows to be vulnerable."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from threading import Thread
from typing import Any

import pytest

from scripts.audit import read_report

CLEAN = {"name": "flask", "version": "3.1", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "not found"}
OURS = {"name": "mmal-backend", "skip_reason": "not found"}
BROKEN = {"name": "pillow", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}


@pytest.mark.parametrize("report", [None, [], {}, {"dependencies": []}, {"dependencies": [SKIPPED, OURS]}])
def test_where_nobody_could_be_asked_it_says_so_and_does_not_break_the_lint(report: Any) -> None:
    audit = read_report(report)
    assert audit.lines()[0].startswith("NOT AUDITED: no advisory service")
    assert "audited," not in " ".join(audit.lines())
    assert (audit.status(required=False), audit.status(required=True)) == (0, 2)


def test_known_vulnerabilities_fail_with_name_version_and_remedy() -> None:
    audit = read_report({"dependencies": [CLEAN, BROKEN, OURS]})
    assert audit.lines() == [
        "VULNERABLE: pillow 1: PYSEC-1 (fixed in 2)",
        "2 packages audited, 1 of them vulnerable.",
    ]
    assert audit.status(required=False) == 1


def test_packages_left_out_are_named() -> None:
    audit = read_report({"dependencies": [CLEAN, SKIPPED]})
    assert audit.lines()[-1] == "NOT AUDITED: 1 packages: torch"
    assert (audit.status(required=False), audit.status(required=True)) == (0, 2)
    assert read_report({"dependencies": [CLEAN, OURS]}).status(required=True) == 0


class AdvisoryService(BaseHTTPRequestHandler):
    """Speaks as osv.dev does (POST /v1/query) and knows one thing: the installed flask is vulnerable."""

    def do_POST(self) -> None:
        package = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]
        known = [{"id": "PYSEC-0", "affected": [self.fixed_in_99(package)]}] if package["name"] == "flask" else []
        answer = json.dumps({"vulns": known} if known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    @staticmethod
    def fixed_in_99(package: Any) -> Any:
        events = [{"introduced": "0"}, {"fixed": "99"}]
        return {"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), AdvisoryService)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()


def audited_by(url: str, monkeypatch: pytest.MonkeyPatch) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", url)
    return subprocess.run([sys.executable, "-m", "scripts.audit"], capture_output=True, text=True, check=False)


def test_the_packages_installed_here_are_asked_about_and_a_vulnerable_one_breaks_the_lint(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = audited_by(service, monkeypatch)
    vulnerable, counted = done.stdout.splitlines()
    assert done.returncode == 1, done.stderr
    assert vulnerable == f"VULNERABLE: flask {version('flask')}: PYSEC-0 (fixed in 99)"
    assert int(counted.split()[0]) > 50


def test_a_service_that_is_not_there_is_named_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    done = audited_by("http://127.0.0.1:9/v1/query", monkeypatch)
    assert done.returncode == 0
    assert done.stdout.startswith("NOT AUDITED: no advisory service") and "127.0.0.1" in done.stdout
