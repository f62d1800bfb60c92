"""The live view in a browser: `edge-run --serve`.

    page = LivePage("8000", "ble:Polar Sense", labels, source.live.report, say)
    for prediction in ...page.passing(chunks)...:
        page.show(moment, truth)

A server of the standard library hands out three small files (`edge/data/live/`) and one stream of
server-sent events. The stream of samples never waits for a browser: it only leaves the newest
window and the last samples behind. A thread makes them into messages, `_FRAME_S` apart and only
while somebody watches; each browser's own thread sends the newest ones, so that a slow browser
skips some and a stuck one is dropped.

What is worn on a body is private: the server listens to this machine alone unless another address
is stated, and never answers to a foreign name (DNS rebinding) or to another site's page.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import socketserver
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.moment import NOT_WORN_LABEL, Event, Moment
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples

if TYPE_CHECKING:
    from firmware_bridge.live import LinkReport

DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_PORT = 8377
"""Where that one is taken, any free one."""

SIGNAL_S = 5.0
"""Of signal that are shown: one window."""

MAX_WATCHERS = 8
"""Browsers that may watch at once; more are told to come back later."""

RECENT_EVENTS = 12
ALL_LABELS = 8
"""Up to so many labels are all shown, always in the same order; of more, the best."""

_FRAME_S = 0.2
_ALIVE_S = 2.0
"""How often a browser hears something when there is nothing to say: so a gone one is noticed."""

_PATIENCE_S = 10.0
"""For a browser that sends its request, or takes what it is sent, too slowly."""

_FAREWELL_S = 1.0
"""For browsers to take the last message."""

_MAX_CONNECTIONS = 32
_SIGNAL_POINTS = 250
_MAX_SAMPLES = 20_000
"""Of signal that are kept, whatever their times say."""

_LINK_EVERY_S = 1.0

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
_FOLDER = Path(__file__).parent.parent / "data" / "live"

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class LivePage:
    """Shows a run in browsers (an `edge.moment.Output`).

    Args:
        address: what `--serve` was given: "", "PORT" or "ADDRESS:PORT".
        title: the source's name.
        labels: the label set's, in its order.
        report: how the link does; asked in the thread that calls `show`. None for a recording.
        say: tells the user something.

    Raises:
        InputError: the address cannot be read, or be listened to.
    """

    def __init__(
        self,
        address: str,
        title: str,
        labels: Sequence[str],
        report: Callable[[], LinkReport] | None,
        say: Callable[[str], None],
    ) -> None:
        self._title, self._labels, self._report = title, tuple(labels), report
        self._signal = _Signal()
        self._board = _Board()
        self._lock = threading.Lock()  # of what follows
        self._now: _Now | None = None
        self._windows = 0
        self._events: dict[int, Event] = {}
        self._link: LinkReport | None = None
        self._link_s = -np.inf
        self._is_over = threading.Event()
        self._server = _listen(address, self._board)
        self.url = self._server.url
        """What to open."""
        self._threads = [
            threading.Thread(target=self._draw_on, name="live page", daemon=True),
            threading.Thread(target=self._server.serve_forever, name="live server", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        say(f"live page: {self.url} ({self._server.audience})")

    def passing(self, chunks: Iterable[Samples]) -> Iterator[Samples]:
        """The same samples; the last of them are shown."""
        for samples in chunks:
            self._signal.keep(samples)
            yield samples

    def show(self, moment: Moment, truth: str | None) -> None:
        """Take one window, with its true label where that is known."""
        link = self._newest_link()
        with self._lock:
            before, self._windows = self._now, self._windows + 1
            self._keep(moment.events)
            origin_s = before.origin_s if before else moment.prediction.start_s
            self._now = _Now(moment, truth, origin_s, _since_s(moment, before), link)

    def finish(self, events: tuple[Event, ...]) -> None:
        """The stream has ended: take the events that this ended."""
        with self._lock:
            self._keep(events)

    def close(self) -> None:
        """Tell the browsers that it is over, and stop serving."""
        self._is_over.set()
        self._threads[0].join()
        self._board.close(_FAREWELL_S)
        self._server.shutdown()
        self._server.server_close()
        self._threads[1].join()

    def _keep(self, events: tuple[Event, ...]) -> None:
        self._events.update({event.number: event for event in events})
        while len(self._events) > RECENT_EVENTS:
            del self._events[min(self._events)]

    def _newest_link(self) -> LinkReport | None:
        now_s = time.monotonic()
        if self._report and self._board.watchers and now_s - self._link_s >= _LINK_EVERY_S:
            self._link, self._link_s = self._report(), now_s
        return self._link

    def _draw_on(self) -> None:
        while not self._is_over.wait(_FRAME_S):
            if self._board.watchers:
                self._draw(is_over=False)
        self._draw(is_over=True)

    def _draw(self, is_over: bool) -> None:
        """Put what is new on the board."""
        with self._lock:
            now, windows, events = self._now, self._windows, list(self._events.values())
        version = windows + is_over
        if self._board.version("moment") != version:
            message = _message(now, windows, events, self._title, self._labels, is_over)
            self._board.put("moment", version, message)
        if self._board.version("signal") != self._signal.count:
            self._board.put("signal", self._signal.count, self._signal.message())


@dataclass(frozen=True)
class _Now:
    """The newest window."""

    moment: Moment
    truth: str | None
    origin_s: float
    """Start of the first window: times are shown from there."""
    since_s: float
    """When what is said began."""
    link: LinkReport | None


def _since_s(moment: Moment, before: _Now | None) -> float:
    """When what is said began: where the diary has its event begin, else the end of the first
    window that said it."""
    for event in reversed(moment.events):
        if not event.ended and event.label == moment.label:
            return event.start_s
    if before and before.moment.label == moment.label:
        return before.since_s
    return moment.prediction.end_s


Json = dict[str, Any]


def _message(
    now: _Now | None,
    windows: int,
    events: list[Event],
    title: str,
    labels: tuple[str, ...],
    is_over: bool,
) -> Json:
    """What the page is told of a run: times in seconds from the first window's start."""
    message: Json = {"title": title, "is_over": is_over, "windows": windows, "window": None}
    if now is None:
        return message
    moment, prediction, origin_s = now.moment, now.moment.prediction, now.origin_s
    message["window"] = {
        "at_s": round(prediction.end_s - origin_s, 3),
        "label": moment.label,
        "is_none": prediction.unknown or moment.label in (None, NOT_WORN_LABEL),
        "confidence": moment.confidence,
        "since_s": round(now.since_s - origin_s, 3),
        "truth": now.truth,
        "why_not": None if prediction.valid else prediction.why_not_valid(),
        "scores": _scores(moment, labels),
        "missing": round(prediction.missing, 4),
        "rate_hz": round(prediction.rate_hz, 2),
        "inference_ms": round(prediction.inference_ms, 2),
    }
    message["events"] = [
        {
            "start_s": round(event.start_s - origin_s, 3),
            "end_s": round(event.end_s - origin_s, 3),
            "label": event.label,
            "confidence": event.confidence,
            "ended": event.ended,
        }
        for event in sorted(events, reverse=True)
    ]
    message["link"] = now.link and _link_message(now.link)
    return message


