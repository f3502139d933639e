"""The page: what stands in it, that it runs no foreign script, and how it behaves in a browser."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from onebit.backbones.cells import load_cell
from onebit.commons.errors import InputError
from onebit.leaderboards import cli
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.showing import site
from onebit.leaderboards.showing.table import BoardTable
from tests.leaderboards import browser
from tests.leaderboards.site_pages import SCRIPT, Elements, latency_run

SHIPPED = Path(cli.__file__).parent


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """Leaderboards with three lines of three seeds on CIFAR-10, one of a searched cell, and a
    failed row."""
    folder = tmp_path_factory.mktemp("leaderboards")
    base = next(Record.load_all(SHIPPED / "records", "cifar10")).model_copy(
        update=dict(dataset="cifar10", recipe="mini", cfg_options={}, binarizer="none", genotype_hash=None)
    )
    cell = load_cell("dcp_nas_imagenet").hash
    for seed in range(3):
        values = {"alpha": 0.80 + 0.003 * seed, "beta10": 0.70 + 0.002 * seed, "beta9": 0.6}
        for name, value in values.items():
            base.model_copy(
                update=dict(
                    backbone=name,
                    seed=seed,
                    genotype_hash=cell if name == "alpha" else None,
                    weight_bits=1,
                    activation_bits=1,
                    metrics={"top1": value, "top5": 0.9},
                )
            ).save(folder / "records")
    failed = dict(status="failed", error="WorkError: the disk is full", metrics={})
    base.model_copy(update=dict(backbone="gamma", **failed)).save(folder / "records")
    return folder


@pytest.fixture(scope="module")
def page(records, tmp_path_factory) -> Path:
    return site.build(records / "records", tmp_path_factory.mktemp("page"))


def test_the_page_is_one_file_that_asks_for_nothing(page):
    assert [p.name for p in page.parent.iterdir()] == ["index.html"]
    text = page.read_text(encoding="utf-8")
    found = Elements(text)
    assert not found.wrong
    assert not found.open
    for tag, attributes in found.tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes), tag
    assert "@import" not in text
    assert "url(http" not in text


def test_ids_are_unique_and_every_reference_is_there(page):
    tags = Elements(page.read_text(encoding="utf-8")).tags
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        for name in ("href", "xlink:href"):
            if attributes.get(name, "").startswith("#"):
                assert attributes[name][1:] in ids, attributes
        for name in ("aria-controls", "aria-labelledby"):
            if name in attributes:
                assert attributes[name] in ids
        for reference in re.findall(r"url\(#([^)]+)\)", " ".join(filter(None, attributes.values()))):
            assert reference in ids


def test_every_board_every_line_and_every_field_of_a_record_is_there(page, records):
    text = page.read_text(encoding="utf-8")
    for board in ALL.values():
        if board.printed:
            assert f">{board.title} <small>" in text
    for record in Record.load_all(records / "records", "cifar10"):
        assert record.file_name() in text
    for field in Record.model_fields:
        assert f"<dt>{field}</dt>" in text
    assert "WorkError: the disk is full" in text
    assert "dcp-nas table 11" in text


def test_pictures_show_what_one_recipe_trained(records, tmp_path):
    import shutil

    shutil.copytree(records / "records", tmp_path / "records")
    for record in list(Record.load_all(records / "records", "cifar10")):
        record.model_copy(update=dict(recipe="short")).save(tmp_path / "records")
    text = site.build(tmp_path / "records", tmp_path / "page", show_reported=False).read_text(encoding="utf-8")
    for recipe in ("mini", "short"):
        assert f"<h4>cifar10, recipe {recipe}</h4>" in text
        assert f"cifar10, recipe {recipe}: top-1" in text
    ids = [a["id"] for _, a in Elements(text).tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_kinds_of_data_stand_apart(records, tmp_path):
    """Each under its own heading, real data first, and the papers' lines beside real data alone."""
    for dataset in ("cifar10-jpeg", "mini-cifar10"):
        for record in Record.load_all(records / "records", "cifar10"):
            record.model_copy(update=dict(dataset=dataset)).save(tmp_path / "records")
    text = site.build(tmp_path / "records", tmp_path / "page").read_text(encoding="utf-8")
    headings = re.findall(r'<h2 class="kind">(.*?)</h2>', text)
    assert [heading.split()[0] for heading in headings] == ["Real", "Development", "Drawn", "Machines"]
    sections = dict(re.findall(r'<section class="board" id="(.*?)"(.*?)</section>', text, re.S))
    assert "alpha" not in sections["cifar10"]
    assert 'data-source="reported"' in sections["cifar10"]
    for name, dataset in (("cifar10-development", "cifar10-jpeg"), ("cifar10-drawn", "mini-cifar10")):
        assert 'data-source="reported"' not in sections[name]
        assert f"cifar10/{dataset}--alpha--" in sections[name]
        assert sections[name].count("<tbody") == 4


