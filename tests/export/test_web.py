"""The page in export/web, in headless Chromium: it agrees with the runtime, and says what is wrong.

Agreement with Python is exact up to the encoder: the windows are the same bits (up to 200 Hz).
onnxruntime-web is another build of onnxruntime, so its embeddings may differ by what int8 rounding
makes of it: the tolerances below say how much. What is decided from an embedding is exact again.
"""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from edge.labels import resolve_labels
from edge.pipeline import Pipeline, Prediction
from edge.posture import SEGMENTS, UNKNOWN, PostureEvidence, posture_evidence
from edge.recording import open_recording
from edge.resample import Resampler
from edge.upright import UprightTracker
from edge.window import WindowCutter, every_hop
from edge.zeroshot import LabelSet
from firmware_bridge.samples import Samples
from tests.conftest import RECORDING, REPO, walk, with_decision, without, write_csv
from tests.edge.conftest import edit

pytest.importorskip("selenium", reason="selenium is not installed (pip install '.[dev]')")
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

WEB = REPO / "export" / "web"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    pytest.skip("no chromium and chromedriver on the PATH", allow_module_level=True)
if not (WEB / "node_modules" / "onnxruntime-web").is_dir():
    pytest.skip("run `npm ci` in export/web first", allow_module_level=True)

LABELS = ("walking", "climbing stairs", "descending stairs", "sitting", "standing", "lying")

MIN_COSINE = 0.999
MAX_SIMILARITY_ERROR = 0.01
MIN_AGREEMENT = 0.99
MAX_PROBABILITY_ERROR = 1e-4
MAX_ANGLE_ERROR_DEG = 0.1

CENTRES_DEG = {
    "face": {
        "trunk": (5, 15, 60),
        "thigh": (10, 50, 35),
        "arm": (20, 60, 40),
        "shank": (5, 25, 65),
        "unknown": (10, 35, 45),
    },
    "tilt": {
        "trunk": (5, 25, 85),
        "thigh": (8, 68, 85),
        "arm": (10, 50, 80),
        "shank": (8, 30, 85),
        "unknown": (8, 40, 85),
    },
}
"""Where the angles of upright, sitting and lying gather in the tables of `deciding`: no two tables
or rows are the same, so that none can be taken for another."""

PATIENCE_S = 120
"""Until a page that hangs is given up; nothing is measured by it."""


class Site:
    """The repository and one more folder, served on the loopback interface."""

    def __init__(self, extra: Path) -> None:
        self.extra = extra
        handler = functools.partial(_Handler, directory=str(REPO), extra=extra)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, directory: str, extra: Path) -> None:
        self._extra = extra
        super().__init__(*args, directory=directory)

    def translate_path(self, path: str) -> str:
        if path.startswith("/extra/"):
            return str(self._extra / path.removeprefix("/extra/").split("?")[0])
        return super().translate_path(path)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Page:
    """What a person does with the page, and what the page knows."""

    def __init__(self, driver: webdriver.Chrome, site: Site) -> None:
        self.driver = driver
        self._site = site

    def open(self, query: str = "", expect: str = "ready") -> None:
        self.driver.get(f"{self._site.url}/export/web/{query}")
        self.wait_for("return window.auraEdge && ['ready', 'failed'].includes(auraEdge.state)")
        assert self.js("return auraEdge.state") == expect, self.text("error")

    def js(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)

    def js_async(self, script: str, *args: Any) -> Any:
        """Run an async function body; its modules come from the page's folder."""
        result = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            f"(async (...args) => {{ {script} }})(...arguments)"
            ".then(done, (error) => done({failed: String(error.stack)}));",
            *args,
        )
        if isinstance(result, dict) and "failed" in result:
            raise AssertionError(result["failed"])
        return result

    def wait_for(self, script: str) -> None:
        WebDriverWait(self.driver, PATIENCE_S).until(lambda _: self.js(script))

    def wait_until_ready(self) -> None:
        self.wait_for("return auraEdge.state === 'ready'")

    def text(self, element_id: str) -> str:
        return str(self.driver.find_element(By.ID, element_id).text)

    def type_labels(self, labels: str) -> None:
        """Replace the labels, then leave the field."""
        self.js(
            "const field = document.getElementById('labels'); field.value = arguments[0];"
            "field.dispatchEvent(new Event('input')); field.dispatchEvent(new Event('change'));",
            labels,
        )

    def choose_placement(self, segment: str) -> None:
        self.js(
            "const field = document.getElementById('placement'); field.value = arguments[0];"
            "field.dispatchEvent(new Event('change'));",
            segment,
        )

    def slide_to(self, window: int) -> None:
        self.js(
            "const slider = document.getElementById('slider'); slider.value = arguments[0];"
            "slider.dispatchEvent(new Event('input'));",
            window,
        )

    def choose_file(self, path: Path) -> None:
        self.driver.find_element(By.ID, "file").send_keys(str(path))
        self.wait_until_ready()

    def predictions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.js(
            "return auraEdge.predictions.map((p) => ({...p, embedding: p.embedding &&"
            " Array.from(p.embedding)}))"
        )
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("extra"))
    yield site
    site.close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.set_script_timeout(PATIENCE_S)
    yield driver
    driver.quit()


