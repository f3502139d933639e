"""The sections of the page whose rows are runs: searches and latencies."""

from pathlib import Path

import pytest

from onebit.backbones.cells import load_cell
from onebit.leaderboards import cli
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.search_record import SearchRun
from onebit.leaderboards.showing import site
from tests.leaderboards.site_pages import SCRIPT, Elements, latency_run

SHIPPED = Path(cli.__file__).parent


def search_run(seed: int, cell: str = "random_0", text: str = "dcp-nas") -> SearchRun:
    about = next(Record.load_all(SHIPPED / "records", "cifar10"))
    return SearchRun.model_construct(
        method=text,
        dataset="cifar10-jpeg",
        data_checksum="content:0",
        preset="small",
        config_sha256="0" * 64,
        options={},
        cfg_options={},
        seed=seed,
        epochs=5,
        wall_seconds=1000.0 + seed,
        images_seen=16000,
        images_per_second=16.0,
        peak_memory_bytes=3 * 10**9,
        gpu_days=None,
        genotype=load_cell(cell).to_dict(),
        network="c8_l6",
        weight_bits=1,
        activation_bits=1,
        recipe="short",
        train_epochs=1,
        train_seconds=100.0,
        metrics={"top1": 0.4 + 0.01 * seed},
        main_metric="top1",
        ops_strict=5.0,
        memory_bits_strict=7,
        code=about.code,
        environment=about.environment,
        created="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture(scope="module")
def search_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    for seed in range(3):
        search_run(seed, f"random_{seed // 2}").save(folder / "records")
    search_run(0, text="cp-nas").save(folder / "records")
    return site.build(folder / "records", folder / "page").read_text(encoding="utf-8")


def test_searches_unfold_to_their_seeds_and_lead_to_their_cells(search_page):
    section = search_page.split('id="search-development"')[1].split("</section>")[0]
    assert "41.00 ± 1.00" in section
    assert "Seed 2: 1002 s, top1 42.00 %" in section
    assert "search/cifar10-jpeg--dcp-nas--small--seed2.json" in section
    lines = section.split("<tbody")[1:]
    linked = [line.count('href="#cell-random_') for line in lines]
    assert linked[:2] == [2, 1]
    assert not any(linked[2:])
    assert search_page.count('<figure class="cell"') == 2
    found = Elements(search_page)
    assert not found.wrong
    assert not found.open


def test_a_printed_cost_says_which_table_it_is_of(search_page):
    section = search_page.split('id="search"')[1].split("</section>")[0]
    assert "Printed in table 10 of: " in section
    assert "Printed in table 1 of: " in section


def test_without_a_search_the_papers_costs_are_shown_alone(tmp_path):
    latency_run().save(tmp_path / "records")
    text = site.build(tmp_path / "records", tmp_path / "page").read_text(encoding="utf-8")
    section = text.split('id="search"')[1].split("</section>")[0]
    assert 'data-source="measured"' not in section
    assert "Printed in table 10 of: " in section


def test_markup_in_a_search_is_shown_as_text(tmp_path, monkeypatch):
    monkeypatch.setattr(SearchRun, "load_all", lambda folder, board: [search_run(0, text=SCRIPT)])
    text = site.build(tmp_path / "records", tmp_path / "page", False).read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "&lt;script&gt;window.hacked" in text


@pytest.fixture(scope="module")
def latency_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latency")
    latency_run().save(folder / "records")
    return site.build(folder / "records", folder / "page", show_reported=False)


def test_latency_has_a_table_whose_lines_unfold_to_their_part_of_the_run(latency_page):
    text = latency_page.read_text(encoding="utf-8")
    assert text.count('<section class="board"') == 1
    assert ">Latency <small>" in text
    assert "latency/some-cpu-" in text
    assert text.count("<dt>milliseconds</dt>") == 3
    assert "3 measured and 0 reported lines" in text


def test_the_paper_s_latencies_are_shown_as_reported(search_page):
    text = search_page.split('id="latency"')[1]
    assert ">Latency <small>" in text
    assert "Printed in table 15 of: " in text


def test_markup_in_a_latency_run_is_shown_as_text(tmp_path):
    latency_run(SCRIPT).save(tmp_path / "records")
    text = site.build(tmp_path / "records", tmp_path / "page", False).read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "&lt;script&gt;window.hacked" in text
    assert not any(tag == "img" for tag, _ in Elements(text).tags)
