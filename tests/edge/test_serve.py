"""The live page: its server over plain sockets, and the page itself in headless Chromium."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.labels import resolve_labels
from edge.moment import Moment
from edge.outputs import serve
from edge.outputs.serve import LivePage, parse_address
from edge.pipeline import Pipeline
from edge.recording import open_recording
from firmware_bridge.clock import ClockReport
from firmware_bridge.errors import InputError
from firmware_bridge.live import LinkReport
from firmware_bridge.samples import Samples
from tests.conftest import RECORDING, walk, without
from tests.edge.moments import LABELS, event, moment

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE_S = 60
"""Until something that does not come is given up; nothing is measured by it."""

REPORT = LinkReport(
    {"imu": ClockReport(52.07, -31.4, 980, 20, 0.012, 0.0345, 0, 0)},
    {"imu": Counter()},
    "52 Hz, 6 axes",
    reconnects=1,
    stalls=2,
    skipped=0,
    unpaired=7,
)


def wait_for(is_true: Callable[[], object]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < until_s, "it did not come"
        time.sleep(0.02)


def quiet(_: str) -> None:
    """Says nothing."""


def make_page(
    address: str = "127.0.0.1:0",
    labels: tuple[str, ...] = LABELS,
    report: Callable[[], LinkReport] | None = None,
    say: Callable[[str], None] = quiet,
) -> LivePage:
    return LivePage(address, "ble:Polar <Sense>", labels, report, say)


@pytest.fixture
def page() -> Iterator[LivePage]:
    page = make_page()
    yield page
    page.close()


def port_of(page: LivePage) -> int:
    return int(page.url.rsplit(":", 1)[1].strip("/"))


def get(page: LivePage, path: str = "/", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=PATIENCE_S)
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, dict(response.getheaders()), content


class Watcher:
    """A browser's event stream."""

    def __init__(self, page: LivePage) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=30)
        self._connection.request("GET", "/events")
        self._response = self._connection.getresponse()
        self.status = self._response.status

    def messages(self) -> Iterator[tuple[str, Any]]:
        """Until the server ends the stream."""
        kind = ""
        while line := self._response.readline():
            name, _, value = line.decode().strip().partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)

    def next(self, kind: str) -> Any:
        return next(message for k, message in self.messages() if k == kind)

    def until(self, kind: str, is_right: Callable[[Any], bool]) -> Any:
        return next(m for k, m in self.messages() if k == kind and is_right(m))

    def close(self) -> None:
        self._response.close()
        self._connection.close()


# The server.


def test_what_is_said_reaches_who_watches(page: LivePage) -> None:
    watcher = Watcher(page)
    assert watcher.next("moment")["window"] is None, "before the first window"
    page.show(moment(105.0, "walking"), None)
    page.show(
        moment(
            107.0,
            "sitting",
            (
                event(1, "walking", 100.0, 106.5, True),
                event(2, "sitting", 106.5, 107.0, False),
            ),
        ),
        "standing",
    )
    message = watcher.until("moment", lambda m: m["windows"] == 2)
    watcher.close()
    assert message == {
        "title": "ble:Polar <Sense>",
        "is_over": False,
        "windows": 2,
        "window": {
            "at_s": 7.0,
            "label": "sitting",
            "is_none": False,
            "confidence": 0.8125,
            "since_s": 6.5,
            "truth": "standing",
            "why_not": None,
            "scores": [["walking", 0.5], ["sitting", 0.3], ["lying", 0.2]],
            "missing": 0.0,
            "rate_hz": 50.02,
            "inference_ms": 0.4,
        },
        "events": [
            {"start_s": 6.5, "end_s": 7.0, "label": "sitting", "confidence": 0.75, "ended": False},
            {"start_s": 0.0, "end_s": 6.5, "label": "walking", "confidence": 0.75, "ended": True},
        ],
        "link": None,
    }


def test_without_events_a_label_lasts_since_the_window_that_changed_it(page: LivePage) -> None:
    watcher = Watcher(page)
    for end_s, label in ((5.0, "walking"), (6.0, "lying"), (7.0, "lying")):
        page.show(moment(end_s, label), None)
    window = watcher.until("moment", lambda m: m["windows"] == 3)["window"]
    watcher.close()
    assert (window["at_s"], window["since_s"]) == (7.0, 6.0)


