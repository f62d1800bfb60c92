"""The event log: every window and event of every session in one SQLite file.

    log = EventLog(path, "ble:Polar Sense", bundle.id, names, 1.0, version, say, live=True)
    log.show(moment)       # takes a microsecond: another thread writes
    log.finish(diary.finish())
    log.close()

A thread of its own writes what came, twice a second in one transaction (write-ahead log): a crash
loses at most the last second, another program can read meanwhile, and the stream never waits for
the disk. If the disk cannot keep up for an hour, windows of a live device are dropped and counted;
a replay waits. When the log can no longer be written (a full disk), logging stops with a warning
and the stream goes on.

What is in the file: `edge/log/store.py`; reading it: `edge/log/read.py`.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import platformdirs
from numpy.typing import NDArray

from edge.log.codec import NO_LABEL, TOP, WINDOW, Basis, Rows, basis_of, pack_samples
from edge.log.store import (
    add_windows,
    basis_of_bundle,
    cannot_log,
    keep_bundle,
    open_for_writing,
    session_names,
    settle,
    settle_crashed,
    transaction,
)
from edge.moment import Event, Moment
from edge.pipeline import Prediction
from firmware_bridge.samples import Samples

_COMMIT_EVERY_S = 0.5
"""At most so often: a window a second is written when it comes, thousands a second together."""

_MAX_WAITING = 4096
"""Windows that may wait for the disk: an hour at a hop of 1 s, about 10 MB."""

_HURRY = 512
"""Windows for which the writer does not wait until the half second is over."""

_MAX_WAITING_CHUNKS = 65_536
"""Chunks of raw samples that may wait: an hour of a device that sends 18 packets a second."""

_EVENT_EVERY_S = 5.0
"""How often an event that grows is written."""

_RAW_PIECE_S = 10.0

_CLOSE_S = 15.0
"""How long the last windows are waited for at the end."""

_UNIX_S = 1e9
"""Source times above it are seconds since 1970: 2001 and later."""

_DIMENSION = 512
"""Of the embeddings of a bundle without reference embeddings."""

T = TypeVar("T")

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def default_log_path() -> Path:
    """Where windows are logged unless `--log` says otherwise."""
    return platformdirs.user_data_path("aura-edge") / "log.db"


class EventLog:
    """Logs one session (`edge.moment.Output`).

    Args:
        path: of the log; made where there is none.
        source: where the samples are from: "ble:Polar Sense", "replay:walk.csv".
        bundle_id: of the bundle that makes the embeddings.
        labels: what is decided between.
        hop_s: seconds from window to window.
        version: of aura-edge.
        warn: tells the user what went wrong; called from the writing thread.
        reference: (R, D) embeddings that span all that the encoder can make
            (`Bundle.reference`): stored embeddings are smaller by them.
        device: what the device calls itself.
        placement: where it is worn, in the user's words.
        live: whether the samples are measured now. Then a window ends when it is logged, which
            gives its time of day, and windows are dropped rather than waited for.
        keep_raw_s: seconds of raw samples (`passing`) that are kept, the newest of all sessions.

    Raises:
        InputError: the file cannot be opened, is no log, or was written by a newer version.
    """

    def __init__(
        self,
        path: Path,
        source: str,
        bundle_id: str,
        labels: list[str],
        hop_s: float,
        version: str,
        warn: Callable[[str], None],
        *,
        reference: NDArray[np.float32] | None = None,
        device: str | None = None,
        placement: str | None = None,
        live: bool = False,
        keep_raw_s: float = 0.0,
    ) -> None:
        self.path = path
        self.dropped = 0
        """Windows that were not logged because the disk did not keep up."""
        self._warn = warn
        self._keeps_raw = keep_raw_s > 0
        self._moments: deque[Moment] = deque()
        self._chunks: deque[Samples] = deque()
        self._last_events: tuple[Event, ...] = ()
        self._wake = threading.Event()  # something is to be written
        self._hurry = threading.Event()  # and at once
        self._stopped = False
        """Whether nothing more is written: closed, or given up."""
        self._closing = False
        self._is_live = live
        self._zero_utc_s: float | None = None
        self._has_begun = False
        connection = open_for_writing(path)
        session = {
            "started_utc_s": time.time(),
            "source": source,
            "device": device,
            "placement": placement,
            "labels_json": json.dumps(labels),
            "hop_s": hop_s,
            "version": version,
        }
        try:
            self._store = _Store(connection, bundle_id, reference, session, keep_raw_s)
        except sqlite3.Error as error:
            connection.close()
            raise cannot_log(path, error) from None
        self._thread = threading.Thread(target=self._work, name="event log", daemon=True)
        self._thread.start()

    @property
    def written(self) -> int:
        """Windows that are safely in the log."""
        return self._store.windows

    def show(self, moment: Moment, truth: str | None = None) -> None:
        """Log one window and the events it changed. Never raises and, of a live device, never
        waits."""
        if self._stopped:
            return
        waiting = len(self._moments)
        if waiting >= _HURRY:
            self._hurry.set()
            if waiting >= _MAX_WAITING and not self._has_room():
                return
        if not self._has_begun:
            self._begin(moment.prediction)
        self._moments.append(moment)
        if not self._wake.is_set():
            self._wake.set()

    def passing(self, chunks: Iterable[Samples]) -> Iterator[Samples]:
        """The same samples, kept for a while as `keep_raw_s` says."""
        for samples in chunks:
            if self._keeps_raw and not self._stopped and len(self._chunks) < _MAX_WAITING_CHUNKS:
                self._chunks.append(samples)
            yield samples

    def finish(self, events: tuple[Event, ...]) -> None:
        """The events that the end of the stream ended."""
        self._last_events = events

    def close(self) -> None:
        """Write what waits and close the file; called once more, it does nothing."""
        self._closing = True
        self._wake.set()
        self._hurry.set()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            self._warn(
                f"{self.path} is still busy; the last {len(self._moments)} windows were not logged"
            )
        self._stopped = True

    def _begin(self, first: Prediction) -> None:
        """Find out what time of day the source's time 0 is."""
        self._has_begun = True
        if first.start_s > _UNIX_S:
            self._zero_utc_s = 0.0
        elif self._is_live:
            self._zero_utc_s = time.time() - first.end_s

    def _has_room(self) -> bool:
        """Wait for room, or count a window that is dropped."""
        while not self._is_live and not self._stopped and len(self._moments) >= _MAX_WAITING:
            time.sleep(0.005)
        if not self._is_live:
            return True
        if not self.dropped:
            self._warn(
                f"{self.path} cannot be written as fast as windows come; some are not logged, "
                "labels go on"
            )
        self.dropped += 1
        return False

    def _work(self) -> None:
        """What the writing thread does."""
        closing, written_s = False, -math.inf
        while not closing and not self._stopped:
            self._wake.wait()  # a thread that looks in now and then would cost a live stream more
            wait_s = written_s + _COMMIT_EVERY_S - time.monotonic()
            if wait_s > 0:
                self._hurry.wait(wait_s)
            self._wake.clear()
            self._hurry.clear()
            closing = self._closing  # what comes before it is set is written below
            self._write(closing)
            written_s = time.monotonic()
        self._store.close()

    def _write(self, closing: bool) -> None:
        moments = _taken(self._moments)
        chunks = _taken(self._chunks)
        events = self._last_events if closing else ()
        until_s = time.monotonic() + _CLOSE_S
        while not self._stopped:
            try:
                self._store.write(moments, chunks, events, self.dropped, self._zero_utc_s, closing)
                return
            except sqlite3.Error as error:
                is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY
                if not is_busy or (closing and time.monotonic() > until_s):
                    self._give_up(error)
            except Exception as error:  # nobody else hears of what goes wrong in this thread
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._stopped = True
        self._moments.clear()
        self._chunks.clear()
        self._warn(
            f"logging to {self.path} stopped after {self.written} windows ({error}); "
            "what was logged before stays, labels go on"
        )


