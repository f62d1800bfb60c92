"""phyphox: asked over HTTP for what it measures.

    LiveSource(lambda inbox: run_phyphox(phyphox_address("192.168.0.42"), inbox, say), say)

phyphox ("Allow remote access" in the menu of an experiment) serves what it measures over HTTP.
Its buffers grow while it measures; a poll asks for what is later than the last sample it brought.
Nothing is lost by a poll that fails: the next one brings it. Source: RemoteServer.java of
github.com/phyphox/phyphox-android, ExperimentWebServer.swift and ExperimentSensorInput.swift of
phyphox-ios, docs/remote-interface/openapi.yaml of phyphox-docs. Never run against a real phone.
"""

from __future__ import annotations

import http.client
import math
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np

from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.link import Counts, Kind, Packet
from firmware_bridge.live import Inbox
from firmware_bridge.phones.network import (
    MAX_NAME_CHARS,
    MAX_READINGS,
    Address,
    Floats,
    Say,
    address_of,
    json_of,
    rising,
)

POLL_S = 0.2
"""phyphox' server answers one request at a time and slowly (openapi.yaml)."""

TIMEOUT_S = 2.0
"""For a phone's answer. Below the time that a link has for stopping."""

MAX_ANSWER_BYTES = 4 << 20
"""20 s of two sensors at 500 Hz, as phyphox writes it."""

_PORT = 8080
"""Of Android; an iPhone takes 80."""

_FAILED_POLLS = 3
"""In a row, after which the phone is gone. Until then the next poll brings what they did not."""

