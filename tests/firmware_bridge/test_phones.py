"""Phones over the network, on loopback: a phyphox and a Sensor Logger made here.

The phyphox answers as RemoteServer.java does (thresholds, eight digits); the messages of Sensor
Logger have the form of published ones.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.link import Decoder, Kind, Packet
from firmware_bridge.live import Inbox, LiveSource, Run
from firmware_bridge.phones import phyphox, push, sensor_logger
from firmware_bridge.phones.network import Address
from firmware_bridge.phones.phyphox import (
    PhyphoxDecoder,
    experiment_of,
    phyphox_address,
    run_phyphox,
)
from firmware_bridge.phones.push import run_sensor_logger, sensor_logger_address
from firmware_bridge.phones.sensor_logger import Message, SensorLoggerDecoder, message_of
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2, Samples
from tests.firmware_bridge.fuzz import EXAMPLES

G = STANDARD_GRAVITY_MPS2
PATIENCE_S = 60.0
"""After which a test gives up instead of hanging."""


def wait_for(condition: Callable[[], object]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "nothing happened"
        time.sleep(0.002)


class Noted(Inbox):
    """An inbox that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.connections_made: list[tuple[frozenset[Kind], str]] = []
        self.segments: list[list[Packet]] = []
        self.losses = 0
        self.all_decoders: list[Decoder] = []

    def opened(
        self,
        kinds: Iterable[Kind],
        nominal_hz: float,
        decoders: Mapping[str, Decoder],
        details: str = "",
    ) -> None:
        super().opened(kinds, nominal_hz, decoders, details)
        self.connections_made.append((frozenset(kinds), details))
        self.segments.append([])
        self.all_decoders += decoders.values()

    def deliver(self, packets: list[Packet], arrival_s: float | None = None) -> None:
        super().deliver(packets, arrival_s)
        self.segments[-1] += packets

    def lost(self) -> None:
        super().lost()
        self.losses += 1

    def rows(self, kind: Kind, segment: int | None = None) -> np.ndarray:
        """(n, 4): time and values."""
        segments = self.segments if segment is None else [self.segments[segment]]
        found = [
            np.column_stack([p.device_s, p.values])
            for packets in segments
            for p in packets
            if p.kind == kind and p.device_s is not None
        ]
        return np.concatenate(found) if found else np.empty((0, 4))


class Running:
    """A link in its thread."""

    def __init__(self, run: Run) -> None:
        self.inbox = Noted()
        self.said: list[str] = []
        self.error: Exception | None = None
        self._run = run
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._run(self.inbox)
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        self.inbox.stop()
        self.join()

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@contextmanager
def running(run: Callable[[Inbox, Callable[[str], None]], None]) -> Iterator[Running]:
    said: list[str] = []
    link = Running(lambda inbox: run(inbox, said.append))
    link.said = said
    try:
        yield link
    finally:
        link.stop()


def signal(n: int, rate_hz: float, seed: int) -> np.ndarray:
    """(n, 4): seconds from 0.5 on, and values."""
    rng = np.random.default_rng(seed)
    return np.column_stack([0.5 + np.arange(n) / rate_hz, rng.normal(0, 3, (n, 3))])


# --- phyphox --------------------------------------------------------------------------------------

BOTH = {
    "accelerometer": {"t": "acc_time", "x": "accX", "y": "accY", "z": "accZ"},
    "gyroscope": {"t": "gyr_time", "x": "gyrX", "y": "gyrY", "z": "gyrZ"},
}
PREFIX = {"acc": "acc", "gyro": "gyr"}


def config(sources: Mapping[str, Mapping[str, str]] = BOTH) -> dict[str, Any]:
    """What /config answers: one object a component (RemoteServer.handleConfig)."""
    return {
        "crc32": "44c5dc97",
        "title": "My experiment",
        "inputs": [
            {"source": source, "outputs": [{c: name} for c, name in outputs.items()]}
            for source, outputs in sources.items()
        ]
        + [{"source": "bluetooth"}],
    }


def eight_digits(value: float) -> float | None:
    return float(f"{value:.7e}") if math.isfinite(value) else None


