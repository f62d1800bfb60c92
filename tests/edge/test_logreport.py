"""The report: what it gathers, and what is seen of it in headless Chromium and in the picture."""

from __future__ import annotations

import itertools
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import DEFAULT_BUNDLE, load_bundle
from edge.log import cli as log_cli
from edge.log.page import html_of
from edge.log.read import LogReader
from edge.log.report import PALETTE, colours_of, gather, title_of
from edge.log.stats import Total
from edge.log.store import Where
from edge.log.when import day_span, local
from firmware_bridge.errors import InputError
from tests.edge.made_log import Act, in_zone, utc, write_session

START = utc(2026, 7, 1, 6)
"""8:00 in the tests' zone."""

DAY = [
    Act("walking", 120),
    Act("sitting", 300, 0.6),
    Act("unknown", 30, 0.3, alike="lying"),
    Act("climbing stairs", 60, 0.95),
    Act(None, 20),
    Act("walking", 40),
]


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with in_zone(monkeypatch, "CET-1CEST,M3.5.0,M10.5.0/3"):
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days; on the second only a walk."""
    bundle = load_bundle(DEFAULT_BUNDLE)
    path = tmp_path_factory.mktemp("report") / "log.db"
    write_session(path, bundle, DAY, START, device='<Sense & "Co">')
    write_session(path, bundle, [Act("walking", 50)], START + 86_400)
    return path


def first_day() -> Where:
    since, until = day_span(local(START).date())
    return Where(since, until)


def test_what_is_gathered(path: Path) -> None:
    with LogReader(path) as log:
        report = gather(log, first_day())
        assert title_of(report) == "Wednesday 1 July 2026"
        assert [(t.label, t.seconds) for t in report.totals] == [
            ("sitting", 300),
            ("walking", 160),
            ("climbing stairs", 60),
            ("unknown", 30),
        ]
        # 30 windows of 0.3, 300 of 0.6, 160 of 0.8 and 60 of 0.95.
        assert sorted(report.windows_by_confidence) == [*[0] * 6, 30, 60, 160, 300]
        assert report.windows_by_confidence[9] == 60
        (unknown,) = report.unknown
        assert (unknown.bout.start_utc_s, unknown.nearest) == (START + 420, "lying")
        (health,) = report.health
        assert health.gaps == ((START + 514, START + 530),)
        (day,) = report.days
        assert day.start_utc_s == START and day.end_utc_s - START in (600, 1200, 3600)
        at = {round(t - START): mean for t, mean in day.confidence}
        assert at[min(at, key=lambda t: abs(t - 300))] == pytest.approx(0.6, abs=0.01)
        assert any(math.isnan(mean) for mean in at.values()), "nothing was said for a while"


def test_similar_moments_are_elsewhere_in_the_log(path: Path) -> None:
    with LogReader(path) as log:
        report = gather(log, first_day())
    by_label = {one.bout.label: one for one in report.similar}
    assert list(by_label) == ["sitting", "walking", "climbing stairs"]
    walk = by_label["walking"]
    assert walk.bout.duration_s == 120, "the longest of its label"
    nearest = walk.found[0]
    assert (nearest.label, nearest.similarity > 0.9) == ("walking", True)
    assert nearest.utc_s >= START + 120 + 30
    assert {h.session for h in walk.found[:2]} == {1, 2}, (
        "the other walks, of that day and the next"
    )


def test_nothing_to_report_is_said(path: Path) -> None:
    with LogReader(path) as log, pytest.raises(InputError, match="nothing was logged there"):
        gather(log, Where(until_utc_s=START - 86_400))


def test_labels_keep_colours_apart() -> None:
    names = [f"label {i}" for i in range(12)]
    totals = [Total(name, 100.0 - i, 0.5, 1) for i, name in enumerate(names)]
    colours = colours_of([*totals[:3], Total("unknown", 50, 0.2, 1), *totals[3:]])
    assert [colours[name] for name in names[:8]] == list(PALETTE)
    assert colours["label 8"] == colours["label 11"] not in PALETTE
    assert len({colours["unknown"], colours["not worn"], colours["label 8"]}) == 3


def page_of(path: Path, where: Where) -> str:
    with LogReader(path) as log:
        return html_of(gather(log, where))


def test_the_page_names_nothing_outside_itself(path: Path) -> None:
    page = page_of(path, first_day())
    assert "<script" not in page
    assert not re.findall(r"(?:src|href|url|@import)\s*[=(]", page)
    assert "://" not in page
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert "$" not in page, "every blank is filled in"
    assert "<Sense" not in page and "&lt;Sense &amp; &quot;Co&quot;&gt;" in page


def test_the_picture(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from edge.log.picture import figure_of

    with LogReader(path) as log:
        report = gather(log, Where())
    figure = figure_of(report)
    *days, labels = figure.axes
    assert len(days) == 2
    assert [t.get_text() for t in labels.get_yticklabels()] == [t.label for t in report.totals]
    colours = colours_of(report.totals)
    assert len(days[0].collections) == 5, "a bar for each bout"
    assert days[1].get_xlim() == day_span(report.days[1].day)
    from matplotlib.colors import to_hex

    assert to_hex(labels.patches[0].get_facecolor()) == colours["sitting"]
    out = tmp_path / "day.png"
    assert log_cli.main(["report", "--log", str(path), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


# --- In Chromium ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield browser
    browser.quit()


def opened(driver: Any, page: Path, width: int, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.get(page.as_uri())


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" (WCAG 2.1)."""
    parts = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def cells(driver: Any, heading: str) -> list[list[str]]:
    """The rows of the table below a heading, as they are read."""
    found: list[list[str]] = driver.execute_script(
        "const section = document.querySelector(`section[aria-labelledby=${arguments[0]}]`);"
        "return [...section.querySelectorAll('tbody tr')].map("
        "  (row) => [...row.children].map((cell) => cell.innerText.trim()));",
        heading,
    )
    return found


