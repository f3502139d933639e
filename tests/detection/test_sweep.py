"""MMDetection's own configs with a 1-bit backbone, against the table in docs/detection.md."""

import re
from dataclasses import replace
from importlib import metadata

import pytest

from tests.detection import sweep


def committed() -> dict[str, tuple[str, str]]:
    """The table in docs/detection.md: outcome and remark by config."""
    text = sweep.PAGE.read_text(encoding="utf-8").split(sweep.START)[1].split(sweep.END)[0]
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.*?) ?\|$", text, re.MULTILINE)
    return {name: (outcome, remark) for name, outcome, remark in rows}


def test_the_table_has_every_config():
    assert list(committed()) == [str(case) for case in sweep.CASES]


def test_what_fails_is_told_apart(monkeypatch):
    plain = sweep.CASES[0]

    def found(case, error):
        def fails(case):
            raise error

        monkeypatch.setattr(sweep, "_train_and_predict", fails)
        return sweep.outcome(case)

    missing = NotImplementedError("the operator x needs a compiled mmcv: neither has it")
    assert found(plain, missing) == ("needs a compiled mmcv", "the operator x")
    assert found(replace(plain, package="y"), ImportError("please install y")) == ("needs y", "MMDetection asks for it")
    known = replace(plain, error="sizes", because="its head")
    assert found(known, ValueError("sizes differ")) == ("cannot", "its head")
    with pytest.raises(ValueError, match="sizes"):
        found(plain, ValueError("sizes"))
    with pytest.raises(RuntimeError, match="another"):
        found(known, RuntimeError("another error"))


@pytest.mark.slow
@pytest.mark.parametrize("case", sweep.CASES, ids=str)
def test_the_table_is_what_is_found(case):
    if case.package and any(d.name == case.package for d in metadata.distributions()):
        pytest.skip(f"{case.package} is installed here")
    assert sweep.outcome(case) == committed()[str(case)]