@pytest.fixture
def page(driver: webdriver.Chrome, site: Site) -> Page:
    page = Page(driver, site)
    page.open()
    page.type_labels(", ".join(LABELS))
    return page


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(DEFAULT_BUNDLE)


def changed_bundle(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The shipped bundle with another manifest."""
    shutil.copytree(DEFAULT_BUNDLE, folder)
    edit(folder, change)
    return folder


def decide(manifest: dict[str, Any]) -> None:
    """Give a manifest a decision with tables as a fit could have made them."""
    manifest.update(with_decision(manifest))
    # So blunt a bridge that a label among the activities would not get all of its own anyway.
    manifest["decision"]["bridge"] = {"weight": 0.5, "temperature": 0.3}
    manifest["decision"]["level_novel_labels"] = True
    rows = manifest["decision"]["vocabulary"]["rows"]
    bank = [activity["name"] for activity in manifest["label_bank"]]
    rows += {bank.index("walking"), bank.index("lying")} - set(rows)
    posture = manifest["decision"]["posture"]
    for angle, highest_deg in (("face", 90), ("tilt", 180)):
        edges = np.arange(0, highest_deg + 1, 10)
        posture[f"{angle}_edges_deg"] = edges.tolist()
        for segment, centres in CENTRES_DEG[angle].items():
            away = (edges[:-1] + 5 - np.array(centres)[:, None]) / 20
            likely = np.exp(-(away**2)) + 0.02
            posture[angle][segment] = (likely / likely.sum(axis=1, keepdims=True)).tolist()


@pytest.fixture(scope="module")
def deciding(site: Site) -> Bundle:
    """At /extra/deciding; half of the recording is unknown to it."""
    folder = changed_bundle(site.extra / "deciding", decide)
    presence = [p.presence for p in in_python(load_bundle(folder), iter([the_recording()]))]
    below = float(np.median([p for p in presence if p is not None]))
    edit(folder, lambda m: m["decision"].update(reject={"below": below}))
    return load_bundle(folder)


@pytest.fixture(scope="module")
def plain(site: Site) -> Bundle:
    """At /extra/plain: of format 1."""

    def undecide(manifest: dict[str, Any]) -> None:
        manifest.pop("decision", None)
        manifest["format_version"] = 1

    return load_bundle(changed_bundle(site.extra / "plain", undecide))


def in_python(
    bundle: Bundle, chunks: Iterator[Samples], placement: str | None = None
) -> list[Prediction]:
    pipeline = Pipeline(bundle, resolve_labels(list(LABELS), bundle), placement=placement)
    predictions = [p for samples in chunks for p in pipeline.push(samples)]
    return predictions + pipeline.finish()


def of_file(bundle: Bundle, path: Path, placement: str | None = None) -> list[Prediction]:
    return in_python(bundle, open_recording(path).chunks, placement)


def the_recording() -> Samples:
    return Samples.joined(list(open_recording(RECORDING).chunks))


def assert_same(
    found: list[dict[str, Any]], expected: list[Prediction], bundle: Bundle, segment: str = UNKNOWN
) -> None:
    """Times, validity and rates are the same, angles, embeddings and similarities within
    tolerance; what is decided from the page's embeddings is what the runtime decides from them."""
    labels = resolve_labels(list(LABELS), bundle)
    assert len(found) == len(expected) > 0
    agree = 0
    for here, there in zip(found, expected, strict=True):
        assert here["startS"] == pytest.approx(there.start_s, abs=1e-9)
        assert here["endS"] == pytest.approx(there.end_s, abs=1e-9)
        assert here["missing"] == pytest.approx(there.missing, abs=1e-12)
        assert here["rateHz"] == pytest.approx(there.rate_hz, rel=1e-9)
        assert here["valid"] == there.valid
        assert here["faceDeg"] == pytest.approx(there.face_deg, abs=MAX_ANGLE_ERROR_DEG)
        assert here["tiltDeg"] == pytest.approx(there.tilt_deg, abs=MAX_ANGLE_ERROR_DEG)
        if there.embedding is None or there.best is None:
            assert here["embedding"] is None and here["scores"] == []
            agree += 1
            continue
        assert np.dot(here["embedding"], there.embedding) >= MIN_COSINE
        similarity = {s["label"]: s["similarity"] for s in here["scores"]}
        for score in there.top:
            assert similarity[score.label] == pytest.approx(
                score.similarity, abs=MAX_SIMILARITY_ERROR
            )
        assert sum(s["probability"] for s in here["scores"]) == pytest.approx(1)
        assert_decided(here, labels, bundle.logit_scale, segment, evidence_of(there))
        agree += here["scores"][0]["label"] == there.best.label
    assert agree >= MIN_AGREEMENT * len(expected)


def evidence_of(prediction: Prediction) -> PostureEvidence | None:
    if prediction.face_deg is None:
        return None
    return PostureEvidence(prediction.face_deg, prediction.tilt_deg)


def assert_decided(
    here: dict[str, Any],
    labels: LabelSet,
    logit_scale: float,
    segment: str,
    evidence: PostureEvidence | None,
) -> None:
    """The page says of a window what the runtime would, given the same embedding."""
    embedding = np.array(here["embedding"], np.float32)
    verdict = labels.judge(embedding, logit_scale, len(LABELS), segment, evidence)
    assert [s["label"] for s in here["scores"]] == [s.label for s in verdict.top]
    assert [s["probability"] for s in here["scores"]] == pytest.approx(
        [s.probability for s in verdict.top], abs=MAX_PROBABILITY_ERROR
    )
    assert here["presence"] == pytest.approx(verdict.presence, abs=MAX_PROBABILITY_ERROR)
    assert here["unknown"] == verdict.unknown


def csv_of(path: Path, samples: Samples) -> Path:
    assert samples.gyro_rads is not None
    rows = np.column_stack([samples.t_s, samples.acc_mps2, samples.gyro_rads])
    return write_csv(path, "time_s,ax_mps2,ay_mps2,az_mps2,gx_rads,gy_rads,gz_rads", rows)


def windows_in_python(samples: Samples) -> list[np.ndarray]:
    resampler, cutter = Resampler(), WindowCutter(every_hop(1.0))
    blocks = resampler.push(samples) + resampler.finish()
    return [w.imu for block in blocks for w in cutter.push(block)] + [
        w.imu for w in cutter.finish()
    ]


@pytest.mark.parametrize("rate_hz", [10, 52, 60, 199.7, 200, 416, 1000])
@pytest.mark.parametrize("gyro", [True, False])
def test_windows_are_those_of_the_runtime(page: Page, rate_hz: float, gyro: bool) -> None:
    """Jitter, a gap, a lost packet, in chunks of 7 samples: bit for bit up to 200 Hz. Above, the
    low-pass takes sine and Bessel function from another mathematical library."""
    samples = without(without(walk(9, rate_hz, jitter=0.2), 2.2, 2.9), 7.0, 7.1)
    assert samples.gyro_rads is not None
    columns = [*samples.acc_mps2.T, *(samples.gyro_rads.T if gyro else ())]
    if not gyro:
        samples = Samples(samples.t_s, samples.acc_mps2, None)
    found = page.js_async(
        """
        const { Resampler } = await import("/export/web/resample.js");
        const { WindowCutter } = await import("/export/web/window.js");
        const [tS, channels] = args;
        const resampler = new Resampler();
        const cutter = new WindowCutter();
        const blocks = [];
        for (let at = 0; at < tS.length; at += 7) {
          const piece = (column) => column.slice(at, at + 7);
          blocks.push(...resampler.push({ tS: piece(tS), channels: channels.map(piece) }));
        }
        blocks.push(...resampler.finish());
        const windows = blocks.flatMap((block) => cutter.push(block));
        return [...windows, ...cutter.finish()].map((w) => Array.from(w.imu));
        """,
        samples.t_s.tolist(),
        [column.tolist() for column in columns],
    )
    expected = windows_in_python(samples)
    assert len(found) == len(expected) == 5
    for here, there in zip(found, expected, strict=True):
        window = np.array(here, np.float32).reshape(6, 1000)  # null, JSON's NaN, becomes nan
        if rate_hz <= 200:
            np.testing.assert_array_equal(window, there)
        else:
            np.testing.assert_allclose(window, there, rtol=0, atol=1e-5)


def references_in_python(samples: Samples, last: int) -> list[list[float] | None]:
    resampler, tracker = Resampler(), UprightTracker()
    for block in resampler.push(samples) + resampler.finish():
        tracker.push(block)
    references = [tracker.reference_at(index) for index in range(0, last, 100)]
    return [None if r is None else list(r) for r in references]


def turned(samples: Samples, deg: float) -> Samples:
    """With the device turned about its x axis; without gyroscope."""
    c, s = np.cos(np.radians(deg)), np.sin(np.radians(deg))
    return Samples(
        samples.t_s, samples.acc_mps2 @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]]), None
    )