@pytest.mark.parametrize("label", ["unknown", "not worn", None])
def test_what_is_no_activity_is_marked(page: LivePage, label: str | None) -> None:
    watcher = Watcher(page)
    page.show(moment(5.0, label, valid=label is not None), None)
    window = watcher.until("moment", lambda m: m["windows"] == 1)["window"]
    watcher.close()
    assert window["is_none"] is True
    if label is None:
        assert window["why_not"] == "40% of the window is missing (limit 20%)"
        assert window["scores"] == []


def test_of_many_labels_the_best_are_shown() -> None:
    page = make_page(labels=tuple(f"label {i}" for i in range(9)))
    watcher = Watcher(page)
    page.show(moment(5.0), None)
    window = watcher.until("moment", lambda m: m["windows"] == 1)["window"]
    watcher.close()
    page.close()
    assert [label for label, _ in window["scores"]] == list(LABELS)


def test_the_last_events_are_kept(page: LivePage) -> None:
    watcher = Watcher(page)
    n = serve.RECENT_EVENTS + 3
    for number in range(1, n + 1):
        page.show(moment(number, "lying", (event(number, "lying", number, number, True),)), None)
    events = watcher.until("moment", lambda m: m["windows"] == n)["events"]
    watcher.close()
    assert len(events) == serve.RECENT_EVENTS
    assert events[0]["start_s"] - events[-1]["start_s"] == serve.RECENT_EVENTS - 1


def test_the_end_is_told_to_who_watches() -> None:
    page = make_page()
    watcher = Watcher(page)
    page.show(moment(5.0, "walking", (event(1, "walking", 0.0, 5.0, False),)), None)
    watcher.until("moment", lambda m: m["windows"] == 1)
    page.finish((event(1, "walking", 0.0, 5.5, True),))
    page.close()
    *_, last = (message for kind, message in watcher.messages() if kind == "moment")
    watcher.close()
    assert last["is_over"] is True
    assert last["events"][0]["ended"] is True and last["events"][0]["end_s"] == 5.5
    with pytest.raises(ConnectionRefusedError):
        get(page)


def test_the_link_is_asked_for_only_while_somebody_watches() -> None:
    asked: list[bool] = []

    def report() -> LinkReport:
        asked.append(True)
        return REPORT

    page = make_page(report=report)
    page.show(moment(5.0), None)
    assert not asked
    watcher = Watcher(page)
    page.show(moment(6.0), None)
    page.show(moment(7.0), None)
    link = watcher.until("moment", lambda m: m["windows"] == 3)["link"]
    watcher.close()
    page.close()
    assert len(asked) == 1, "at most once a second"
    assert link["streams"] == [
        {
            "kind": "imu",
            "rate_hz": 52.07,
            "drift_ppm": -31.4,
            "lost": 20,
            "lost_fraction": 0.02,
            "lag_p50_s": 0.012,
            "lag_p95_s": 0.0345,
        }
    ]
    assert (link["reconnects"], link["stalls"], link["unpaired"]) == (1, 2, 7)


def test_samples_pass_unchanged_and_the_last_seconds_are_shown(page: LivePage) -> None:
    whole = walk(12, 50)
    chunks = [whole[i : i + 20] for i in range(0, len(whole), 20)]
    watcher = Watcher(page)
    passed = list(page.passing(chunks))
    assert all(a is b for a, b in zip(passed, chunks, strict=True))
    signal = watcher.until("signal", lambda m: len(m["t_s"]) > 240)
    watcher.close()
    last = whole[-len(signal["t_s"]) :]
    assert signal["t_s"][0] == pytest.approx(-serve.SIGNAL_S, abs=0.03) and signal["t_s"][-1] == 0
    np.testing.assert_allclose(np.transpose(signal["acc_mps2"]), last.acc_mps2, atol=0.006)
    assert last.gyro_rads is not None
    np.testing.assert_allclose(np.transpose(signal["gyro_rads"]), last.gyro_rads, atol=0.0006)