class _Store:
    """What the writing thread writes to. Raises sqlite3.Error, and then nothing was written and the
    same can be tried again."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        bundle_id: str,
        reference: NDArray[np.float32] | None,
        session: dict[str, Any],
        keep_raw_s: float,
    ) -> None:
        self.connection = connection
        self.windows = 0
        self._bundle_id = bundle_id
        self._keep_raw_s = keep_raw_s
        self._names = session_names(json.loads(session["labels_json"]))
        self._index: dict[str | None, int] = {
            name: i for i, name in reversed(list(enumerate(self._names)))
        }
        self._chunks: list[Samples] = []
        self._written_s: dict[int, float] = {}
        """When the events that last were written, by number (monotonic)."""
        self._grown: dict[int, Event] = {}
        """Events that grew since."""
        with transaction(connection):
            found = connection.execute(
                "SELECT id FROM bundle WHERE name = ?", (bundle_id,)
            ).fetchone()
            # Of a bundle that the log knows, what was stored before says how it goes on.
            basis = None if found else _basis(reference)
            row = keep_bundle(connection, bundle_id, basis) if basis else found[0]
            self._basis = basis or basis_of_bundle(connection, row)
            self._session = session | {"bundle_id": row, "zero_utc_s": None, "dropped": 0}
            self._session["id"] = self._insert_session().lastrowid
            settle_crashed(connection, before=self._session["id"])

    def write(
        self,
        moments: list[Moment],
        chunks: list[Samples],
        last_events: tuple[Event, ...],
        dropped: int,
        zero_utc_s: float | None,
        closing: bool,
    ) -> None:
        """Write all of it in one transaction."""
        if not (moments or chunks or closing):
            return
        session = self._session["id"]
        now_s = time.monotonic()
        events = self._grown | {e.number: e for m in moments for e in m.events}
        events |= {e.number: e for e in last_events}
        due = {n: e for n, e in events.items() if closing or self._is_due(e, now_s)}
        pieces, rest = _pieces(self._chunks + chunks, closing)
        self._session["zero_utc_s"] = zero_utc_s
        self._session["dropped"] = dropped
        with transaction(self.connection):
            self._keep_session()
            if moments:
                rows, embeddings = self._rows(moments), self._embeddings(moments)
                add_windows(self.connection, session, self._names, self._basis, rows, embeddings)
            self._write_events(list(due.values()))
            self._write_raw(pieces)
            if closing:
                settle(self.connection, session, self._names, self._basis)
                self.connection.execute(
                    "UPDATE session SET ended_utc_s = ? WHERE id = ?", (time.time(), session)
                )
        self.windows += len(moments)
        self._chunks = rest
        self._grown = {n: e for n, e in events.items() if n not in due}
        self._written_s |= dict.fromkeys(due, now_s)
        for number in [n for n, e in due.items() if e.ended]:
            del self._written_s[number]

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):  # what was committed is there, and nothing else can be done
            self.connection.close()

    def _insert_session(self) -> sqlite3.Cursor:
        columns = ", ".join(self._session)
        values = ", ".join(f":{name}" for name in self._session)
        return self.connection.execute(
            f"INSERT OR IGNORE INTO session ({columns}) VALUES ({values})", self._session
        )

    def _keep_session(self) -> None:
        """The session's row, put in again where a purge has taken it."""
        update = "UPDATE session SET zero_utc_s = :zero_utc_s, dropped = :dropped WHERE id = :id"
        if self.connection.execute(update, self._session).rowcount:
            return
        row = keep_bundle(self.connection, self._bundle_id, self._basis)
        self._session["bundle_id"] = row
        self._insert_session()

    def _rows(self, moments: list[Moment]) -> Rows:
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite
            return np.array([self._row(moment) for moment in moments], WINDOW)

    def _row(self, moment: Moment) -> tuple[Any, ...]:
        """In the order of `WINDOW`."""
        p, index = moment.prediction, self._index
        top = p.top[:TOP] + _NO_SCORES[: TOP - len(p.top)]
        return (
            p.start_s,
            p.end_s,
            index.get(moment.label, NO_LABEL),
            _number(moment.confidence),
            index.get(p.label, NO_LABEL),
            tuple([index.get(s[0], NO_LABEL) for s in top]),
            tuple([s[1] for s in top]),
            tuple([s[2] for s in top]),
            p.missing,
            p.rate_hz,
            p.inference_ms,
            _number(p.motion_mps2),
            _number(p.tilt_deg),
            _number(p.face_deg),
            _number(p.presence),
        )

    def _embeddings(self, moments: list[Moment]) -> bytes:
        none = np.zeros(self._basis.dimension, np.float32)
        embeddings = [m.prediction.embedding for m in moments]
        return self._basis.encode(np.stack([none if e is None else e for e in embeddings]))

    def _is_due(self, event: Event, now_s: float) -> bool:
        written_s = self._written_s.get(event.number, -math.inf)
        return event.ended or now_s - written_s >= _EVENT_EVERY_S

    def _write_events(self, events: list[Event]) -> None:
        for event in events:
            if event.number in self._written_s:
                # A start that a purge has moved stays, and an event that it took stays away.
                self.connection.execute(
                    "UPDATE event SET start_s = max(start_s, ?), end_s = ?, label = ?,"
                    " confidence = ?, ended = ? WHERE session_id = ? AND number = ?",
                    (*event[1:], self._session["id"], event.number),
                )
            else:
                self.connection.execute(
                    "INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (self._session["id"], *event),
                )

    def _write_raw(self, pieces: list[Samples]) -> None:
        self.connection.executemany(
            "INSERT INTO raw (session_id, start_s, end_s, has_gyro, data) VALUES (?, ?, ?, ?, ?)",
            [
                (
                    self._session["id"],
                    piece.t_s[0],
                    piece.t_s[-1],
                    piece.gyro_rads is not None,
                    pack_samples(piece),
                )
                for piece in pieces
            ],
        )
        if pieces:
            self.connection.execute(
                "DELETE FROM raw WHERE id IN (SELECT id FROM (SELECT id, sum(end_s - start_s) OVER"
                " (ORDER BY id DESC) - (end_s - start_s) AS newer_s FROM raw) WHERE newer_s >= ?)",
                (self._keep_raw_s,),
            )


_NO_SCORES = ((None, math.nan, math.nan),) * TOP


def _basis(reference: NDArray[np.float32] | None) -> Basis:
    return Basis(_DIMENSION, None) if reference is None else basis_of(reference)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _pieces(chunks: list[Samples], closing: bool) -> tuple[list[Samples], list[Samples]]:
    """Raw samples in pieces of about ten seconds, and those that wait for more."""
    pieces: list[Samples] = []
    waiting: list[Samples] = []
    for chunk in chunks:
        if not len(chunk):
            continue
        if waiting and (waiting[0].gyro_rads is None) != (chunk.gyro_rads is None):
            pieces.append(Samples.joined(waiting))
            waiting = []
        waiting.append(chunk)
        if chunk.t_s[-1] - waiting[0].t_s[0] >= _RAW_PIECE_S:
            pieces.append(Samples.joined(waiting))
            waiting = []
    if closing and waiting:
        pieces.append(Samples.joined(waiting))
        waiting = []
    return pieces, waiting


def _taken(waiting: deque[T]) -> list[T]:
    return [waiting.popleft() for _ in range(len(waiting))]