def test_the_cell_of_a_searched_network_is_drawn(page):
    text = page.read_text(encoding="utf-8")
    assert text.count('<img src="data:image/svg+xml;base64,') == 1
    assert text.count('href="#cell-dcp_nas_imagenet"') == 1


def hostile(record: Record) -> Record:
    """The record with markup in every text of it, however deep."""

    def spoil(value):
        if isinstance(value, str):
            return SCRIPT
        if isinstance(value, dict):
            return {SCRIPT + key: spoil(inner) for key, inner in value.items()}
        return [spoil(inner) for inner in value] if isinstance(value, list) else value

    kept = {"board", "status", "origin", "schema_version", "dataset", "main_metric", "metrics", "cost"}
    content = record.model_dump()
    changed = {k: v if k in kept or v is None else spoil(v) for k, v in content.items()}
    changed["details"] = {SCRIPT: {SCRIPT: [SCRIPT, 1, None]}}
    changed["cost"] = {c: {**v, SCRIPT: SCRIPT} for c, v in content["cost"].items()}
    changed["dataset"] = SCRIPT
    changed["main_metric"] = SCRIPT
    changed["metrics"] = {**content["metrics"], SCRIPT: 0.5}
    plain = {"code": type(record.code), "environment": type(record.environment)}
    for name, kind in plain.items():
        fields = {k: spoil(v) for k, v in content[name].items()}
        changed[name] = kind.model_construct(**fields)
    return Record.model_construct(**changed)


@pytest.fixture(scope="module")
def hostile_page(records, tmp_path_factory) -> Path:
    """Such records cannot be loaded; the page must not rely on that."""
    made = [hostile(r) for r in Record.load_all(records / "records", "cifar10")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BoardTable, "load", lambda table, folder: made if table.name == "cifar10" else [])
        return site.build(records / "records", tmp_path_factory.mktemp("hostile"), show_reported=False)


def test_markup_in_a_record_is_shown_as_text(hostile_page):
    text = hostile_page.read_text(encoding="utf-8")
    tags = Elements(text).tags
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not any(tag == "img" and not a["src"].startswith("data:") for tag, a in tags)
    assert text.count("<script") == 1
    assert "&lt;script&gt;window.hacked" in text
    assert "{{ 7 * 7 }}" in text, "a record is no template"
    assert "49</dd>" not in text


@pytest.fixture(scope="module")
def latency_page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("latency")
    latency_run().save(folder / "records")
    return site.build(folder / "records", folder / "page", show_reported=False)


def test_nothing_to_show(tmp_path):
    with pytest.raises(InputError, match="no records"):
        site.build(tmp_path / "records", tmp_path / "page", show_reported=False)
    assert not (tmp_path / "page").exists()


def test_command_writes_the_same_page_twice(capsys, records, tmp_path):
    written = []
    for name in ("a", "b", "b"):
        out = tmp_path / name
        arguments = ["site", str(out), "--no-reported", "--records", str(records / "records")]
        assert cli.main(arguments) == 0
        assert capsys.readouterr().out.strip() == str(out / "index.html")
        written.append((out / "index.html").read_bytes())
    assert written[0] == written[1] == written[2]
    assert b"table 11 of" not in written[0]
    assert b"0 reported lines" in written[0]