def test_a_fast_signal_is_thinned_to_means() -> None:
    signal = serve._Signal()
    whole = walk(20, 1000)
    for start in range(0, len(whole), 333):
        signal.keep(whole[start : start + 333])
    message = signal.message()
    assert 240 <= len(message["t_s"]) <= 260
    step = 20
    x = whole.acc_mps2[: len(whole) // step * step, 0].reshape(-1, step).mean(axis=1).round(2)
    shown = message["acc_mps2"][0]
    assert shown == x[-len(shown) :].tolist(), "a point is the mean of the same samples each time"


def test_signals_that_are_odd_are_shown_as_what_they_are() -> None:
    signal = serve._Signal()
    assert signal.message()["t_s"] == []
    odd = without(walk(4, 50), 1.0, 2.0)
    odd.acc_mps2[3, 1], odd.acc_mps2[4, 1] = np.nan, np.inf
    signal.keep(Samples(odd.t_s, odd.acc_mps2, None))
    signal.keep(odd[:0])
    message = signal.message()
    json.dumps(message, allow_nan=False)
    assert message["acc_mps2"][1][3:5] == [None, None]
    assert message["gyro_rads"] is None
    assert np.diff(message["t_s"]).max() == pytest.approx(1.02, abs=0.01), "a gap stays one"


def test_what_is_kept_of_a_signal_is_bounded() -> None:
    signal = serve._Signal()
    still = Samples(np.zeros(3000), np.zeros((3000, 3)), None)  # a clock that stands still
    for _ in range(20):
        signal.keep(still)
    assert sum(map(len, signal._chunks)) <= serve._MAX_SAMPLES
    signal.keep(walk(300, 200))  # a replay's large chunk
    assert len(signal.message()["t_s"]) <= 260
    signal.keep(walk(1, 50).shifted(1e6))
    assert sum(map(len, signal._chunks)) == 50, "what is old is forgotten"


def test_a_stuck_browser_is_dropped_and_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve._Handler.timeout, "else nobody is ever dropped"
    monkeypatch.setattr(serve, "_FRAME_S", 0.001)
    monkeypatch.setattr(serve._Handler, "timeout", 0.5)
    page = make_page()
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect(("127.0.0.1", port_of(page)))
    stuck.sendall(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
    wait_for(lambda: page._board.watchers == 1)
    whole = walk(5, 200)
    shift_s = 0.0

    def goes_on() -> bool:
        nonlocal shift_s
        shift_s += 5.0
        list(page.passing([whole.shifted(shift_s)]))
        page.show(moment(shift_s), None)
        return page._board.watchers == 0

    wait_for(goes_on)
    stuck.close()
    page.close()


def test_only_so_many_may_watch(page: LivePage) -> None:
    watchers = [Watcher(page) for _ in range(serve.MAX_WATCHERS)]
    assert {w.status for w in watchers} == {200}
    assert get(page, "/events")[0] == 503
    assert get(page)[0] == 200, "the page itself still comes"
    watchers[0].close()
    wait_for(lambda: page._board.watchers < serve.MAX_WATCHERS)
    another = Watcher(page)
    assert another.status == 200
    for watcher in [*watchers[1:], another]:
        watcher.close()


def test_idle_connections_are_bounded(page: LivePage) -> None:
    address = ("127.0.0.1", port_of(page))
    idle = [socket.create_connection(address) for _ in range(serve._MAX_CONNECTIONS)]
    with socket.create_connection(address, timeout=PATIENCE_S) as one_more:
        assert one_more.recv(1) == b"", "closed at once"
    for connection in idle:
        connection.close()

    def is_served() -> bool:
        try:
            return get(page)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    wait_for(is_served)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8377", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:9000", 200),  # a tunnel's port
        ("[::1]:8377", 200),
        ("evil.example", 421),
        ("evil.example:8377", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:8377", 421),
        ("", 421),
    ],
)
def test_foreign_names_are_not_answered(page: LivePage, host: str, status: int) -> None:
    for path in ("/", "/page.js"):
        assert get(page, path, Host=host)[0] == status
    if status != 200:
        assert get(page, "/events", Host=host)[0] == status