def test_the_upright_direction_is_that_of_the_runtime(page: Page) -> None:
    """Walking with a lost packet; after a long gap, with the device worn otherwise; at rest upside
    down, which drops what was known; walking again. In chunks of 61 samples."""
    resting = walk(25, 50, seed=2)
    resting.acc_mps2[:] = [0, 0, 9.8]
    samples = Samples.joined(
        [
            turned(without(walk(30, 50), 20.0, 20.6), 0),
            turned(walk(22, 50, seed=1).shifted(42.3), 75),
            turned(resting.shifted(64.3), 235),
            turned(walk(20, 50, seed=3).shifted(89.3), 235),
        ]
    )
    last = 109 * 200
    found = page.js_async(
        """
        const { Resampler } = await import("/export/web/resample.js");
        const { UprightTracker } = await import("/export/web/upright.js");
        const [tS, channels, last] = args;
        const resampler = new Resampler();
        const tracker = new UprightTracker();
        for (let at = 0; at < tS.length; at += 61) {
          const piece = (column) => column.slice(at, at + 61);
          const samples = { tS: piece(tS), channels: channels.map(piece) };
          for (const block of resampler.push(samples)) tracker.push(block);
        }
        for (const block of resampler.finish()) tracker.push(block);
        const references = [];
        for (let i = 0; i < last; i += 100) references.push(tracker.referenceAt(i));
        return references;
        """,
        samples.t_s.tolist(),
        samples.acc_mps2.T.tolist(),
        last,
    )
    expected = references_in_python(samples, last)
    known = [r is not None for r in expected]
    assert np.count_nonzero(np.diff(known)) == 3, "known, dropped, known again"
    for here, there in zip(found, expected, strict=True):
        assert here == (there if there is None else pytest.approx(there, abs=1e-9))