class FakePhyphox:
    """A phone that measures a little more with every poll for data.

    Args:
        streams: by kind, (n, 4) of which `step` rows come at a time.
    """

    def __init__(self, streams: Mapping[str, np.ndarray], step: int = 20) -> None:
        self.streams, self.step = dict(streams), step
        self.config: object = config()
        self.shown = 0  # rows in the buffers
        self.first = 0  # since the last clear
        self.measuring = False
        self.starts = True
        self.session = "0a1b2c"
        self.full_once = False
        self.commands: list[str] = []
        self.polls = 0
        self.garble: Callable[[int, bytes], bytes] = lambda poll, body: body
        self.status: Callable[[int], int] = lambda poll: 200
        self.lock = threading.Lock()
        self.port = 0
        self.server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    def __enter__(self) -> FakePhyphox:
        phone = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                status, body = phone.answer(
                    url.path, dict(parse_qsl(url.query, keep_blank_values=True))
                )
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()

    def clear(self) -> None:
        with self.lock:
            self.first, self.full_once = self.shown, True
            for rows in self.streams.values():
                rows[self.shown :, 0] -= rows[self.shown, 0] - 0.01

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        with self.lock:
            if path == "/config":
                return 200, json.dumps(self.config).encode()
            if path == "/control":
                self.commands.append(query["cmd"])
                self.measuring = query["cmd"] == "start" and self.starts
                return 200, json.dumps({"result": self.starts}).encode()
            assert path == "/get"
            return self.get(query)

    def get(self, query: dict[str, str]) -> tuple[int, bytes]:
        self.polls += 1
        if (status := self.status(self.polls)) != 200:
            return status, b"{}"
        if self.measuring and any(query.values()):
            self.shown += self.step
        full, self.full_once = self.full_once, False
        buffers = {
            name: self.buffer(name, "full" if full and value else value)
            for name, value in query.items()
        }
        state = {"session": self.session, "measuring": self.measuring, "timedRun": False}
        body = json.dumps({"buffer": buffers, "status": {**state, "countDown": 0}}).encode()
        return 200, self.garble(self.polls, body)

    def column(self, name: str) -> np.ndarray:
        kind = next(k for k, prefix in PREFIX.items() if name.startswith(prefix))
        index = {"_time": 0, "X": 1, "Y": 2, "Z": 3}[name.removeprefix(PREFIX[kind])]
        return self.streams[kind][self.first : self.shown, index]

    def buffer(self, name: str, value: str) -> dict[str, Any]:
        column = self.column(name)
        if not value:
            last = [eight_digits(column[-1])] if len(column) else [None]
            return {"size": 0, "updateMode": "single", "buffer": last}
        if value == "full":
            mode, keep = "full", np.ones(len(column), bool)
        else:
            threshold, _, reference = value.partition("|")
            limit = float(threshold)
            assert limit >= 0  # a negative one is NaN to older iPhones
            if limit:
                limit += 10 ** math.floor(math.log10(limit / 1e7))
            mode, keep = "partial", self.column(reference) > limit
        shown = [eight_digits(v) for v in column[keep]]
        return {"size": 0, "updateMode": mode, "buffer": shown}


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls and retries without waiting."""
    monkeypatch.setattr(phyphox, "POLL_S", 0.001)
    monkeypatch.setattr(phyphox, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(push, "_TICK_S", 0.005)


def both(n: int = 4000) -> dict[str, np.ndarray]:
    return {"acc": signal(n, 202.0, 1), "gyro": signal(n, 199.0, 2)}


def rounded(rows: np.ndarray) -> np.ndarray:
    return np.array([[eight_digits(v) for v in row] for row in rows])


@pytest.mark.usefixtures("fast")
def test_phyphox_brings_every_sample_once() -> None:
    streams = both()
    with FakePhyphox(streams) as phone:
        phone.shown = 100  # what was measured before is of no interest
        with running(lambda inbox, say: run_phyphox(phone.address, inbox, say)) as link:
            wait_for(lambda: len(link.inbox.rows("gyro")) >= 1500)
    assert link.error is None
    assert link.inbox.connections_made == [
        ({"acc", "gyro"}, "phyphox, experiment 'My experiment': accelerometer, gyroscope")
    ]
    for kind in ("acc", "gyro"):
        rows = link.inbox.rows(kind)
        np.testing.assert_array_equal(rows, rounded(streams[kind][100 : 100 + len(rows)]))
    assert phone.commands == ["start", "stop"]
    assert link.inbox.counts() == {"phyphox": Counter()}


@pytest.mark.usefixtures("fast")
def test_a_measurement_that_runs_is_left_running() -> None:
    with FakePhyphox(both()) as phone:
        phone.measuring = True
        with running(lambda inbox, say: run_phyphox(phone.address, inbox, say)) as link:
            wait_for(lambda: len(link.inbox.rows("acc")) > 100)
    assert phone.commands == [] and phone.measuring


@pytest.mark.usefixtures("fast")
def test_failed_and_garbled_polls_lose_nothing() -> None:
    """Each third poll fails or is cut off; the next one brings what it did not."""
    streams = both()
    with FakePhyphox(streams) as phone:
        phone.status = lambda poll: 503 if poll % 3 == 2 and poll > 2 else 200
        phone.garble = lambda poll, body: body[: len(body) // 2] if poll % 7 == 6 else body
        with running(lambda inbox, say: run_phyphox(phone.address, inbox, say)) as link:
            wait_for(lambda: len(link.inbox.rows("acc")) >= 1500)
    assert len(link.inbox.segments) == 1 and link.inbox.losses == 1  # the end
    for kind in ("acc", "gyro"):
        rows = link.inbox.rows(kind)
        np.testing.assert_array_equal(rows, rounded(streams[kind][: len(rows)]))
    assert link.inbox.counts()["phyphox"]["malformed"] > 3


@pytest.mark.usefixtures("fast")
def test_a_phone_that_goes_away_and_comes_back() -> None:
    streams = both(20_000)
    phone = FakePhyphox(streams)
    with phone:
        address = phone.address
    with pytest.raises(AuraError, match="Allow remote access"):  # never there: ends
        run_phyphox(address, Noted(), print)
    with running(lambda inbox, say: run_phyphox(started(phone).address, inbox, say)) as link:
        wait_for(lambda: len(link.inbox.rows("acc")) >= 200)
        phone.__exit__()
        wait_for(lambda: any("does not answer" in said for said in link.said))
        assert link.inbox.losses and any("trying again in" in said for said in link.said)
        phone.shown += 500  # measured while it was away
        with phone:
            wait_for(lambda: len(link.inbox.segments) == 2)
            wait_for(lambda: len(link.inbox.rows("acc", 1)) >= 200)
            link.stop()
    assert link.error is None
    first, second = link.inbox.rows("acc", 0), link.inbox.rows("acc", 1)
    np.testing.assert_array_equal(first, rounded(streams["acc"][: len(first)]))
    start = int(np.searchsorted(streams["acc"][:, 0], second[0, 0] - 1e-6))
    assert start >= len(first) + 500
    np.testing.assert_array_equal(second, rounded(streams["acc"][start : start + len(second)]))


def started(phone: FakePhyphox) -> FakePhyphox:
    return phone.__enter__()


@pytest.mark.usefixtures("fast")
def test_a_pause_on_the_phone_is_a_gap() -> None:
    with FakePhyphox(both(20_000)) as phone:
        with running(lambda inbox, say: run_phyphox(phone.address, inbox, say)) as link:
            wait_for(lambda: len(link.inbox.rows("acc")) >= 100)
            phone.measuring = False
            wait_for(lambda: any("paused" in said for said in link.said))
            assert link.inbox.losses == 1
            phone.measuring = True
            wait_for(lambda: len(link.inbox.segments) == 2 and link.inbox.segments[1])
        rows = link.inbox.rows("acc")
        np.testing.assert_array_equal(rows, rounded(phone.streams["acc"][: len(rows)]))


@pytest.mark.usefixtures("fast")
def test_a_phone_that_does_not_start_asks_for_a_finger() -> None:
    with FakePhyphox(both()) as phone:
        phone.starts = False
        with running(lambda inbox, say: run_phyphox(phone.address, inbox, say)) as link:
            wait_for(lambda: any("press play" in said for said in link.said))
            wait_for(lambda: phone.polls > 5)
            assert not link.inbox.segments
            phone.measuring = True
            wait_for(lambda: len(link.inbox.segments) == 1 and link.inbox.segments[0])
    assert phone.commands == ["start"]  # what was not started here is not stopped


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("says_full", [True, False])
def test_cleared_buffers_begin_anew(says_full: bool) -> None:
    """Android answers with everything then; if another client got that answer, with nothing."""
    streams = both(20_000)
    with FakePhyphox(streams) as phone:
        with running(lambda inbox, say: run_phyphox(phone.address, inbox, say)) as link:
            wait_for(lambda: len(link.inbox.rows("acc")) >= 1000)
            phone.clear()
            phone.full_once = says_full
            for kind in ("acc", "gyro"):
                wait_for(lambda k=kind: np.diff(link.inbox.rows(k)[:, 0]).min() < 0)
        rows = link.inbox.rows("acc")
    back = int(np.argmin(np.diff(rows[:, 0])))
    assert rows[back, 0] > 4 and rows[back + 1, 0] < 0.2
    np.testing.assert_array_equal(rows[:, 1:], rounded(streams["acc"][: len(rows), 1:]))


@pytest.mark.usefixtures("fast")
def test_another_experiment_is_looked_at_anew() -> None:
    with (
        FakePhyphox(both(20_000)) as phone,
        running(lambda inbox, say: run_phyphox(phone.address, inbox, say)) as link,
    ):
        wait_for(lambda: len(link.inbox.rows("acc")) >= 100)
        with phone.lock:
            phone.session = "ffffff"
            phone.config = config({"linear_acceleration": BOTH["accelerometer"]})
        link.join()
    assert isinstance(link.error, AuraError) and "without gravity" in str(link.error)
    assert any("another experiment" in said for said in link.said)


@pytest.mark.usefixtures("fast")
def test_an_accelerometer_alone_will_do() -> None:
    with FakePhyphox({"acc": signal(4000, 100, 3)}) as phone:
        phone.config = config({"accelerometer": BOTH["accelerometer"]})
        with running(lambda inbox, say: run_phyphox(phone.address, inbox, say)) as link:
            wait_for(lambda: len(link.inbox.rows("acc")) >= 100)
    assert link.inbox.connections_made[0][0] == {"acc"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (config({"linear_acceleration": BOTH["accelerometer"]}), "without gravity.*Gyroscope"),
        (config({"gyroscope": BOTH["gyroscope"]}), "no accelerometer"),
        (config({"accelerometer": {"t": "t", "x": "x"}}), "no accelerometer"),
        ({"inputs": None}, "not phyphox"),
        ([], "not phyphox"),
        ({"inputs": [1, None, {"source": [], "outputs": {}}]}, "no accelerometer"),
    ],
)
def test_experiments_that_cannot_be_used(answer: object, message: str) -> None:
    with pytest.raises(AuraError, match=message):
        experiment_of(json.dumps(answer).encode())


@pytest.mark.usefixtures("fast")
def test_neither_redirections_nor_endless_answers_are_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakePhyphox(both()) as phone:
        phone.status = lambda poll: 302
        with pytest.raises(AuraError, match="answers 302"):
            run_phyphox(phone.address, Noted(), print)
        phone.config = {"filler": "x" * 100_000}
        monkeypatch.setattr(phyphox, "MAX_ANSWER_BYTES", 50_000)
        with pytest.raises(AuraError, match="without end"):
            run_phyphox(phone.address, Noted(), print)


def decoder() -> PhyphoxDecoder:
    return PhyphoxDecoder(experiment_of(json.dumps(config()).encode()))


def answer(mode: str = "partial", **buffers: object) -> bytes:
    content = {name: {"size": 0, "updateMode": mode, "buffer": b} for name, b in buffers.items()}
    return json.dumps({"buffer": content, "status": {"measuring": True, "session": "s"}}).encode()


def test_what_is_asked_for() -> None:
    one = decoder()
    assert one.query() == "acc_time=&gyr_time="
    assert one.feed(answer("single", acc_time=[12.5], gyr_time=[None])) == []
    query = one.query()
    assert "accX=12.5%7Cacc_time" in query and "gyrZ=0.0%7Cgyr_time" in query
    assert dict(parse_qsl(query))["acc_time"] == "12.5|acc_time"


def test_rows_without_numbers_are_left_out_and_counted() -> None:
    one = decoder()
    one.feed(answer("single", acc_time=[0.0], gyr_time=[0.0]))
    gyro: dict[str, object] = {name: [] for name in BOTH["gyroscope"].values()}
    packets = one.feed(
        answer(
            acc_time=[1.0, 2.0, None, 2.0, 3.0, 4.0],
            accX=[1, 2, 3, 4, None, 6], accY=[1, 2, 3, 4, 5, 6], accZ=[1, 2, 3, 4, 5], **gyro,
        )
    )  # fmt: skip
    assert [p.kind for p in packets] == ["acc"]
    np.testing.assert_array_equal(packets[0].device_s, [1, 2])
    assert one.counts == {"not a number": 2, "not later": 1}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["acc_time", "full", "accelerometer", "", "test"]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(
                ["buffer", "status", "acc_time", "accX", "accY", "accZ", "updateMode", "payload",
                 "messageId", "sessionId", "deviceId", "name", "time", "values", "x", "y", "z"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)  # fmt: skip


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(), max_size=4))
def test_no_answer_of_phyphox_raises(answers: list[bytes]) -> None:
    one = decoder()
    for data in answers:
        one.feed(data)
        assert one.query()


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.dictionaries(
        st.sampled_from(["acc_time", "accX", "accY", "accZ", "gyr_time"]),
        st.lists(st.none() | st.floats() | st.integers(), max_size=6) | st.just("x"),
    ),
    st.sampled_from(["full", "partial", "single"]),
)
def test_no_buffer_of_phyphox_raises(buffers: dict[str, Any], mode: str) -> None:
    one = decoder()
    one.feed(answer("single", acc_time=[0.0], gyr_time=[0.0]))
    for packet in one.feed(answer(mode, **buffers)):
        assert packet.device_s is not None and (np.diff(packet.device_s) > 0).all()
        assert np.isfinite(packet.values).all() and packet.values.shape[1] == 3


def test_deep_and_huge_json_is_malformed() -> None:
    for data in (b"[" * 200_000, b'{"buffer":' * 50_000, b"9" * 10_000):
        one = decoder()
        assert one.feed(data) == [] and one.counts == {"malformed": 1}
        assert message_of(data) is None


class Reveals(FakePhyphox):
    """A phone that measures as time passes."""

    def get(self, query: dict[str, str]) -> tuple[int, bytes]:
        passed_s = time.monotonic() - self.began_s
        self.shown = int(np.searchsorted(self.streams["acc"][:, 0], passed_s))
        self.step = 0
        return super().get(query)


def test_from_the_phone_to_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through clock and merger: values interpolated at the accelerometer's times."""
    monkeypatch.setattr(phyphox, "POLL_S", 0.02)
    n = 100_000
    t_s = np.arange(n) / 200
    acc = np.column_stack([t_s, t_s, -t_s, np.full(n, G)])
    gyro = np.column_stack([t_s, t_s, 2 * t_s, np.zeros(n)])
    phone = Reveals({"acc": acc, "gyro": gyro})
    phone.began_s = time.monotonic()
    with phone:
        source = LiveSource(lambda inbox: run_phyphox(phone.address, inbox, print), print)
        parts: list[Samples] = []
        with source:
            while sum(map(len, parts)) < 200:
                parts.append(next(source))
        report = source.report()
    samples = Samples.joined(parts)
    assert samples.gyro_rads is not None
    steps_s = np.diff(samples.t_s)
    assert (steps_s > 0).all() and np.median(steps_s) == pytest.approx(1 / 200, rel=0.05)
    # Two clocks, each right to its quickest poll: at the same time the same second is measured.
    np.testing.assert_allclose(samples.gyro_rads[:, 0], samples.acc_mps2[:, 0], atol=0.2)
    np.testing.assert_allclose(samples.acc_mps2[:, 2], G)
    assert report.reconnects == 0 and report.streams["acc"].lost == 0