def test_what_is_seen(driver: Any, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "day.html"
    args = ["report", "--log", str(path), "--day", "2026-07-01", "--out", str(out)]
    assert log_cli.main(args) == 0
    opened(driver, out, 1000, "light")
    js = driver.execute_script
    assert driver.title == "Wednesday 1 July 2026 - aura-edge"
    assert "570 windows in 1 session" in js("return document.querySelector('header').innerText")

    # The timeline: each bout where and as wide as it was, in its label's colour.
    bars = js(
        "const box = document.querySelector('figure.day svg').getBoundingClientRect();"
        "return [...document.querySelectorAll('figure.day svg rect:not(.back)')].map((bar) => {"
        "  const own = bar.getBoundingClientRect();"
        "  return {from: (own.left - box.left) / box.width, wide: own.width / box.width,"
        "          text: bar.textContent, colour: bar.getAttribute('fill')}; });"
    )
    assert [bar["text"].split(",")[0] for bar in bars] == [act.label for act in DAY if act.label]
    assert bars[0]["from"] == pytest.approx(0, abs=0.001)
    assert bars[0]["wide"] == pytest.approx(120 / 600, abs=0.001), "of 8:00 to 8:10"
    assert bars[1]["from"] == pytest.approx(bars[0]["wide"], abs=0.001)
    assert bars[1]["wide"] / bars[0]["wide"] == pytest.approx(300 / 120, rel=0.01)
    pause = bars[4]["from"] - bars[3]["from"] - bars[3]["wide"]
    assert pause / bars[0]["wide"] == pytest.approx(20 / 120, rel=0.05), "a gap is left blank"
    assert bars[0]["colour"] == bars[4]["colour"] != bars[1]["colour"]
    assert "08:00:00 to 08:02:00, 2 min 00 s, confidence 0.80" in bars[0]["text"]
    assert js("return document.querySelector('figure.day .clock').innerText").startswith("08:00")
    spoken = js("return document.querySelector('figure.day svg').getAttribute('aria-label')")
    assert spoken.startswith("Timeline of Wed 1 Jul: sitting 5 min 00 s, walking 2 min 40 s")
    assert js("return document.querySelectorAll('polyline.curve').length") == 2, "broken by the gap"
    points = js("return document.querySelector('polyline.curve').getAttribute('points')").split()
    height = {float(x): float(y) for x, y in (point.split(",") for point in points)}
    at = {share: height[min(height, key=lambda x: abs(x - 1000 * share))] for share in (0.1, 0.4)}
    assert at[0.1] < at[0.4] < height[min(height, key=lambda x: abs(x - 725))], "0.8, 0.6, 0.3"

    assert cells(driver, "activities")[0] == ["sitting", "", "5 min 00 s", "55%", "1", "0.60"]
    assert cells(driver, "confidence")[9][2] == "60"
    assert cells(driver, "unknown") == [["2026-07-01 08:07:00 +02:00", "30 s", "lying"]]
    (health,) = cells(driver, "health")
    assert health[0] == '1: <Sense & "Co">'
    assert health[3:] == ["570", "96.5%", "5.1%", "50.0 Hz", "50.0 Hz", "1 (16 s)"]
    assert cells(driver, "similar")[0][0].startswith("0.")
    assert len(cells(driver, "timeline")) == 5, "the drawing as a table"

    # Nothing was fetched, and nothing was even tried.
    assert js("return performance.getEntriesByType('resource').length") == 0
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_it_is_readable(driver: Any, path: Path, tmp_path: Path, scheme: str, width: int) -> None:
    out = tmp_path / "days.html"
    out.write_text(page_of(path, Where()))
    opened(driver, out, width, scheme)
    js = driver.execute_script
    assert js("return document.querySelectorAll('figure.day').length") == 2
    assert js("return document.documentElement.scrollWidth") <= width, "no sideways scrolling"
    colours = js(
        "const of = (s) => getComputedStyle(document.querySelector(s));"
        "return [of('body').backgroundColor, of('body').color, of('.soft').color];"
    )
    page, text, soft = map(luminance, colours)
    assert (page < 0.05) == (scheme == "dark")
    for ink, least in ((text, 7.0), (soft, 4.5)):
        contrast = (max(ink, page) + 0.05) / (min(ink, page) + 0.05)
        assert contrast >= least
    # Clock times do not run into each other.
    spans = js(
        "return [...document.querySelector('.clock').children].map((s) => {"
        "  const box = s.getBoundingClientRect(); return [box.left, box.right]; });"
    )
    assert len(spans) >= 3
    for (_, right), (left, _) in itertools.pairwise(spans):
        assert right < left
    assert spans[-1][1] <= width