def test_the_evidence_is_that_of_the_runtime(page: Page, deciding: Bundle) -> None:
    """Windows whose last second points ever further away, lacks ever more, or that are too light
    to be gravity; and the tables at the edges of their bins."""
    windows = []
    for turn_deg in (0, 20, 24, 30, 31, 33, 60):
        for missing in (0, 100, 101, 200):
            for length in (9.8, 2.1, 1.9):
                angle = np.radians(np.repeat([10, 10, 10, 10, 10 + turn_deg], 200))
                imu = np.full((6, 1000), 0.1, np.float32)
                imu[1], imu[2] = length * np.cos(angle), -length * np.sin(angle)
                imu[:, 1000 - missing :] = np.nan
                windows.append(imu)
    upright = np.array([0.0, 0.6, 0.8])
    angles = [
        (float(deg), None if of == "face" else float(deg))
        for of, highest in (("face", 90), ("tilt", 180))
        for deg in (*range(0, highest + 1, 10), 9.99, highest - 0.01)
    ]
    found, ratios = page.js_async(
        """
        const { PostureTables, postureEvidence } = await import("/export/web/posture.js");
        const [windows, upright, tables, angles] = args;
        const read = new PostureTables(tables);
        const imu = (rows) => Float32Array.from(rows.flat(), (value) => value ?? NaN);
        return [
          windows.map((rows, i) => postureEvidence(imu(rows), i % 2 ? upright : null)),
          angles.map(([faceDeg, tiltDeg]) => read.ratios("thigh", { faceDeg, tiltDeg })),
        ];
        """,
        [[[None if np.isnan(v) else float(v) for v in row] for row in imu] for imu in windows],
        upright.tolist(),
        deciding.manifest["decision"]["posture"],
        angles,
    )
    expected = [posture_evidence(imu, upright if i % 2 else None) for i, imu in enumerate(windows)]
    assert 0.2 < np.mean([evidence is None for evidence in expected]) < 0.8
    for here, there in zip(found, expected, strict=True):
        face_deg, tilt_deg = there or (None, None)
        # The runtime adds up in float32.
        assert here["faceDeg"] == pytest.approx(face_deg, abs=1e-4)
        assert here["tiltDeg"] == pytest.approx(tilt_deg, abs=1e-4)
    assert deciding.decision is not None
    for here, (face_deg, tilt_deg) in zip(ratios, angles, strict=True):
        likelihoods = deciding.decision.tables.log_likelihoods(np.eye(4), "thigh")
        likelihood = likelihoods.of(PostureEvidence(face_deg, tilt_deg))
        np.testing.assert_allclose(np.log(here), likelihood, rtol=1e-9, atol=1e-9)