def test_this_machines_name_is_known_in_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_own_name", lambda: "Kitchen.lan")
    said: list[str] = []
    page = make_page("0.0.0.0:0", say=said.append)
    try:
        assert said == [
            f"live page: http://Kitchen.lan:{port_of(page)}/ (without a password: everybody who "
            "reaches this machine's network can watch)"
        ]
        assert get(page, Host="kitchen.lan:80")[0] == 200
        assert get(page, Host="kitchen.local")[0] == 200
        assert get(page, Host="evil.example")[0] == 421
    finally:
        page.close()


def test_pages_of_other_sites_get_nothing(page: LivePage) -> None:
    for site in ("cross-site", "same-site"):
        assert get(page, "/events", Sec_Fetch_Site=site)[0] == 403
        assert get(page, "/page.js", Sec_Fetch_Site=site)[0] == 403
    assert get(page, "/", Sec_Fetch_Site="cross-site")[0] == 200, "a link to the page is fine"
    assert page._board.watchers == 0


@pytest.mark.parametrize("path", ["/nowhere", "/../serve.py", "/index.html/", "/%2e%2e/serve.py"])
def test_nothing_else_is_served(page: LivePage, path: str) -> None:
    assert get(page, path)[0] == 404


def test_headers_forbid_what_the_page_does_not_need(page: LivePage) -> None:
    status, headers, content = get(page, "/?a=b")
    assert status == 200 and content.startswith(b"<!doctype html>")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    assert "Python" not in headers["Server"]


def test_it_listens_to_this_machine_and_to_a_free_port() -> None:
    said: list[str] = []
    first = make_page("", say=said.append)
    second = make_page("", say=said.append)
    try:
        assert all(u.startswith("http://127.0.0.1:") for u in (first.url, second.url))
        assert port_of(first) != port_of(second)
        assert said[1] == f"live page: {second.url} (this machine only)"
        with pytest.raises(InputError, match=r"cannot listen there \(Address already in use\)"):
            make_page(str(port_of(first)))
    finally:
        first.close()
        second.close()


def test_it_listens_to_ipv6() -> None:
    try:
        page = make_page("[::1]:0")
    except InputError:
        pytest.skip("no IPv6 here")
    connection = http.client.HTTPConnection("::1", port_of(page), timeout=PATIENCE_S)
    connection.request("GET", "/")
    assert page.url == f"http://[::1]:{port_of(page)}/"
    assert connection.getresponse().status == 200
    connection.close()
    page.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("127.0.0.1", None)),
        ("8000", ("127.0.0.1", 8000)),
        ("0.0.0.0:8000", ("0.0.0.0", 8000)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:8000", ("::1", 8000)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int | None]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["localhost", "70000", ":8000", "::1:8000", "a:b", "-1", "²"])
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is no \[ADDRESS:\]PORT; for example"):
        parse_address(text)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InputError, match=r"--serve 192\.0\.2\.1:0: cannot listen there"):
        make_page("192.0.2.1:0")
    with pytest.raises(InputError, match=r"--serve no\.such\.invalid:0: cannot listen there"):
        make_page("no.such.invalid:0")


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_read(page: LivePage, scheme: int) -> None:
    """WCAG 2.1 AA: text 4.5 to 1, what is drawn 3 to 1."""
    roots = re.findall(r":root \{(.*?)\}", get(page, "/style.css")[2].decode(), re.DOTALL)
    colour = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", roots[scheme]))

    def contrast(ink: str, paper: str) -> float:
        low, high = sorted((luminance(colour[ink]), luminance(colour[paper])))
        return (high + 0.05) / (low + 0.05)

    for ink in ("ink", "soft", "warn"):
        assert contrast(ink, "page") >= 4.5 and contrast(ink, "card") >= 4.5, ink
    for axis in ("x", "y", "z"):
        assert contrast(axis, "card") >= 4.5, "the legend"
        assert contrast(axis, "track") >= 3, "the line"
    assert contrast("accent", "track") >= 3


# The page in a browser.


class Browser:
    """Headless Chromium and what a person sees in it."""

    def __init__(self, folder: str) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

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
            "--window-size=1200,900",
            f"--user-data-dir={folder}",
        ):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))

    def js(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)

    def text(self, selector: str) -> str:
        return str(self.driver.find_element("css selector", selector).text)

    def texts(self, selector: str) -> list[str]:
        return [e.text for e in self.driver.find_elements("css selector", selector)]

    def wait_for_window(self, number: int) -> None:
        wait_for(lambda: self.text("#window").startswith(f"Window {number},"))


