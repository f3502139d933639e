"""A Market-1501 of a few drawn images, and the real minis, each written once."""

import shutil
from pathlib import Path

import pytest

from onebit.commons.compat import ensure_torchvision
from onebit.commons.mini import draw
from onebit.commons.mini.reid import write_cuhk03
from onebit.commons.task import Job
from tests.reid.rows import OPTIONS

ensure_torchvision()  # so that a test may import torchreid before reid


def _mini(factory: pytest.TempPathFactory, name: str) -> Path:
    root = factory.mktemp("data")
    draw(name, root / name)
    return root


@pytest.fixture(scope="session")
def market(tmp_path_factory) -> Path:
    """A data root that holds mini-market1501. Tests must not write to it."""
    return _mini(tmp_path_factory, "mini-market1501")


@pytest.fixture(scope="session")
def duke(tmp_path_factory) -> Path:
    return _mini(tmp_path_factory, "mini-dukemtmcreid")


@pytest.fixture(scope="session")
def cuhk(tmp_path_factory) -> Path:
    return _mini(tmp_path_factory, "mini-cuhk03")


@pytest.fixture
def tiny(market, tmp_path) -> Path:
    """A data root with a market1501 of 4 training and 3 test identities, free to be damaged."""
    inner = Path("market1501/Market-1501-v15.09.15")
    source = market / "mini-market1501" / inner
    for part, ids in (("bounding_box_train", 4), ("query", 3), ("bounding_box_test", 3)):
        target = tmp_path / "data" / inner / part
        target.mkdir(parents=True)
        names = sorted(p.name for p in (source / part).iterdir() if p.name[:4] > "0000")
        people = sorted({n[:4] for n in names if not n.startswith("-1")})[:ids]
        for name in names:
            if name[:4] in people:
                shutil.copy(source / part / name, target / name)
    return tmp_path / "data"


@pytest.fixture(scope="session")
def small_cuhk(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_cuhk03(root / "mini-cuhk03", per_pair=3)
    return root


@pytest.fixture
def cuhk_copy(small_cuhk, tmp_path) -> Path:
    """A data root with a mini-cuhk03 of 15 identities, free to be damaged."""
    shutil.copytree(small_cuhk, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def job(tiny, tmp_path) -> Job:
    return Job("market1501", "resnet18_w8_bireal", "mini", 3, tiny, tmp_path / "work", cfg_options=OPTIONS)