def rolled(samples: Samples, start_s: float) -> Samples:
    """What comes from a time on first, then what came before it."""
    first = int(np.searchsorted(samples.t_s, start_s))
    assert samples.gyro_rads is not None
    return Samples(
        samples.t_s,
        np.roll(samples.acc_mps2, -first, axis=0),
        np.roll(samples.gyro_rads, -first, axis=0),
    )


def test_a_recording_is_decided_as_by_the_runtime(
    page: Page, deciding: Bundle, tmp_path: Path
) -> None:
    """The recording from 100 s on, then what comes before: sitting and lying while only the face
    angle is known, then walking, then sitting and lying with a known upright direction."""
    path = csv_of(tmp_path / "rolled.csv", rolled(the_recording(), 100))
    page.open("?bundle=/extra/deciding")
    page.type_labels(", ".join(LABELS))
    page.choose_placement("trunk")
    page.choose_file(path)
    assert page.text("error") == ""
    found, expected = page.predictions(), of_file(deciding, path, "waist")
    assert_same(found, expected, deciding, "trunk")

    labels = resolve_labels(list(LABELS), deciding)
    assert labels.decision is not None
    rule = replace(labels.decision.rule, bridge_weight=0.0)
    unbridged = replace(labels, decision=replace(labels.decision, rule=rule))
    changed = {"face": 0, "tilt": 0, "bridge": 0}
    for p in expected:
        assert p.embedding is not None and p.best is not None
        evidence, scale = evidence_of(p), deciding.logit_scale
        if evidence is not None:
            (plain,) = labels.classify(p.embedding, scale, 1, "trunk")
            by = "face" if evidence.tilt_deg is None else "tilt"
            changed[by] += plain.label != p.best.label
        (plain,) = unbridged.classify(p.embedding, scale, 1, "trunk", evidence)
        changed["bridge"] += plain.label != p.best.label
    assert all(changed.values()), changed

    unknown = [p["unknown"] for p in found]
    assert 5 < sum(unknown) < len(found) - 5
    page.slide_to(unknown.index(True))
    page.wait_for("return document.getElementById('label').textContent === 'unknown'")
    assert "none of the labels fits (presence 0." in page.text("detail")

    # Another placement decides anew what was embedded.
    options = page.js(
        "return [...document.querySelectorAll('#placement option')].map(o => o.value)"
    )
    assert sorted(options) == sorted(SEGMENTS)
    for segment in options:
        page.choose_placement(segment)
        for here, there in zip(page.predictions(), expected, strict=True):
            assert_decided(here, labels, deciding.logit_scale, segment, evidence_of(there))