@pytest.fixture(scope="module")
def started_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    pytest.importorskip("selenium", reason="selenium is not installed (pip install '.[dev]')")
    if not CHROMIUM or not DRIVER:
        pytest.skip("no chromium and chromedriver on the PATH")
    browser = Browser(str(tmp_path_factory.mktemp("chromium")))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(started_browser: Browser) -> Iterator[Browser]:
    """With an empty log before and after: no error, nothing that the page's policy forbids."""
    started_browser.driver.get_log("browser")
    yield started_browser
    assert started_browser.driver.get_log("browser") == []
    started_browser.driver.get("about:blank")


def test_a_replayed_recording_is_seen(browser: Browser, bundle: Bundle, page: LivePage) -> None:
    browser.driver.get(page.url)
    wait_for(lambda: browser.text("#status") == "Waiting for the first samples")
    pipeline = Pipeline(bundle, resolve_labels(list(LABELS), bundle), placement="waist")
    recording = open_recording(RECORDING)
    rows = (s[i : i + 20] for s in recording.chunks for i in range(0, len(s), 20))
    said: list[Moment] = []
    t_s, acc = np.empty(0), np.empty((0, 3))
    for samples in page.passing(rows):
        t_s, acc = np.append(t_s, samples.t_s), np.vstack([acc, samples.acc_mps2])
        for prediction in pipeline.push(samples):
            assert prediction.best
            said.append(Moment(prediction, prediction.best.label, prediction.best.probability))
            page.show(said[-1], "walking")
        if len(said) == 30:
            break
    browser.wait_for_window(30)
    last = said[-1].prediction
    assert last.best and last.posterior is not None
    assert browser.text("#status") == "Live"
    assert browser.text("#title") == "ble:Polar <Sense>"
    assert browser.text("#label") == last.best.label
    assert browser.text("#truth") == "truth: walking"
    percent = f"confidence {100 * last.best.probability:.0f} %"
    assert browser.text("#said").startswith(percent)
    assert browser.texts("#scores li span:first-child") == list(LABELS), "always in one order"
    shown = [float(t.strip("<% ")) for t in browser.texts("#scores li span:nth-child(2)")]
    assert shown == pytest.approx(100 * last.posterior, abs=0.51)
    assert browser.text("#scores li.best span") == last.best.label
    widths = browser.js(
        "return [...document.querySelectorAll('.fill')].map((e) => parseFloat(e.style.width))"
    )
    assert widths == pytest.approx(100 * last.posterior, abs=0.01)
    told = "return document.querySelector('#acc svg').getAttribute('aria-label')"
    recent = acc[t_s >= t_s[-1] - serve.SIGNAL_S]
    ranges = ", ".join(
        f"{axis} {low:.1f} to {high:.1f}"
        for axis, low, high in zip("xyz", recent.min(axis=0), recent.max(axis=0), strict=True)
    )
    expected = f"Acceleration in the last 5 s in m/s²: {ranges}".replace("-0.0 ", "0.0 ")
    wait_for(lambda: browser.js(told).replace("-0.0 ", "0.0 ") == expected)
    points = browser.js(
        "return [...document.querySelectorAll('#acc path.x, #gyro path.z')]"
        ".map((p) => p.getAttribute('d').split(/[ML]/).length - 1)"
    )
    assert points == [len(recent), len(recent)]
    assert not browser.driver.find_element("id", "link").is_displayed()
    assert not browser.driver.find_element("id", "events").is_displayed()