# --- Sensor Logger --------------------------------------------------------------------------------

EPOCH_NS = 1_698_501_144_401_773_000


def reading(name: str, t_s: float, values: Iterable[float]) -> dict[str, Any]:
    """As an Android phone sends it."""
    xyz = dict(zip("xyz", map(float, values), strict=True))
    return {"name": name, "values": xyz, "accuracy": 3, "time": EPOCH_NS + round(t_s * 1e9)}


def message(
    index: int, streams: Mapping[str, np.ndarray], session: str = "s1", device: str = "d1"
) -> dict[str, Any]:
    """Message `index` of a recording: its second of all streams, one after another."""
    payload = [
        reading(name, row[0], row[1:])
        for name, rows in streams.items()
        for row in rows[(rows[:, 0] >= index) & (rows[:, 0] < index + 1)]
    ]
    return {"messageId": index, "sessionId": session, "deviceId": device, "payload": payload}


def encoded(content: object) -> bytes:
    return json.dumps(content).encode()


def rest(n: int, rate_hz: float, z: float, seed: int) -> np.ndarray:
    """(n, 4): a phone that lies on its back, `z` upwards; times in whole us."""
    rows = signal(n, rate_hz, seed)
    rows[:, 0] = np.round(rows[:, 0], 6)
    rows[:, 1:] *= abs(z) / 100
    rows[:, 3] += z
    return rows