def test_a_bundle_of_format_1_is_decided_by_the_cosine(
    page: Page, plain: Bundle, tmp_path: Path
) -> None:
    page.open("?bundle=/extra/plain")
    page.type_labels(", ".join(LABELS))
    assert not page.driver.find_element(By.ID, "placement").is_displayed()
    header, *rows = RECORDING.read_text().splitlines()
    path = tmp_path / "walkthrough.csv"
    path.write_text("\n".join([header, *rows[6000:8000], ""]))
    page.choose_file(path)
    assert page.text("error") == ""
    assert page.text("status").startswith("walkthrough.csv: 50.0 Hz, time time in s, acc gFx.. in")
    expected = of_file(plain, path)
    assert_same(page.predictions(), expected, plain)
    # What is shown is the newest window; the slider shows any other one.
    page.wait_for("return document.getElementById('label').textContent !== ''")
    assert page.text("label") == expected[-1].label
    page.slide_to(0)
    page.wait_for("return document.getElementById('moment').textContent === '0:00.0 to 0:05.0'")
    assert page.text("label") == expected[0].label
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#bars li")) == 5
    page.driver.save_screenshot(str(tmp_path / "page.png"))


def test_other_labels_rename_what_was_embedded(page: Page, tmp_path: Path) -> None:
    page.choose_file(csv_of(tmp_path / "walk.csv", walk(8, 50)))
    page.type_labels("swimming, Lying")
    scores = [p["scores"] for p in page.predictions()]
    assert all({s["label"] for s in of_window} == {"swimming", "Lying"} for of_window in scores)


def test_nothing_is_asked_of_another_host(page: Page, site: Site, tmp_path: Path) -> None:
    page.choose_file(csv_of(tmp_path / "walk.csv", walk(8, 50)))
    asked = page.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert any(address.endswith(".wasm") for address in asked)
    assert all(address.startswith((f"{site.url}/", "data:")) for address in asked)


def test_a_gap_makes_the_same_windows_invalid(page: Page, bundle: Bundle, tmp_path: Path) -> None:
    path = csv_of(tmp_path / "gap.csv", without(walk(20, 50), 8.0, 11.0))
    page.choose_file(path)
    expected = of_file(bundle, path)
    assert {p.valid for p in expected} == {True, False}
    assert_same(page.predictions(), expected, bundle)
    invalid = [p.valid for p in expected].index(False)
    page.slide_to(invalid)
    page.wait_for("return document.getElementById('label').textContent === 'not classified'")
    assert "of the window is missing (limit 20 %)" in page.text("detail")


def test_a_short_recording_without_gyroscope_is_padded(
    page: Page, bundle: Bundle, tmp_path: Path
) -> None:
    samples = walk(3, 416)
    rows = np.column_stack([samples.t_s * 1e3, samples.acc_mps2 / 9.80665])
    path = write_csv(tmp_path / "short.csv", "Time (ms),Acc X (g),Acc Y (g),Acc Z (g)", rows)
    page.choose_file(path)
    assert_same(page.predictions(), of_file(bundle, path), bundle)
    assert "no gyroscope columns" in page.text("notes")