def test_the_page_s_files_are_installed():
    """package-data names them; an installed command has no checkout to find them in."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    for name in ("page.html.j2", "page.css", "page.js"):
        assert (Path(site.__file__).parent / name).exists()
        assert any(Path(name).match(pattern) for pattern in patterns)


# ---- in a browser ------------------------------------------------------------------------------


@pytest.fixture
def chromium():
    made = []

    def start(page, **options):
        made.append(browser.start(**options))
        browser.open_page(made[-1], page)
        return made[-1]

    yield start
    for driver in made:
        errors = [e for e in driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
        asked_for = browser.requests(driver)
        driver.quit()
        assert errors == []
        assert asked_for == []


def names(driver, board="cifar10"):
    """Backbones of the board's visible lines, from top to bottom."""
    return driver.execute_script(
        "return [...document.querySelectorAll('#' + arguments[0] + ' tbody.line')]"
        ".filter(line => line.checkVisibility()).map(line => line.querySelector('.name').textContent)",
        board,
    )


def measured(driver):
    return [n for n in names(driver) if n in ("alpha", "beta9", "beta10", "gamma")]


def find(driver, selector):
    return driver.find_element("css selector", selector)


def test_sorting(page, chromium):
    driver = chromium(page)
    assert measured(driver) == ["alpha", "beta10", "beta9", "gamma"]
    header = "#cifar10 thead th:nth-child({})"
    titles = [e.text for e in driver.find_elements("css selector", "#cifar10 thead button")]
    error = 1 + next(i for i, t in enumerate(titles) if t.startswith("Err."))
    button = find(driver, header.format(error) + " button")
    button.click()
    assert find(driver, header.format(error)).get_attribute("aria-sort") == "ascending"
    values = driver.execute_script(
        "return [...document.querySelectorAll('#cifar10 tbody.line')].map("
        "line => line.rows[0].cells[arguments[0]].dataset.value)",
        error - 1,
    )
    numbers = [float(v) for v in values if v is not None]
    assert numbers == sorted(numbers)
    assert values[-1] is None, "a line without a value comes last"
    button.click()
    assert find(driver, header.format(error)).get_attribute("aria-sort") == "descending"
    assert measured(driver) == ["beta9", "beta10", "alpha", "gamma"], "and stays last"
    find(driver, header.format(1) + " button").click()
    assert measured(driver) == ["alpha", "beta9", "beta10", "gamma"], "numbers in names count"
    assert find(driver, header.format(error)).get_attribute("aria-sort") == "none"


def test_sorting_latencies_by_value(latency_page, chromium):
    """As text, 9.25 would come after 9.3."""
    driver = chromium(latency_page)
    titles = [e.text for e in driver.find_elements("css selector", "#latency thead button")]
    button = find(driver, f"#latency thead th:nth-child({1 + titles.index('ms')}) button")
    button.click()
    assert names(driver, "latency") == ["resnet18Some CPU", "fast", "slow"]
    button.click()
    assert names(driver, "latency") == ["slow", "fast", "resnet18Some CPU"]


def test_filtering(page, chromium):
    driver = chromium(page)
    everything = names(driver)
    find(driver, "input[type=search]").send_keys("BETA mini")
    assert names(driver) == ["beta10", "beta9"]
    assert names(driver, "imagenet") == []
    assert find(driver, "#imagenet p.none").is_displayed()
    assert find(driver, "form.filters output").text.startswith("2 of ")
    find(driver, "form.filters button[type=reset]").click()
    driver.execute_async_script("setTimeout(arguments[0], 50)")
    assert names(driver) == everything
    find(driver, "select[name=source] option[value=measured]").click()
    assert names(driver) == ["alpha", "beta10", "beta9", "gamma"]
    assert names(driver, "voc") == []
    find(driver, "select[name=source] option[value=reported]").click()
    assert "alpha" not in names(driver)
    find(driver, "select[name=kind] option[value=real]").click()
    assert set(names(driver)) == {"WRN-22", "DARTS", "PC-DARTS"}


def test_unfolding_by_keyboard(page, chromium):
    from selenium.webdriver.common.keys import Keys

    driver = chromium(page)
    button = find(driver, "#cifar10 tbody.line button.unfold")
    record = find(driver, f"#{button.get_attribute('aria-controls')}")
    assert not record.is_displayed()
    driver.execute_script("arguments[0].focus()", button)
    outline = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert record.is_displayed()
    assert button.get_attribute("aria-expanded") == "true"
    assert "data_checksum" in record.text
    summaries = record.find_elements("css selector", "summary")
    assert [s.text.split(":")[0] for s in summaries] == ["Seed 0", "Seed 1", "Seed 2"]
    second = record.find_elements("css selector", "details")[1]
    assert second.get_attribute("open") is None
    driver.execute_script("arguments[0].focus()", summaries[1])
    driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert second.get_attribute("open") is not None
    driver.execute_script("arguments[0].focus()", button)
    driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert not record.is_displayed()
    driver.switch_to.active_element.send_keys(Keys.TAB)
    outline = driver.execute_script(
        "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]"
    )
    assert outline == ["solid", "3px"], "what has the focus is seen"