ANDROID = {
    "totalacceleration": rest(1200, 100, G, 1),
    "accelerometer": rest(1200, 100, 0.001, 2),
    "gravity": rest(1200, 100, G, 3),
    "gyroscope": rest(1200, 101, 1.0, 4),
}


def fed(bodies: Iterable[object]) -> tuple[SensorLoggerDecoder, list[Packet]]:
    one = SensorLoggerDecoder()
    return one, [p for body in bodies for p in one.feed(encoded(body))]


def joined(packets: list[Packet], kind: Kind) -> np.ndarray:
    rows = [
        np.column_stack([p.device_s, p.values])
        for p in packets
        if p.kind == kind and p.device_s is not None
    ]
    return np.concatenate(rows)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """The first rows of a stream, times from the recording's first reading."""
    assert len(found) > 300
    np.testing.assert_allclose(found[:, 0], expected[: len(found), 0] - 0.5, atol=1e-9)
    np.testing.assert_allclose(found[:, 1:], expected[: len(found), 1:], rtol=1e-12, atol=1e-12)


def test_total_acceleration_and_gyroscope_of_android() -> None:
    one, packets = fed(message(i, ANDROID) for i in range(8))
    same(joined(packets, "acc"), ANDROID["totalacceleration"])
    same(joined(packets, "gyro"), ANDROID["gyroscope"])
    assert one.choice is not None and one.choice.kinds == ("acc", "gyro")
    assert not one.counts