def test_a_wrong_unit_is_refused_until_the_right_one_is_chosen(page: Page, tmp_path: Path) -> None:
    samples = walk(8, 50)
    rows = np.column_stack([samples.t_s, samples.acc_mps2 / 9.80665])
    path = write_csv(tmp_path / "g.csv", "time,ax,ay,az", rows)
    page.choose_file(path)
    assert "It looks like g: choose that acceleration unit" in page.text("error")
    assert page.predictions() == []
    page.js(
        "const unit = document.getElementById('unit-acc'); unit.value = 'g';"
        "unit.dispatchEvent(new Event('change'));"
    )
    page.wait_until_ready()
    assert page.text("error") == ""
    assert len(page.predictions()) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("time,foo\n0,1\n", "no row names a time column and three accelerometer columns"),
        ("time,ax,ay,az\n0,0,0,9.8\n0.02,0,x,9.8\n0.04,0,0,9.8\n", "line 3: column “ay” holds “x”"),
        ("t,userAccelerationX,userAccelerationY,userAccelerationZ\n", "without gravity only"),
        ("", "is empty"),
    ],
)
def test_an_unreadable_recording_says_why(
    page: Page, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    page.choose_file(path)
    assert message in page.text("error")


def dispatch_motion(page: Page, samples: Samples, acc_sign: float) -> None:
    """Start the sensors and feed the page motion events with the samples' own times."""
    assert samples.gyro_rads is not None
    page.driver.find_element(By.ID, "live").click()
    page.wait_for("return auraEdge.state === 'running'")
    page.js(
        """
        const [tS, acc, rate] = arguments;
        tS.forEach((t, i) => {
          const [x, y, z] = acc[i];
          const [alpha, beta, gamma] = rate[i];
          const event = new DeviceMotionEvent("devicemotion", {
            accelerationIncludingGravity: { x, y, z },
            rotationRate: { alpha, beta, gamma },
            interval: 20,
          });
          Object.defineProperty(event, "timeStamp", { value: 1000 * t });
          dispatchEvent(event);
        });
        """,
        samples.t_s.tolist(),
        (acc_sign * samples.acc_mps2).tolist(),
        np.rad2deg(samples.gyro_rads).tolist(),
    )
    page.wait_for("return auraEdge.predictions.length > 0")
    page.driver.find_element(By.ID, "live").click()
    page.wait_until_ready()


@pytest.mark.parametrize("turned", [False, True])
def test_motion_events_reach_a_label(page: Page, bundle: Bundle, turned: bool) -> None:
    """The recording's walking, as a browser would report it; `turned`, as Safari would."""
    samples = the_recording()
    start, stop = np.searchsorted(samples.t_s, [185, 193])
    samples = samples[start:stop]
    page.js("document.getElementById('turned').checked = arguments[0]", turned)
    dispatch_motion(page, samples, acc_sign=-1 if turned else 1)
    expected = in_python(bundle, iter([samples]))
    assert_same(page.predictions(), expected, bundle)
    assert expected[-1].best
    page.wait_for("return document.getElementById('label').textContent !== ''")
    assert page.text("label") == expected[-1].best.label == "walking"


def test_sensor_axes_and_units_are_ours(page: Page) -> None:
    """Readings of virtual sensors, through Chromium's own making of motion events: rotationRate's
    alpha, beta and gamma are the rates about x, y and z (Chromium rounds them to 0.1)."""
    kinds = ("accelerometer", "linear-acceleration", "gyroscope")
    readings = {"accelerometer": (1.0, 2.0, 9.5), "gyroscope": (0.5, -1.0, 2.0)}
    command = page.driver.execute_cdp_cmd
    for kind in kinds:
        command("Emulation.setSensorOverrideEnabled", {"enabled": True, "type": kind})
    try:
        page.js("window.heard = []; addEventListener('devicemotion', (e) => heard.push(e));")
        for kind in kinds:
            xyz = dict(zip("xyz", readings.get(kind, (0, 0, 0)), strict=True))
            command("Emulation.setSensorOverrideReadings", {"type": kind, "reading": {"xyz": xyz}})
        page.wait_for("return heard.at(-1)?.rotationRate?.alpha > 0")
        first = page.js_async(
            """
            const { motionSamples } = await import("/export/web/motion.js");
            const stop = new AbortController();
            for await (const { channels } of motionSamples(stop.signal, () => false)) {
              stop.abort();
              return channels.map((channel) => channel.at(-1));
            }
            """
        )
    finally:
        for kind in kinds:
            command("Emulation.setSensorOverrideEnabled", {"enabled": False, "type": kind})
    assert first == pytest.approx([1.0, 2.0, 9.5, 0.5, -1.0, 2.0], abs=0.01)


def test_a_device_without_sensors_is_told(page: Page) -> None:
    page.driver.find_element(By.ID, "live").click()
    page.wait_for("return !document.getElementById('error').hidden")
    assert "No motion arrives" in page.text("error")


def test_labels_are_found_by_alias_and_spelling(page: Page) -> None:
    page.type_labels("Climbing_Stairs, LYING,  sitting ")
    assert page.text("labels-error") == ""
    assert page.js("return auraEdge.labels.names") == ["Climbing_Stairs", "LYING", "sitting"]


def test_an_unknown_label_names_the_closest(page: Page) -> None:
    page.type_labels("wlaking, sitting, xqzvw")
    first, second = page.text("labels-error").splitlines()
    assert first.startswith("“wlaking” is not in the bundle's label bank. Closest: walking,")
    assert second.startswith("“xqzvw” is not in the bundle's label bank.")
    assert page.js("return auraEdge.labels.names") == list(LABELS), "the last good ones stand"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (" , ", "Give at least one label."),
        ("sitting, SITTING", "“sitting” and “SITTING” are the same activity (sitting)"),
    ],
)
def test_labels_that_make_no_set_are_refused(page: Page, labels: str, message: str) -> None:
    page.type_labels(labels)
    assert message in page.text("labels-error")


