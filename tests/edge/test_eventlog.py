"""The event log: what is in it, and that nothing logged is lost."""

from __future__ import annotations

import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.eventlog import EventLog
from edge.pipeline import Prediction
from edge.zeroshot import Score
from firmware_bridge.errors import InputError


def prediction(k: int, valid: bool = True) -> Prediction:
    top = (Score("walking", 0.5, 0.8), Score("sitting", 0.1, 0.2)) if valid else ()
    embedding = np.full(512, k / 1000, np.float32) if valid else None
    return Prediction(k, k + 5.0, valid, top, 0.0 if valid else 0.6, 50.0, 0.4, embedding)


def open_log(path: Path, warnings: list[str] | None = None) -> EventLog:
    sink = [] if warnings is None else warnings
    return EventLog(path, "replay:x.csv", "bundle-1", ["walking", "sitting"], 1.0, "0", sink.append)


def test_every_window_is_there_with_all_that_was_said(tmp_path: Path) -> None:
    log = open_log(tmp_path / "deep" / "log.db")
    log.append(prediction(1))
    log.append(prediction(2, valid=False))
    log.close()
    db = sqlite3.connect(log.path)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    session = db.execute("SELECT source, bundle_id, labels_json, hop_s FROM session").fetchone()
    assert session == ("replay:x.csv", "bundle-1", '["walking", "sitting"]', 1.0)
    rows = db.execute(
        "SELECT start_s, end_s, valid, label, similarity, probability, missing_fraction, rate_hz,"
        " inference_ms FROM window ORDER BY id"
    ).fetchall()
    assert rows == [
        (1.0, 6.0, 1, "walking", 0.5, 0.8, 0.0, 50.0, 0.4),
        (2.0, 7.0, 0, None, None, None, 0.6, 50.0, 0.4),
    ]
    top = db.execute("SELECT rank, label, probability FROM prediction ORDER BY rank").fetchall()
    assert top == [(1, "walking", 0.8), (2, "sitting", 0.2)]
    (blob,) = db.execute("SELECT embedding_f16 FROM window WHERE id = 1").fetchone()
    np.testing.assert_allclose(np.frombuffer(blob, "<f2"), 0.001, rtol=1e-3)


def test_an_unknown_window_keeps_what_was_ranked(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.db")
    log.append(replace(prediction(1), presence=0.1, unknown=True))
    log.close()
    db = sqlite3.connect(log.path)
    assert db.execute("SELECT valid, label, probability FROM window").fetchall() == [
        (1, "unknown", 0.8)
    ]
    top = db.execute("SELECT rank, label FROM prediction ORDER BY rank").fetchall()
    assert top == [(1, "walking"), (2, "sitting")]


def test_sessions_are_appended(tmp_path: Path) -> None:
    for k in range(3):
        log = open_log(tmp_path / "log.db")
        log.append(prediction(k))
        log.close()
    db = sqlite3.connect(tmp_path / "log.db")
    assert db.execute("SELECT count(DISTINCT session_id) FROM window").fetchone() == (3,)


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.db")
    log.close()
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_what_is_committed_survives_without_a_close(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.db")
    log._last_commit -= 10  # the last commit is over a second ago
    log.append(prediction(1))
    reader = sqlite3.connect(log.path)
    assert reader.execute("SELECT count(*) FROM window").fetchone() == (1,)


def test_a_full_disk_stops_the_log_with_a_warning_and_nothing_else(tmp_path: Path) -> None:
    warnings: list[str] = []
    log = open_log(tmp_path / "log.db", warnings)
    assert log._connection is not None
    log.append(prediction(0))
    log._connection.commit()
    pages = log._connection.execute("PRAGMA page_count").fetchone()[0]
    log._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    for k in range(1, 200):
        log.append(prediction(k))
    log.close()
    assert len(warnings) == 1 and "stopped after" in warnings[0] and "full" in warnings[0]
    db = sqlite3.connect(log.path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert db.execute("SELECT count(*) FROM window").fetchone()[0] >= 1


def test_a_file_that_is_no_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, " * 200)
    with pytest.raises(InputError, match="choose another file with --log"):
        open_log(path)
    assert path.read_text().startswith("my notes")


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "other.db")
    db.execute("CREATE TABLE recipes (name TEXT)")
    db.commit()
    db.close()
    with pytest.raises(InputError, match="log version 0"):
        open_log(tmp_path / "other.db")