@pytest.mark.parametrize(("factor", "unit"), [(-1 / G, "g with an iPhone's sign"), (1.0, "m/s^2")])
def test_uncalibrated_acceleration_is_told_by_its_magnitude(factor: float, unit: str) -> None:
    up = rest(1200, 100, G, 1)
    sent = up * [1, factor, factor, factor]
    one, packets = fed(message(i, {"AccelerometerUncalibrated": sent}) for i in range(8))
    same(joined(packets, "acc"), up)
    assert one.choice is not None and one.choice.unit == unit and one.choice.kinds == ("acc",)


def test_gravity_is_added_back() -> None:
    user, gravity = ANDROID["accelerometer"], rest(600, 50, G, 7)
    streams = {"accelerometer": user, "gravity": gravity, "gyroscope": ANDROID["gyroscope"]}
    one, packets = fed(message(i, streams) for i in range(8))
    expected = user.copy()
    for axis in (1, 2, 3):
        expected[:, axis] += np.interp(user[:, 0], gravity[:, 0], gravity[:, axis])
    same(joined(packets, "acc"), expected)
    assert one.choice is not None and "iPhone" in one.choice.note


def test_a_hole_in_gravity_is_a_hole() -> None:
    gravity = ANDROID["gravity"]
    gravity = gravity[(gravity[:, 0] < 4.2) | (gravity[:, 0] > 4.8)]
    one, packets = fed(
        message(i, {"accelerometer": ANDROID["accelerometer"], "gravity": gravity})
        for i in range(8)
    )
    acc = joined(packets, "acc")

    def inside(t_s: np.ndarray) -> np.ndarray:
        return (t_s > 4.195) & (t_s < 4.805)

    assert not inside(acc[:, 0] + 0.5).any()
    assert one.counts["no gravity"] == inside(ANDROID["accelerometer"][:, 0]).sum() == 61