_EMPTY_POLLS = 10
"""In a row, after which the buffers may have been cleared."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


def phyphox_address(text: str) -> Address:
    """HOST[:PORT] as phyphox shows it; the port is 8080 unless stated.

    Raises:
        InputError: it is none.
    """
    text = text.removeprefix("http://").rstrip("/")
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # [fe80::1] without a port
        host, port = text, str(_PORT)
    address = address_of(host, port)
    if address is None or address.port == 0:
        raise InputError(
            f"phyphox:{text}: expected phyphox:HOST or phyphox:HOST:PORT, as phyphox shows it when "
            "'Allow remote access' is switched on: phyphox:192.168.0.42:8080 (an iPhone's port is "
            "80)"
        )
    return address


@dataclass(frozen=True)
class Experiment:
    """What an experiment of phyphox measures."""

    title: str
    buffers: Mapping[Kind, tuple[str, str, str, str]]
    """Names of the buffers of "acc" and, where it has one, "gyro": time, x, y, z."""


_CURE = (
    "open 'Acceleration with g', or better, press + and make a simple experiment of Accelerometer "
    "and Gyroscope"
)
_SOURCES: dict[str, Kind] = {"accelerometer": "acc", "gyroscope": "gyro"}
"""Both apps have them in m/s^2, upwards +1 g (iOS multiplies by -9.81), and rad/s."""


def experiment_of(config: bytes) -> Experiment:
    """What the answer to /config (phyphox 1.1.6 and newer) says.

    Raises:
        AuraError: the experiment has no accelerometer, or the answer is none of phyphox.
    """
    answer = json_of(config)
    inputs = answer.get("inputs") if isinstance(answer, dict) else None
    if not isinstance(inputs, list):
        raise _GoneError(
            "what answers is not phyphox 1.1.6 or newer; update the app and open an experiment in "
            "it"
        )
    sources = [one.get("source") for one in inputs if isinstance(one, dict)]
    buffers: dict[Kind, tuple[str, str, str, str]] = {}
    for one, source in zip([i for i in inputs if isinstance(i, dict)], sources, strict=True):
        kind = _SOURCES.get(source) if isinstance(source, str) else None
        names = _outputs(one.get("outputs"))
        if kind and names and kind not in buffers:
            buffers[kind] = names
    if "acc" not in buffers:
        if "linear_acceleration" in sources:
            raise AuraError(
                "this experiment of phyphox measures acceleration without gravity. Its direction "
                f"relative to gravity is lost and cannot be put back: {_CURE}"
            )
        raise AuraError(f"this experiment of phyphox has no accelerometer: {_CURE}")
    title = answer.get("title")
    return Experiment(title[:MAX_NAME_CHARS] if isinstance(title, str) else "", buffers)


def _outputs(outputs: object) -> tuple[str, str, str, str] | None:
    """Names of the buffers for t, x, y, z, which come as [{"x": "accX"}, ...]."""
    found: dict[str, str] = {}
    for output in outputs if isinstance(outputs, list) else []:
        for component, name in output.items() if isinstance(output, dict) else ():
            if isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS:
                found[component] = name
    if not {"t", "x", "y", "z"} <= set(found):
        return None
    return found["t"], found["x"], found["y"], found["z"]


class PhyphoxDecoder:
    """Answers to /get -> packets, and what to ask for next.

    Args:
        experiment: whose buffers are read.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.counts: Counts = Counter()
        self.measuring = False
        """Whether the phone measures, by its last answer."""
        self.session: str | None = None
        """Another one means another experiment (openapi.yaml, Status)."""
        self._buffers = experiment.buffers
        self._since: dict[Kind, float] = {}  # empty: to be asked for
        self._asks_last = True
        self._empty = 0

    def query(self) -> str:
        """The parameters of the next /get: the last time in the buffers, or what is later than
        the last sample. The values are taken where their time buffer is above the threshold."""
        asked = {}
        for kind, names in self._buffers.items():
            if self._asks_last:
                asked[names[0]] = ""
            else:
                # Negative thresholds are not a number to older iPhones.
                since = f"{max(0.0, self._since[kind])!r}|{names[0]}"
                asked |= dict.fromkeys(names, since)
        return urlencode(asked, quote_via=quote)  # the | has to be encoded

    def feed(self, data: bytes) -> list[Packet]:
        """Take the answer to the last query."""
        answer = json_of(data)
        buffers = answer.get("buffer") if isinstance(answer, dict) else None
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(buffers, dict) or not isinstance(status, dict):
            self.counts["malformed"] += 1
            return []
        self.measuring = status.get("measuring") is True
        session = status.get("session")
        self.session = session if isinstance(session, str) else None
        if self._asks_last:
            self._take_last(buffers)
            return []
        found = [self._packet(kind, buffers) for kind in self._buffers]
        packets = [packet for packet in found if packet is not None]
        self._empty = 0 if packets or not self.measuring else self._empty + 1
        self._asks_last = self._empty >= _EMPTY_POLLS
        return packets

    def _take_last(self, buffers: dict[str, Any]) -> None:
        """Begin at the end of what was measured before; or anew, if it was cleared since."""
        for kind, names in self._buffers.items():
            times = _column(buffers.get(names[0]))
            if times is None:
                self.counts["buffer"] += 1
                return
            last_s = float(times[-1]) if len(times) and math.isfinite(times[-1]) else 0.0
            if kind not in self._since:
                self._since[kind] = last_s
            elif last_s < self._since[kind]:
                self._since[kind] = 0.0
        self._asks_last, self._empty = False, 0

    def _packet(self, kind: Kind, buffers: dict[str, Any]) -> Packet | None:
        names = self._buffers[kind]
        columns = [_column(buffers.get(name)) for name in names]
        if any(column is None for column in columns):
            self.counts["buffer"] += 1
            return None
        # An older server may answer while it appends to one after the other.
        n = min(len(column) for column in columns if column is not None)
        rows = np.stack([column[:n] for column in columns if column is not None], axis=1)
        if _is_full(buffers.get(names[0])):  # unasked for: the buffers were cleared
            self._since[kind] = -math.inf
        finite = np.isfinite(rows).all(axis=1)
        self.counts["not a number"] += int((~finite).sum())
        rows, late = rising(rows[finite], self._since[kind])
        self.counts["not later"] += late
        self.counts += Counter()  # without the zeros
        if not len(rows):
            return None
        self._since[kind] = float(rows[-1, 0])
        return Packet(kind, rows[:, 1:], rows[:, 0])


def _is_full(buffer: object) -> bool:
    return isinstance(buffer, dict) and buffer.get("updateMode") == "full"


def _column(buffer: object) -> Floats | None:
    """The numbers of a buffer, NaN for null; None where it is not one."""
    values = buffer.get("buffer") if isinstance(buffer, dict) else None
    if not isinstance(values, list) or len(values) > MAX_READINGS:
        return None
    if not all(value is None or isinstance(value, int | float) for value in values):
        return None
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:  # an integer beyond float64
        return None


class _GoneError(AuraError):
    """The phone does not answer, or not with what it should: it may again."""