@pytest.mark.parametrize(
    ("name", "message"), [("encoder.onnx", "SHA-256"), ("prototypes.npz", "SHA-256")]
)
def test_a_tampered_bundle_is_refused(page: Page, site: Site, name: str, message: str) -> None:
    folder = site.extra / f"changed-{name}"
    shutil.copytree(DEFAULT_BUNDLE, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    page.open(f"?bundle=/extra/{folder.name}", expect="failed")
    assert message in page.text("error") and name in page.text("error")
    assert not page.driver.find_element(By.ID, "live").is_enabled()


def test_a_truncated_bundle_is_refused(page: Page, site: Site) -> None:
    folder = site.extra / "truncated"
    shutil.copytree(DEFAULT_BUNDLE, folder)
    content = (folder / "encoder.onnx").read_bytes()
    (folder / "encoder.onnx").write_bytes(content[:-1])
    page.open("?bundle=/extra/truncated/", expect="failed")
    assert "truncated or replaced" in page.text("error")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["decision"], [], "decision.vocabulary: expected an object"),
        (["decision", "bridge", "weight"], 1.5, "bridge.weight: expected a number of 0 or more up"),
        (["decision", "temperature"], 0, "decision.temperature: expected a number above 0"),
        (["decision", "vocabulary", "rows"], [1, 1], "expected different rows of the label bank"),
        (["decision", "posture", "tilt_edges_deg"], [0, 90], "tilt_edges_deg: expected angles"),
        (["decision", "posture", "face", "arm"], [[1]] * 3, "face.arm: expected 3 rows of 9"),
        (["label_bank", 0, "posture"], "kneeling", "posture “kneeling” is none of"),
        (["decision", "reject"], {"below": 2}, "decision.reject.below: expected a cosine"),
        (["decision", "level_novel_labels"], 1, "level_novel_labels: expected true or false"),
        (["format_version"], 4, "bundle format 4, this page reads up to 3"),
    ],
)
def test_a_malformed_decision_is_refused(
    page: Page, site: Site, path: list[str | int], value: object, message: str
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        decide(manifest)
        *parents, key = path
        record: Any = manifest
        for parent in parents:
            record = record[parent]
        record[key] = value

    name = "-".join(map(str, path))
    changed_bundle(site.extra / name, change)
    page.open(f"?bundle=/extra/{name}", expect="failed")
    assert message in page.text("error") and "manifest.json" in page.text("error")


@pytest.mark.parametrize(
    ("address", "message"),
    [("/extra/nowhere", "404"), ("http://127.0.0.2:9/bundle", "same site as this page")],
)
def test_an_absent_bundle_is_named(page: Page, address: str, message: str) -> None:
    page.open(f"?bundle={address}", expect="failed")
    assert message in page.text("error") and address in page.text("error")