@pytest.mark.parametrize(
    ("names", "message_"),
    [
        (["accelerometer", "gyroscope"], "without gravity only.*Gravity"),
        (["gyroscope"], "no acceleration"),
        (["gravity"], "no acceleration"),
    ],
)
def test_what_cannot_be_used_is_refused(names: list[str], message_: str) -> None:
    one, packets = fed(message(i, {name: ANDROID[name] for name in names}) for i in range(8))
    assert packets == []
    with pytest.raises(AuraError, match=message_):
        raise AuraError(one.refused)


def test_messages_out_of_order_twice_and_late() -> None:
    order = [1, 0, 2, 3, 5, 4, 4, 6, 3, 8, 7, 9]
    one, packets = fed(message(i, ANDROID) for i in order)
    same(joined(packets, "acc"), ANDROID["totalacceleration"])
    same(joined(packets, "gyro"), ANDROID["gyroscope"])
    assert len(joined(packets, "acc")) == 950
    assert one.counts == {"late": 2}


def test_a_lost_message_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensor_logger, "HELD_MESSAGES", 4)
    one = SensorLoggerDecoder()
    packets: list[Packet] = []

    def take(index: int, arrival_s: float) -> list[tuple[float, list[Packet]]]:
        return kept(one.take(read(message(index, ANDROID)), arrival_s))

    def kept(released: list[tuple[float, list[Packet]]]) -> list[tuple[float, list[Packet]]]:
        packets.extend(p for _, some in released for p in some)
        return released

    for i in range(3):
        take(i, 100.0 + i)
    assert len(joined(packets, "acc")) == 250
    assert take(4, 104.0) == [] and one.overdue(104.0 + sensor_logger.HELD_S - 0.1) == []
    released = kept(one.overdue(104.0 + sensor_logger.HELD_S))  # 3 is given up
    assert [arrival_s for arrival_s, _ in released] == [104.0]
    assert one.counts == {"messages lost": 1}
    assert take(3, 107.0) == [] and one.counts["late"] == 1
    for i in (7, 6, 8, 9):
        assert take(i, 108.0) == []  # 5 is missing ...
    assert len(take(10, 108.0)) == 5  # ... and too many follow at once
    assert one.counts["messages lost"] == 2
    acc = joined(packets, "acc")
    assert len(acc) == 250 + 100 + 500 and (np.diff(acc[:, 0]) > 0).all()


def read(content: object) -> Message:
    found = message_of(encoded(content))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"messageId": "1"},
        {"messageId": -1},
        {"messageId": True},
        {"messageId": None},
        {"sessionId": 5},
        {"deviceId": "x" * 1000},
        {"payload": {}},
        {"payload": [[]]},
        {"payload": [{"name": 3}]},
    ],
)
def test_malformed_messages(change: dict[str, object]) -> None:
    assert message_of(encoded({**message(0, ANDROID), **change})) is None
    one = SensorLoggerDecoder()
    assert one.feed(encoded({**message(0, ANDROID), **change})) == []
    assert one.counts == {"malformed": 1}


@pytest.mark.parametrize(
    "bad",
    [
        {"time": None}, {"time": 0}, {"time": -5}, {"time": "x"}, {"time": 1e300}, {"time": 2**80},
        {"values": []}, {"values": {"x": 1, "y": 2}}, {"values": {"x": 1, "y": 2, "z": None}},
        {"values": {"x": 1, "y": 2, "z": float("nan")}}, {"values": {"x": 1, "y": 2, "z": 10**400}},
    ],
)  # fmt: skip
def test_readings_that_are_none_are_left_out(bad: dict[str, object]) -> None:
    good = reading("gyroscope", 1.0, [1, 2, 3])
    found = read({**message(0, {}), "payload": [good, {**good, **bad}, {"name": "location"}]})
    assert found.unusable == 1 and len(found.readings["gyroscope"][0]) == 1


