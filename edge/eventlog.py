"""The event log: every window of every session in one SQLite file.

Write-ahead logging and one transaction a second at most: a crash loses at most the last second,
and another program can read while this one writes. When the log can no longer be written (a full
disk), logging stops with a warning and the stream goes on.

The label of an unknown window is "unknown"; its similarity and probability are those of the best
label, the first of its predictions.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

from edge.pipeline import Prediction
from firmware_bridge.errors import InputError

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    started_utc TEXT NOT NULL,
    source TEXT NOT NULL,
    bundle_id TEXT NOT NULL,
    labels_json TEXT NOT NULL,
    hop_s REAL NOT NULL,
    version TEXT NOT NULL
);
CREATE TABLE window (
    id INTEGER PRIMARY KEY,
    session_id INTEGER NOT NULL REFERENCES session (id),
    start_s REAL NOT NULL,
    end_s REAL NOT NULL,
    logged_utc TEXT NOT NULL,
    valid INTEGER NOT NULL,
    label TEXT,
    similarity REAL,
    probability REAL,
    missing_fraction REAL NOT NULL,
    rate_hz REAL NOT NULL,
    inference_ms REAL NOT NULL,
    embedding_f16 BLOB
);
CREATE INDEX window_by_time ON window (session_id, start_s);
CREATE TABLE prediction (
    window_id INTEGER NOT NULL REFERENCES window (id),
    rank INTEGER NOT NULL,
    label TEXT NOT NULL,
    similarity REAL NOT NULL,
    probability REAL NOT NULL,
    PRIMARY KEY (window_id, rank)
) WITHOUT ROWID;
"""

_COMMIT_EVERY_S = 1.0


def default_log_path() -> Path:
    """Where windows are logged unless `--log` says otherwise."""
    return platformdirs.user_data_path("aura-edge") / "log.db"


class EventLog:
    """Appends the windows of one session.

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
    ) -> None:
        self.path = path
        self.written = 0
        self._warn = warn
        self._last_commit = time.monotonic()
        self._connection: sqlite3.Connection | None = _open(path)
        row = (_now(), source, bundle_id, json.dumps(labels), hop_s, version)
        self._session_id = self._connection.execute(
            "INSERT INTO session (started_utc, source, bundle_id, labels_json, hop_s, version) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            row,
        ).lastrowid
        self._connection.commit()

    def append(self, prediction: Prediction) -> None:
        """Log one window. Never raises for a log that cannot be written: it warns once."""
        if self._connection is None:
            return
        try:
            self._insert(self._connection, prediction)
            if time.monotonic() - self._last_commit >= _COMMIT_EVERY_S:
                self._connection.commit()
                self._last_commit = time.monotonic()
            self.written += 1
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Commit what is pending and close."""
        if self._connection is None:
            return
        try:
            self._connection.commit()
            self._connection.close()
        except sqlite3.Error as error:
            self._give_up(error)
        self._connection = None

    def _insert(self, connection: sqlite3.Connection, p: Prediction) -> None:
        best = p.best
        embedding = None if p.embedding is None else p.embedding.astype("<f2").tobytes()
        window_id = connection.execute(
            "INSERT INTO window (session_id, start_s, end_s, logged_utc, valid, label, similarity,"
            " probability, missing_fraction, rate_hz, inference_ms, embedding_f16)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._session_id,
                p.start_s,
                p.end_s,
                _now(),
                p.valid,
                p.label,
                best and best.similarity,
                best and best.probability,
                p.missing,
                p.rate_hz,
                p.inference_ms,
                embedding,
            ),
        ).lastrowid
        connection.executemany(
            "INSERT INTO prediction VALUES (?, ?, ?, ?, ?)",
            [
                (window_id, rank, s.label, s.similarity, s.probability)
                for rank, s in enumerate(p.top, start=1)
            ],
        )

    def _give_up(self, error: sqlite3.Error) -> None:
        self._warn(
            f"logging to {self.path} stopped after {self.written} windows ({error}); "
            "what was logged before stays, labels go on"
        )
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                return  # it is already given up, and said so


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Created readable by its owner only: it says what someone did all day.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode = WAL")
        # In WAL mode NORMAL is safe against a crash of the program; only a power cut can lose
        # the last transactions.
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version == 0 and tables == 0:
            connection.executescript(_SCHEMA + f"PRAGMA user_version = {SCHEMA_VERSION};")
        elif version != SCHEMA_VERSION:
            raise InputError(
                f"{path}: log version {version}, this runtime writes {SCHEMA_VERSION}; "
                "choose another file with --log"
            )
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"{path}: cannot log there ({error}); choose another file with --log, or --no-log"
        ) from None
    return connection
