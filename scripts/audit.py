"""Ask an advisory service about every package installed here, and say plainly what was not looked up.

    python -m scripts.audit             # exit 1: known vulnerabilities; exit 0: none known, or nobody could be asked
    python -m scripts.audit --required  # exit 2 where not every package could be asked about

pip-audit alone reports "no known vulnerabilities" where the service knew none of the packages, or was not there. It
asks the package index, or the service that PIP_AUDIT_VULNERABILITY_SERVICE and PIP_AUDIT_OSV_URL name.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 300
# Installed from this folder, so no service knows it.
OURS = "mmal-backend"
MIRROR = "the package index knew none of them (a mirror keeps no advisories)."


@dataclass(frozen=True)
class Audit:
    """What came of it.

    vulnerable : one line a package with what is known of it
    asked : packages the service knew
    unasked : packages nobody could be asked about
    because : why nobody was asked about any, as pip-audit put it
    """

    vulnerable: Sequence[str]
    asked: Sequence[str]
    unasked: Sequence[str]
    because: str = ""

    def lines(self) -> list[str]:
        """For a person."""
        if not self.asked:
            return [f"NOT AUDITED: no advisory service could be asked about any package: {self.because or MIRROR}"]
        said = [f"VULNERABLE: {line}" for line in self.vulnerable]
        said.append(f"{len(self.asked)} packages audited, {len(self.vulnerable)} of them vulnerable.")
        if self.unasked:
            said.append(f"NOT AUDITED: {len(self.unasked)} packages: {', '.join(self.unasked)}")
        return said

    def status(self, *, required: bool) -> int:
        """The exit status."""
        if self.vulnerable:
            return 1
        return 2 if required and (self.unasked or not self.asked) else 0


def read_report(report: Any) -> Audit:
    """The report of ``pip-audit --format json``; anything else counts as nobody asked."""
    packages = report.get("dependencies", []) if isinstance(report, dict) else []
    packages = [package for package in packages if package.get("name") != OURS]
    vulnerable = [_words(package) for package in packages if package.get("vulns")]
    return Audit(
        vulnerable,
        [package["name"] for package in packages if "skip_reason" not in package],
        [package["name"] for package in packages if "skip_reason" in package],
    )


def _words(package: Any) -> str:
    known = ", ".join(found["id"] for found in package["vulns"])
    fixed = ", ".join(version for found in package["vulns"] for version in found["fix_versions"])
    return f"{package['name']} {package['version']}: {known} (fixed in {fixed or 'none'})"


def ask() -> Audit:
    """Run pip-audit over this environment; where it cannot say anything, the last it said is why."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Audit((), (), (), f"pip-audit had no answer after {TIMEOUT_SECONDS} s.")
    try:
        return read_report(json.loads(done.stdout))
    except ValueError:
        return Audit((), (), (), (done.stderr.strip().splitlines() or ["pip-audit said nothing."])[-1])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--required", action="store_true", help="Fail where a package could not be asked about.")
    given = parser.parse_args()
    audit = ask()
    print("\n".join(audit.lines()))
    return audit.status(required=given.required)


if __name__ == "__main__":
    sys.exit(main())