TOTAL_ALONE = [
    encoded(message(i, {"totalacceleration": ANDROID["totalacceleration"]})) for i in range(3)
]


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(JSON, max_size=4), st.integers(0, 3))
def test_no_message_raises(payload: list[object], index: int) -> None:
    one = SensorLoggerDecoder()
    for body in TOTAL_ALONE:
        one.feed(body)
    one.feed(encoded({**message(index, {}), "payload": payload}))
    one.feed(encoded(payload))


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["accelerometer", "gravity", "gyroscope"]),
            st.integers(0, 5 * 10**9),
            st.integers(0, 6),
        ),
        max_size=40,
    )
)
def test_whatever_the_times_packets_ascend(readings: list[tuple[str, int, int]]) -> None:
    one = SensorLoggerDecoder()
    last: dict[str, float] = {}
    bodies: dict[int, list[object]] = {}
    for name, time_ns, index in readings:
        bodies.setdefault(index, []).append(reading(name, time_ns * 1e-9, [1, 2, 3]))
    for index, payload in bodies.items():
        for packet in one.feed(encoded({**message(index, {}), "payload": payload})):
            assert packet.device_s is not None and (np.diff(packet.device_s) > 0).all()
            assert packet.device_s[0] > last.get(packet.kind, -1.0)
            last[packet.kind] = float(packet.device_s[-1])


class FakeSensorLogger:
    """The phone: posts to the URL that the user was told."""

    def __init__(self, said: list[str]) -> None:
        wait_for(lambda: any("http://" in line for line in said))
        url = next(line for line in said if "http://" in line).split("http://")[1]
        host, _, port = url.split("/")[0].partition(":")
        self.address = host, int(port)

    def post(self, body: bytes, **headers: str) -> int:
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_S)
        try:
            connection.request("POST", "/data", body, headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(self.address, timeout=PATIENCE_S) as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            answered = b""
            while part := sock.recv(1000):
                answered += part
        return answered


def listening(inbox: Inbox, say: Callable[[str], None]) -> None:
    run_sensor_logger(sensor_logger_address("0"), inbox, say)


@pytest.mark.usefixtures("fast")
def test_pushes_become_packets() -> None:
    with running(listening) as link:
        phone = FakeSensorLogger(link.said)
        test_push = {**message(0, {}, "test", "other"), "payload": [
            {"name": "test", "time": 0, "values": []}]}  # fmt: skip
        assert phone.post(encoded(test_push)) == 200
        for i in (1, 0, 2, 3, 5, 4, 4, 6, 7):
            assert phone.post(encoded(message(i, ANDROID))) == 200
    same(link.inbox.rows("acc"), ANDROID["totalacceleration"])
    same(link.inbox.rows("gyro"), ANDROID["gyroscope"])
    assert link.inbox.connections_made == [
        ({"acc", "gyro"}, "Sensor Logger: totalacceleration in m/s^2, gyroscope")
    ]
    assert link.error is None and link.inbox.losses == 1
    assert "for this machine only" in link.said[0]
    assert link.inbox.counts() == {"sensorlogger": {"late": 1}}


@pytest.mark.usefixtures("fast")
def test_garbage_is_answered_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "MAX_MESSAGE_BYTES", 500_000)
    with running(listening) as link:
        phone = FakeSensorLogger(link.said)
        assert phone.post(b"\xff\x00 no JSON") == 400
        assert phone.post(b"") == 400
        assert phone.post(encoded({"payload": []})) == 400
        assert b" 411 " in phone.raw(b"POST / HTTP/1.0\r\n\r\n")
        assert b" 411 " in phone.raw(b"POST / HTTP/1.0\r\nContent-Length: -5\r\n\r\n")
        assert b" 413 " in phone.raw(b"POST / HTTP/1.0\r\nContent-Length: 500001\r\n\r\n")
        assert b" 400 " in phone.raw(b"POST / HTTP/1.0\r\nContent-Length: 50\r\n\r\n{}")
        assert b" 501 " in phone.raw(b"BREW / HTTP/1.0\r\n\r\n")
        phone.raw(b"\x16\x03\x01 this is no HTTP \x00\r\n\r\n")
        for i in range(5):
            assert phone.post(encoded(message(i, ANDROID))) == 200
        assert phone.post(encoded({**message(5, ANDROID), "messageId": "5"})) == 400
        wait_for(lambda: len(link.inbox.rows("acc")) == 450)
        counts = link.inbox.counts()["sensorlogger"]
    assert link.error is None
    assert counts == {"malformed": 4, "length": 2, "too long": 1, "incomplete": 1}