def _scores(moment: Moment, labels: tuple[str, ...]) -> list[tuple[str, float]]:
    """Labels of the window and their probabilities."""
    prediction = moment.prediction
    if prediction.posterior is not None and len(labels) <= ALL_LABELS:
        return list(zip(labels, prediction.posterior.tolist(), strict=True))
    return [(score.label, score.probability) for score in prediction.top]


def _link_message(report: LinkReport) -> Json:
    return {
        "streams": [
            {
                "kind": kind,
                "rate_hz": clock.rate_hz,
                "drift_ppm": clock.drift_ppm,
                "lost": clock.lost,
                "lost_fraction": clock.lost_fraction,
                "lag_p50_s": clock.lag_p50_s,
                "lag_p95_s": clock.lag_p95_s,
            }
            for kind, clock in sorted(report.streams.items())
        ],
        "details": report.details,
        "reconnects": report.reconnects,
        "stalls": report.stalls,
        "skipped": report.skipped,
        "unpaired": report.unpaired,
    }


class _Signal:
    """The last samples of a stream. Kept by one thread, shown by another."""

    def __init__(self) -> None:
        self.count = 0
        """Samples that came."""
        self._lock = threading.Lock()
        self._chunks: deque[Samples] = deque()
        self._n = 0

    def keep(self, samples: Samples) -> None:
        """Take some samples and forget those that are too old."""
        if not len(samples):
            return
        samples = samples[-_MAX_SAMPLES:]
        with self._lock:
            self.count += len(samples)
            self._chunks.append(samples)
            self._n += len(samples)
            oldest_s = samples.t_s[-1] - SIGNAL_S
            while self._n > _MAX_SAMPLES or self._chunks[0].t_s[-1] < oldest_s:
                self._n -= len(self._chunks.popleft())

    def message(self) -> Json:
        """The last seconds for the page: times from the newest sample, at most a few hundred
        points, each the mean of as many samples; None where a value is not finite."""
        with self._lock:
            chunks, count = list(self._chunks), self.count
        if not chunks:
            return {"t_s": [], "acc_mps2": [], "gyro_rads": None}
        has_gyro = chunks[-1].gyro_rads is not None
        samples = Samples.joined([c for c in chunks if (c.gyro_rads is not None) == has_gyro])
        samples = samples[int(np.argmax(samples.t_s >= samples.t_s[-1] - SIGNAL_S)) :]
        step = max(1, round(len(samples) / _SIGNAL_POINTS))
        # Cut by the number of samples that ever came, a point stays the mean of the same ones.
        first = -(count - len(samples)) % step
        columns = [samples.t_s[:, None] - samples.t_s[-1], samples.acc_mps2]
        columns += [] if samples.gyro_rads is None else [samples.gyro_rads]
        rows = np.concatenate(columns, axis=1)[first:]
        rows = rows[: len(rows) // step * step].reshape(-1, step, rows.shape[1]).mean(axis=1)
        t_s, acc, gyro = rows[:, 0], rows[:, 1:4], rows[:, 4:]
        return {
            "t_s": _listed(t_s, 3),
            "acc_mps2": [_listed(axis, 2) for axis in acc.T],
            "gyro_rads": [_listed(axis, 3) for axis in gyro.T] if has_gyro else None,
        }


def _listed(values: NDArray[np.float64], decimals: int) -> list[float | None]:
    """JSON knows no NaN."""
    return [v if np.isfinite(v) else None for v in values.round(decimals).tolist()]


class _Board:
    """The newest message of each kind. The threads of the browsers wait for it to change."""

    def __init__(self) -> None:
        self.watchers = 0
        """Browsers that watch."""
        self._changed = threading.Condition()
        self._messages: dict[str, tuple[int, bytes]] = {}
        self._is_closed = False

    def version(self, kind: str) -> int | None:
        """Of the message that is there."""
        with self._changed:
            return self._messages[kind][0] if kind in self._messages else None

    def put(self, kind: str, version: int, message: Json) -> None:
        """Put a message in the place of the older one."""
        text = json.dumps(message, allow_nan=False, separators=(",", ":"))
        with self._changed:
            self._messages[kind] = version, f"event: {kind}\ndata: {text}\n\n".encode()
            self._changed.notify_all()

    def enter(self) -> bool:
        """A browser wants to watch: whether there is room."""
        with self._changed:
            if self.watchers >= MAX_WATCHERS or self._is_closed:
                return False
            if not self.watchers:
                self._messages.clear()  # of when somebody watched last
            self.watchers += 1
            return True

    def leave(self) -> None:
        """A browser watches no more."""
        with self._changed:
            self.watchers -= 1
            self._changed.notify_all()

    def messages(self) -> Iterator[bytes]:
        """What a browser is sent, until the board is closed: the newest messages, as soon as there
        are any that it did not have, or a sign of life."""
        seen: dict[str, int] = {}
        while True:
            with self._changed:
                news = self._news(seen)
                if not news and not self._is_closed:
                    self._changed.wait(_ALIVE_S)
                    news = self._news(seen)
                is_last = self._is_closed
            if news:
                yield b"".join(self._read(news, seen))
            elif not is_last:
                yield b": alive\n\n"
            if is_last:
                return

    def _news(self, seen: dict[str, int]) -> dict[str, tuple[int, bytes]]:
        return {kind: m for kind, m in self._messages.items() if seen.get(kind) != m[0]}

    @staticmethod
    def _read(news: dict[str, tuple[int, bytes]], seen: dict[str, int]) -> Iterator[bytes]:
        for kind, (version, text) in news.items():
            seen[kind] = version
            yield text

    def close(self, patience_s: float) -> None:
        """Let the browsers go; wait a while until they have had the last messages."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self.watchers, patience_s)


class _Server(ThreadingHTTPServer):
    """Serves the page and its events, to a bounded number of connections."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name == "posix"  # elsewhere it would share a port that is taken

    def __init__(self, host: str, port: int, board: _Board) -> None:
        self.board = board
        self.files = {
            path: ((_FOLDER / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()
        }
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = address[0]
        self._ip = ipaddress.ip_address(str(address[4][0]).partition("%")[0])
        super().__init__((str(address[4][0]), port), _Handler)

    @property
    def url(self) -> str:
        """For people; of all addresses, the one of this machine's own name."""
        host = _own_name() if self._ip.is_unspecified else self._ip.compressed
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    @property
    def audience(self) -> str:
        """Who can open it."""
        if self._ip.is_loopback:
            return "this machine only"
        return "without a password: everybody who reaches this machine's network can watch"

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names this server. A number always does: what another site can make
        a browser believe is only where a *name* leads (DNS rebinding)."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        name = name.lower().removesuffix(".")
        if name == "localhost" or _is_ip(name):
            return True
        own = _own_name().lower()
        return not self._ip.is_loopback and name in (own, own.partition(".")[0] + ".local")

    def server_bind(self) -> None:
        """Without `HTTPServer`'s question for the host's full name, which may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a connection's thread, or drop the connection where there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser went away: nobody has to know."""


def _own_name() -> str:
    return socket.gethostname()


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE_S
    server_version, sys_version = "aura-edge", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if not self.server.is_ours(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "this server goes by another name")
        # Browsers say which site's page asks; what is no browser need not.
        elif self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and (
            path != "/"
        ):
            self._refuse(HTTPStatus.FORBIDDEN, "not for pages of other sites")
        elif path == "/events":
            self._send_events()
        elif path in self.server.files:
            content, kind = self.server.files[path]
            self._send(HTTPStatus.OK, content, kind)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def _send_events(self) -> None:
        if not self.server.board.enter():
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many browsers watch")
            return
        try:
            self._begin(HTTPStatus.OK, "text/event-stream")
            for message in self.server.board.messages():
                self.wfile.write(message)
        except OSError:  # it went away, or takes nothing any more
            self.close_connection = True
        finally:
            self.server.board.leave()

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, f"{why}\n".encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self._begin(status, kind, len(content))
        self.wfile.write(content)

    def _begin(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: stderr is the run's."""


def _listen(address: str, board: _Board) -> _Server:
    """Raises:
    InputError: the address cannot be read, or be listened to.
    """
    host, port = parse_address(address)
    try:
        return _Server(host, DEFAULT_PORT if port is None else port, board)
    except OSError as error:
        if port is None:
            return _Server(host, 0, board)  # the usual port is taken
        raise InputError(
            f"--serve {address}: cannot listen there ({error.strerror or error}); choose another "
            "port, or none for a free one"
        ) from None


def parse_address(text: str) -> tuple[str, int | None]:
    """Host and port of "", "PORT", "ADDRESS:PORT" or "[IPV6]:PORT"; port None where none is stated.

    Raises:
        InputError: it is none of these.
    """
    if not text:
        return DEFAULT_ADDRESS, None
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and int(port) <= 65535
    if not is_port or (":" in host and not host.startswith("[")) or text.startswith(":"):
        raise InputError(
            f"--serve {text!r} is no [ADDRESS:]PORT; for example --serve 8000 for this machine, "
            "--serve 0.0.0.0:8000 for the whole network"
        )
    return host.removeprefix("[").removesuffix("]") or DEFAULT_ADDRESS, int(port)
