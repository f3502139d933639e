"""The constraints of ``make test-oldest`` are the lower bounds of ``pyproject.toml``."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Tools that judge the source and the pages, whatever the suite runs with.
TOOLS = {"mkdocs-material", "mkdocstrings", "pip-audit", "ruff", "mypy"}


def constraints() -> dict[str, Version]:
    lines = [line for line in (ROOT / "tests" / "oldest.txt").read_text().splitlines() if not line.startswith("#")]
    return {name: Version(version) for name, version in (line.split("==") for line in lines)}


def requirements() -> dict[str, Requirement]:
    """Of Python 3.11, for which the constraints are."""
    texts = [*PROJECT["dependencies"], *(each for extra in ("cpu", "dev") for each in extras(extra))]
    found = map(Requirement, texts)
    kept = [r for r in found if r.marker is None or r.marker.evaluate({"python_version": "3.11"})]
    return {r.name: r for r in kept if r.name not in TOOLS}


def extras(name: str) -> list[str]:
    return PROJECT["optional-dependencies"][name]


def test_every_requirement_has_its_oldest_version():
    oldest, required = constraints(), requirements()
    assert oldest.keys() == required.keys()
    for name, requirement in required.items():
        assert requirement.specifier.contains(oldest[name]), requirement
        (lowest,) = [each.version for each in requirement.specifier if each.operator in (">=", "==")]
        # The first release of a series need not have a wheel.
        assert oldest[name].release[:2] == (*Version(lowest).release, 0)[:2], requirement


def test_the_readme_and_the_table_of_versions_name_the_lowest_torch():
    lowest = re.search(r"torch>=([\d.]+)", " ".join(PROJECT["dependencies"]))[1]
    for page in ("README.md", "docs/testing.md"):
        assert f"torch {lowest}" in (ROOT / page).read_text(), page
    assert str(constraints()["torch"]).startswith(lowest)