@pytest.mark.usefixtures("fast")
def test_a_phone_that_hangs_up_or_sends_nothing_blocks_nobody() -> None:
    with running(listening) as link:
        phone = FakeSensorLogger(link.said)
        idle = [socket.create_connection(phone.address) for _ in range(push._CONNECTIONS - 3)]
        for i in range(5):
            assert phone.post(encoded(message(i, ANDROID))) == 200
        idle += [socket.create_connection(phone.address) for _ in range(10)]
        wait_for(lambda: link.inbox.counts()["sensorlogger"]["too many connections"])
        for sock in idle:
            sock.close()

        def is_heard_again() -> bool:
            try:
                return phone.post(encoded(message(5, ANDROID))) == 200
            except OSError:
                return False

        wait_for(is_heard_again)
        wait_for(lambda: len(link.inbox.rows("acc")) == 550)


@pytest.mark.usefixtures("fast")
def test_a_new_recording_and_another_phone() -> None:
    with running(listening) as link:
        phone = FakeSensorLogger(link.said)
        for i in range(4):
            phone.post(encoded(message(i, ANDROID, "s1")))
        assert phone.post(encoded(message(0, ANDROID, "theirs", "d2"))) == 409
        for i in range(4):
            assert phone.post(encoded(message(i, ANDROID, "s2"))) == 200
        assert phone.post(encoded(message(4, ANDROID, "s1"))) == 200  # too late
        wait_for(lambda: len(link.inbox.segments) == 2 and len(link.inbox.rows("acc", 1)) == 350)
    for segment in (0, 1):
        same(link.inbox.rows("acc", segment), ANDROID["totalacceleration"])
    assert link.inbox.losses == 2
    assert link.inbox.counts()["sensorlogger"] == {"another phone": 1, "late": 1}


@pytest.mark.usefixtures("fast")
def test_a_phone_that_is_silent_is_gone_until_it_sends_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(listening) as link:
        phone = FakeSensorLogger(link.said)
        for i in range(4):
            phone.post(encoded(message(i, ANDROID)))
        monkeypatch.setattr(push, "SILENCE_S", 0.02)
        wait_for(lambda: any("waiting for it" in said for said in link.said))
        assert link.inbox.losses == 1
        monkeypatch.setattr(push, "SILENCE_S", PATIENCE_S)
        for i in (7, 6, 8):
            phone.post(encoded(message(i, ANDROID)))
        monkeypatch.setattr(sensor_logger, "HELD_S", 0.02)
        wait_for(lambda: len(link.inbox.rows("acc")) == 350 + 300)
    assert len(link.inbox.segments) == 2
    expected = ANDROID["totalacceleration"]
    np.testing.assert_allclose(link.inbox.rows("acc", 1)[:, 1:], expected[550:850, 1:])
    # The same clock goes on.
    np.testing.assert_allclose(link.inbox.rows("acc", 1)[:, 0], expected[550:850, 0] - 0.5)
    assert link.inbox.counts()["sensorlogger"] == {"messages lost": 2}


@pytest.mark.usefixtures("fast")
def test_acceleration_without_gravity_ends_the_link() -> None:
    with running(listening) as link:
        phone = FakeSensorLogger(link.said)
        for i in count():
            if link.error:
                break
            try:
                phone.post(encoded(message(i % 11, {"accelerometer": ANDROID["accelerometer"]})))
            except OSError:  # it has stopped listening
                break
        link.join()
    assert isinstance(link.error, AuraError) and "without gravity" in str(link.error)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(AuraError, match="choose another port"):
            run_sensor_logger(address, Noted(), print)


@pytest.mark.usefixtures("fast")
def test_it_listens_to_this_machine_only_unless_asked() -> None:
    assert sensor_logger_address("8000").host == "127.0.0.1"
    said: list[str] = []
    inbox = Noted()
    inbox.stop()
    run_sensor_logger(Address("0.0.0.0", 0), inbox, said.append)
    assert "http://0.0.0.0" not in said[0] and "Anyone in this network" in said[0]


def test_addresses() -> None:
    assert phyphox_address("192.168.0.42") == Address("192.168.0.42", 8080)
    assert phyphox_address("http://192.168.0.42:80/") == Address("192.168.0.42", 80)
    assert phyphox_address("[fe80::1]") == Address("[fe80::1]", 8080)
    assert phyphox_address("[fe80::1]:81") == Address("[fe80::1]", 81)
    assert phyphox_address("my-phone.local") == Address("my-phone.local", 8080)
    assert sensor_logger_address("0.0.0.0:8000") == Address("0.0.0.0", 8000)
    for text in ("", ":", ":80", "a b", "a/b", "a@b:80", "host:99999", "host:x", "host:0", "a:²"):
        with pytest.raises(InputError, match="phyphox:HOST"):
            phyphox_address(text)
    for text in ("", "x", "0.0.0.0", ":", ":8000", "99999", "a b:1", "-1"):
        with pytest.raises(InputError, match="sensorlogger:PORT"):
            sensor_logger_address(text)
