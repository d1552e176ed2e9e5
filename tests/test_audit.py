"""The audit never calls audited what nobody was asked about."""

from __future__ import annotations

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