def test_events_and_the_link_are_seen(browser: Browser) -> None:
    page = make_page(report=lambda: REPORT)
    browser.driver.get(page.url)
    wait_for(lambda: page._board.watchers)
    began = event(1, "walking", 0.0, 66.4, True), event(2, "sitting", 66.4, 70.0, False)
    page.show(moment(5.0, "walking"), None)
    page.show(moment(70.0, "sitting", began), None)
    browser.wait_for_window(2)
    assert browser.text("#said") == "confidence 81 % · since 1:06.4, for 4 s"
    rows = browser.texts("#events tbody tr")
    assert rows == ["sitting 1:06.4 4 s so far 75 %", "walking 0:00.0 1 min 6 s 75 %"]
    assert browser.texts("#link tbody tr") == ["imu 52.07 Hz -31 ppm 2.00 % (20) 12 ms 35 ms"]
    assert browser.text("#details") == "52 Hz, 6 axes"
    assert browser.texts("#remarks li") == [
        "connected anew once",
        "fell silent while connected 2 times",
        "7 samples left out: no gyroscope beside them",
    ]
    assert not browser.driver.find_element("id", "truth").is_displayed()
    page.finish((began[1]._replace(ended=True),))
    page.close()
    wait_for(lambda: browser.text("#status") == "The run has ended")
    assert browser.texts("#events tbody tr")[0] == "sitting 1:06.4 4 s 75 %"


def test_what_was_not_classified_says_why(browser: Browser, page: LivePage) -> None:
    browser.driver.get(page.url)
    page.show(moment(5.0, None, valid=False), None)
    browser.wait_for_window(1)
    assert browser.text("#label") == "no label"
    assert browser.text("#why-not") == "40% of the window is missing (limit 20%)"
    assert browser.texts("#scores li") == []
    page.show(moment(6.0, "not worn"), None)
    browser.wait_for_window(2)
    assert browser.text("#label") == "not worn"
    assert browser.driver.find_element("id", "label").get_attribute("class") == "none"
    assert not browser.driver.find_element("id", "why-not").is_displayed()


def test_a_label_is_text_whatever_it_holds(browser: Browser) -> None:
    evil = "<img src=x onerror=\"document.title='broken'\">"
    page = make_page(labels=(evil, "sitting", "lying"))
    browser.driver.get(page.url)
    page.show(moment(5.0, evil, (event(1, evil, 0, 5, False),)), evil)
    browser.wait_for_window(1)
    assert browser.text("#label") == evil
    assert browser.texts("#scores li span:first-child")[0] == evil
    assert browser.texts("#events td")[0] == evil
    assert browser.driver.find_elements("css selector", "main img") == []
    page.close()


def test_a_silent_device_and_a_gone_server_are_seen(browser: Browser) -> None:
    page = make_page()
    browser.driver.get(page.url)
    list(page.passing([walk(5, 50)]))
    wait_for(lambda: browser.text("#status") == "Live")
    wait_for(lambda: browser.text("#status").startswith("Nothing has come for "))
    list(page.passing([walk(1, 50).shifted(9)]))
    wait_for(lambda: browser.text("#status") == "Live")
    gaps = browser.js(
        "return document.querySelector('#acc path.x').getAttribute('d').split('M').length - 1"
    )
    assert gaps == 2, "nothing is drawn across a gap"
    page._board.close(5)  # as if the program had been killed: nothing is said any more
    wait_for(lambda: browser.text("#status") == "No connection to edge-run; trying again")
    browser.driver.get_log("browser")  # holds that failed connection
    browser.driver.get("about:blank")
    page.close()


def test_a_hidden_page_lets_go_of_its_connection(browser: Browser, page: LivePage) -> None:
    browser.driver.get(page.url)
    wait_for(lambda: page._board.watchers == 1)
    hide = (
        "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'));"
    )
    browser.js(hide, True)
    wait_for(lambda: page._board.watchers == 0)
    page.show(moment(5.0, "lying"), None)
    browser.js(hide, False)
    browser.wait_for_window(1)
    assert browser.text("#label") == "lying"


@pytest.mark.parametrize("width", [320, 390, 800])
def test_nothing_sticks_out_on_a_phone(browser: Browser, width: int) -> None:
    page = make_page(report=lambda: REPORT)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.driver.get(page.url)
        wait_for(lambda: page._board.watchers)
        list(page.passing([walk(5, 50)]))
        long = "donaudampfschifffahrtskapitänsmützenträger und mehr"
        page.show(moment(5.0, long, (event(1, long, 0, 5, False),)), None)
        browser.wait_for_window(1)
        assert browser.js("return document.documentElement.scrollWidth") <= width
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.close()