def run_phyphox(address: Address, inbox: Inbox, say: Say) -> None:
    """Ask phyphox for its samples until `inbox` is stopped; again and again where it is gone.

    The measurement is started if it is not running, and then stopped at the end.

    Raises:
        AuraError: it cannot be reached at first, or its experiment cannot be used.
    """
    link = _Phyphox(address, inbox, say)
    failed = 0
    try:
        while not inbox.stopped.is_set():
            try:
                link.stream()
            except _GoneError as error:
                if not link.connections:
                    raise
                inbox.lost()
                failed = 0 if link.has_streamed else failed + 1
                pause_s = min(_FIRST_PAUSE_S * 2**failed, _LONGEST_PAUSE_S)
                say(f"{error}; trying again in {pause_s:g} s")
                inbox.stopped.wait(pause_s)
    finally:
        inbox.lost()
        link.stop()


class _Phyphox:
    """One phone, through all connections."""

    def __init__(self, address: Address, inbox: Inbox, say: Say) -> None:
        self.connections = 0
        self.has_streamed = False
        """Whether the last connection brought anything."""
        self._address, self._inbox, self._say = address, inbox, say
        self._was_started_here = False
        # Neither a proxy nor a redirection: the phone itself, or nothing.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.HTTPHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            self._opener.add_handler(handler)

    def stream(self) -> None:
        """Connect and hand on what comes, until stopped.

        Raises:
            AuraError: the experiment cannot be used.
        """
        self.has_streamed = False
        experiment = experiment_of(self._get("/config"))
        decoder = PhyphoxDecoder(experiment)
        decoder.feed(self._get(f"/get?{decoder.query()}"))
        if not decoder.measuring:
            self._start()
        self.connections += 1
        sensors = "accelerometer, gyroscope" if "gyro" in experiment.buffers else "accelerometer"
        details = f"phyphox, experiment {experiment.title!r}: {sensors}"
        self._say(f"connected to {details}")
        self._poll(experiment, decoder, details)

    def stop(self) -> None:
        """Stop the measurement if it was started from here."""
        if self._was_started_here:
            try:
                self._get("/control?cmd=stop", TIMEOUT_S / 2)
            except _GoneError as error:
                self._say(f"phyphox was not told to stop: {error}")

    def _start(self) -> None:
        answer = json_of(self._get("/control?cmd=start"))
        if isinstance(answer, dict) and answer.get("result") is True:
            self._was_started_here = True
        else:
            self._say("phyphox does not start by itself: press play on the phone")

    def _poll(self, experiment: Experiment, decoder: PhyphoxDecoder, details: str) -> None:
        session, is_open, failed = decoder.session, False, 0
        while not self._inbox.stopped.wait(POLL_S):
            try:
                answer = self._get(f"/get?{decoder.query()}")
            except _GoneError:
                failed += 1
                if failed >= _FAILED_POLLS:
                    raise
                continue
            failed = 0
            packets = decoder.feed(answer)
            if decoder.session != session:
                raise _GoneError("another experiment was opened in phyphox")
            if decoder.measuring and not is_open:
                self._inbox.opened(experiment.buffers, 0.0, {"phyphox": decoder}, details)
                is_open = True
            if is_open and packets:
                self._inbox.deliver(packets)
                self.has_streamed = True
            if is_open and not decoder.measuring:
                self._inbox.lost()
                is_open = False
                # Its clock stands still meanwhile; a new segment begins when it goes on.
                self._say("the measurement is paused; press play on the phone to go on")

    def _get(self, path: str, timeout_s: float = TIMEOUT_S) -> bytes:
        """An answer, whole and bounded in size and time."""
        url = f"http://{self._address}{path}"
        until_s = time.monotonic() + timeout_s
        answer = bytearray()
        try:
            with self._opener.open(url, timeout=timeout_s) as response:
                while part := response.read1(1 << 16):
                    answer += part
                    if len(answer) > MAX_ANSWER_BYTES or time.monotonic() > until_s:
                        raise _GoneError(f"phyphox at {self._address} answers without end")
        except urllib.error.HTTPError as error:
            error.close()
            raise _GoneError(f"phyphox at {self._address} answers {error.code}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise _GoneError(
                f"phyphox at {self._address} does not answer ({reason}): is its experiment open, "
                "'Allow remote access' switched on, and the phone in the same network?"
            ) from None
        return bytes(answer)