def test_everything_that_acts_is_reached_by_tab(page, chromium):
    driver = chromium(page)
    unreachable = driver.execute_script(
        "return [...document.querySelectorAll('button, a[href], input, select, summary')]"
        ".filter(e => e.checkVisibility() && e.tabIndex < 0).map(e => e.outerHTML.slice(0, 80))"
    )
    assert unreachable == []
    unnamed = driver.execute_script(
        "return [...document.querySelectorAll('button, input, select')]"
        ".filter(e => !(e.textContent.trim() || e.closest('label'))).map(e => e.outerHTML)"
    )
    assert unnamed == []


def test_a_point_of_a_picture_leads_to_its_line(page, chromium):
    driver = chromium(page)
    find(driver, "select[name=source] option[value=reported]").click()
    point = find(driver, "#cifar10 figure svg a")
    target = point.get_attribute("xlink:href") or driver.execute_script("return arguments[0].href.baseVal", point)
    driver.execute_script("location.hash = arguments[0]", target)
    driver.execute_async_script("setTimeout(arguments[0], 100)")
    assert find(driver, target).is_displayed(), "the filter gives way"
    assert driver.execute_script("return document.activeElement.closest('tbody').id") == target[1:]


def test_dark_mode(page, chromium):
    def brightness(driver, selector, what):
        colour = driver.execute_script(
            "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, what
        )
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    light, dark = chromium(page), chromium(page, dark=True)
    for driver, is_dark in ((light, False), (dark, True)):
        assert (brightness(driver, "body", "backgroundColor") < 60) == is_dark
        assert (brightness(driver, "body", "color") > 180) == is_dark
        # Text of a picture takes the page's colour.
        assert (brightness(driver, "figure svg text", "fill") > 180) == is_dark


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling(page, chromium, width):
    driver = chromium(page, width=width, height=844)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    button = find(driver, "#cifar10 tbody.line button.unfold")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    choice = find(driver, "#cifar10 .sortby select")
    assert choice.is_displayed()
    find(driver, "#cifar10 .sortby option[value='0 descending']").click()
    assert measured(driver) == ["gamma", "beta10", "beta9", "alpha"]
    label = driver.execute_script(
        "return getComputedStyle(document.querySelector('#cifar10 tbody.line td'), '::before').content"
    )
    assert label == '"Err. %"', "columns are named in the card"


def test_without_script_every_record_is_readable(page, tmp_path, chromium):
    still = tmp_path / "still" / "index.html"
    still.parent.mkdir()
    text = page.read_text(encoding="utf-8")
    still.write_text(re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL), encoding="utf-8")
    driver = chromium(still)
    assert "data_checksum" in find(driver, "#cifar10").text
    assert not find(driver, "form.filters").is_displayed()


def test_markup_in_a_record_does_not_run(hostile_page, chromium):
    driver = chromium(hostile_page)
    assert driver.execute_script("return window.hacked") is None
    assert "<script>window.hacked" in find(driver, "#cifar10").text


def test_a_foreign_script_would_not_run(page, tmp_path):
    """The second line of defence: the policy refuses any script but ours."""
    spoiled = tmp_path / "spoiled" / "index.html"
    spoiled.parent.mkdir()
    text = page.read_text(encoding="utf-8").replace("</main>", f"{SCRIPT}</main>")
    spoiled.write_text(text, encoding="utf-8")
    driver = browser.start()
    try:
        browser.open_page(driver, spoiled)
        assert driver.execute_script("return window.hacked") is None
        assert names(driver), "ours ran"
    finally:
        driver.quit()


def test_importing_the_command_stays_light():
    code = "import sys, onebit.leaderboards.cli; assert not {'jinja2', 'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
