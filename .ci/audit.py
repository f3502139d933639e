"""Known holes in what is installed: pip-audit where its service is reached, and always our reviewed list.

    python .ci/audit.py

Exit code 1 where a package has a known hole. pip-audit asks PyPI; without a network it cannot, and this says so:
then audit.txt alone counts, which names the lowest version without known holes of each package that reads
files or talks to a network here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

LIST = Path(__file__).with_name("audit.txt")


def listed() -> list[str]:
    """What is installed below its version in the list, a line each."""
    found = []
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        name, lowest, reason = line.split(None, 2)
        try:
            here = version(name)
        except PackageNotFoundError:
            continue
        if Version(here) < Version(lowest):
            found.append(f"{name} {here}: at least {lowest} is needed ({reason})")
    return found


def asked() -> list[str] | None:
    """What pip-audit knows; None where it is missing or cannot ask."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--local", "--progress-spinner", "off", "--format", "json"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    # Of what its service does not answer for, pip-audit says "skipped", and that nothing was found.
    if sum("vulns" in package for package in packages) < len(packages) / 2:
        return None
    return [
        f"{package['name']} {package['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'none yet'}"
        for package in packages
        for hole in package.get("vulns", ())
    ]


def main() -> int:
    by_service, by_list = asked(), listed()
    if by_service is None:
        print("pip-audit is not installed or does not reach its service: only the reviewed list counts")
    for line in (*(by_service or ()), *by_list):
        print(line)
    wrong = bool(by_service or by_list)
    print("audit: " + ("known holes, see above" if wrong else "no known hole in what is installed"))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
