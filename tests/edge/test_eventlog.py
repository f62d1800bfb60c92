"""Writing the event log: what is in it, that nothing is lost, that the stream never waits."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.log import eventlog
from edge.log.eventlog import EventLog
from edge.log.read import LogReader, Where, WindowBlock
from edge.log.store import BLOCK_WINDOWS, purge
from edge.moment import Event, Moment
from edge.pipeline import Prediction
from edge.zeroshot import Score
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples

LABELS = ["walking", "sitting"]


def prediction(k: int, valid: bool = True) -> Prediction:
    top = (Score("walking", 0.5, 0.8), Score("sitting", 0.1, 0.2)) if valid else ()
    embedding = np.eye(512, dtype=np.float32)[k % 512] if valid else None
    return Prediction(k, k + 5.0, valid, top, 0.0 if valid else 0.6, 50.0, 0.4, embedding)


def moment(k: int, label: str | None = "walking", events: tuple[Event, ...] = ()) -> Moment:
    return Moment(prediction(k), label, 0.75, events)


def show_alone(log: EventLog, prediction: Prediction) -> None:
    """Log a window of which nothing more is said than its own label."""
    best = prediction.best
    log.show(Moment(prediction, prediction.label, best and best.probability))


def open_log(path: Path, warnings: list[str] | None = None, live: bool = False) -> EventLog:
    sink = [] if warnings is None else warnings
    return EventLog(path, "replay:x.csv", "bundle-1", LABELS, 1.0, "0", sink.append, live=live)


def starts(path: Path, where: Where | None = None) -> list[float]:
    with LogReader(path) as log:
        return [float(s) for block in log.windows(where) for s in block.start_s]


def only_block(path: Path) -> WindowBlock:
    with LogReader(path) as log:
        (block,) = log.windows(with_embeddings=True)
    return block


def wait_until_written(log: EventLog, windows: int) -> None:
    for _ in range(1000):
        if log.written >= windows:
            return
        time.sleep(0.01)
    raise AssertionError(f"{log.written} of {windows} windows were written")


def test_every_window_is_there_with_all_that_was_said(tmp_path: Path) -> None:
    log = open_log(tmp_path / "deep" / "log.db")
    seen = replace(
        prediction(1), tilt_deg=12.0, face_deg=80.0, presence=0.25, motion_mps2=1.5, missing=0.125
    )
    log.show(Moment(seen, "sitting", 0.75))
    log.show(Moment(prediction(2, valid=False), None, None))
    log.close()
    assert log.written == 2
    block = only_block(log.path)
    assert block.names == ("walking", "sitting", "unknown", "not worn")
    assert block.texts(block.label) == ["sitting", None]
    assert block.texts(block.window_label) == ["walking", None]
    assert block.texts(block.top[0]) == ["walking", "sitting", None, None, None]
    np.testing.assert_array_equal(block.start_s, [1, 2])
    np.testing.assert_array_equal(block.end_s, [6, 7])
    np.testing.assert_array_equal(block.valid, [True, False])
    np.testing.assert_array_equal(block.confidence, [0.75, np.nan])
    np.testing.assert_allclose(block.similarity[0, :2], [0.5, 0.1], rtol=1e-3)
    np.testing.assert_allclose(block.probability[0, :2], [0.8, 0.2], rtol=1e-3)
    assert np.isnan(block.similarity[1]).all()
    np.testing.assert_array_equal(block.missing, np.float16([0.125, 0.6]))
    np.testing.assert_array_equal(block.rate_hz, [50, 50])
    np.testing.assert_allclose(block.inference_ms, 0.4, rtol=1e-3)
    for column, value in ((block.tilt_deg, 12), (block.face_deg, 80), (block.presence, 0.25)):
        np.testing.assert_array_equal(column, [value, np.nan])
    np.testing.assert_array_equal(block.motion_mps2, [1.5, np.nan])
    assert block.embedding is not None
    np.testing.assert_array_equal(block.embedding, [np.eye(512)[1], np.zeros(512)])


def test_a_window_by_itself_says_its_own_label(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.db")
    show_alone(log, replace(prediction(1), presence=0.1, unknown=True))
    log.close()
    block = only_block(log.path)
    assert block.texts(block.label) == block.texts(block.window_label) == ["unknown"]
    assert block.texts(block.top[:, 0]) == ["walking"]


def test_many_windows_fill_blocks_and_none_is_lost(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.db")
    n = 2 * BLOCK_WINDOWS + 7
    for k in range(n):
        log.show(moment(k))
        if k == BLOCK_WINDOWS // 2:
            wait_until_written(log, k)  # these lie in `recent` and are moved later
    log.close()
    assert starts(log.path) == list(range(n))
    with LogReader(log.path) as reader:
        blocks = [block.embedding for block in reader.windows(Where(), with_embeddings=True)]
    np.testing.assert_array_equal(
        np.concatenate([e for e in blocks if e is not None]),
        np.eye(512, dtype=np.float32)[np.arange(n) % 512],
    )
    db = sqlite3.connect(log.path)
    assert db.execute("SELECT windows FROM block").fetchall() == [(512,), (512,), (7,)]
    assert db.execute("SELECT count(*) FROM recent").fetchone() == (0,)
    assert db.execute("SELECT label, sum(windows) FROM label_count").fetchall() == [("walking", n)]
    db.close()


def test_events_are_written_when_they_begin_and_closed_when_they_end(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.db")
    walking = Event(1, 0.0, 3.0, "walking", 0.7, False)
    log.show(moment(0, events=(walking,)))
    wait_until_written(log, 1)
    with LogReader(log.path) as reader:  # as after a crash: its last known end
        (event,) = reader.events()
        assert (event.start_s, event.end_s, event.label, event.ended) == (0, 3, "walking", False)
    sitting = Event(2, 9.0, 12.0, "sitting", 0.9, False)
    log.show(moment(9, "sitting", (walking._replace(end_s=9.0, ended=True), sitting)))
    log.finish((sitting._replace(end_s=14.0, ended=True),))
    log.close()
    with LogReader(log.path) as reader:
        assert [(e.number, e.start_s, e.end_s, e.ended) for e in reader.events()] == [
            (1, 0, 9, True),
            (2, 9, 14, True),
        ]


def test_a_growing_event_is_written_now_and_then_and_not_at_every_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_after_growth(path: Path) -> float:
        log = open_log(path)
        log.show(moment(0, events=(Event(1, 0.0, 5.0, "walking", 0.7, False),)))
        wait_until_written(log, 1)
        log.show(moment(1, events=(Event(1, 0.0, 6.0, "walking", 0.7, False),)))
        wait_until_written(log, 2)
        with LogReader(path) as reader:
            (event,) = reader.events()
        log.close()
        with LogReader(path) as reader:
            assert reader.events()[0].end_s == 6
        return event.end_s

    monkeypatch.setattr(eventlog, "_EVENT_EVERY_S", 1e6)
    assert end_after_growth(tmp_path / "seldom.db") == 5
    monkeypatch.setattr(eventlog, "_EVENT_EVERY_S", 0.0)
    assert end_after_growth(tmp_path / "often.db") == 6


def test_a_live_session_knows_the_time_of_day(tmp_path: Path) -> None:
    log = open_log(tmp_path / "live.db", live=True)
    before = time.time()
    log.show(moment(1000))
    after = time.time()
    log.close()
    with LogReader(log.path) as reader:
        (session,) = reader.sessions()
    assert session.clock_known and before - 1005 <= session.zero_utc_s <= after - 1005


def test_a_replay_takes_its_own_time_of_day_if_it_has_one(tmp_path: Path) -> None:
    for name, start_s in (("unix.db", 1_700_000_000.0), ("zero.db", 3.0)):
        log = open_log(tmp_path / name)
        show_alone(log, replace(prediction(0), start_s=start_s, end_s=start_s + 5))
        log.close()
    with LogReader(tmp_path / "unix.db") as reader:
        assert next(reader.windows()).utc_s[0] == 1_700_000_000.0
        assert reader.sessions()[0].clock_known
    with LogReader(tmp_path / "zero.db") as reader:
        (session,) = reader.sessions()
        assert not session.clock_known
        assert next(reader.windows()).utc_s[0] == session.started_utc_s + 3


def test_sessions_are_appended_and_say_where_they_are_from(tmp_path: Path) -> None:
    for k in range(3):
        log = EventLog(
            tmp_path / "log.db",
            "ble:X",
            "bundle-1",
            LABELS,
            0.5,
            "0.1",
            pytest.fail,
            device=f"Polar {k}",
            placement="left wrist",
        )
        show_alone(log, prediction(k))
        log.close()
    with LogReader(log.path) as reader:
        sessions = reader.sessions()
    assert [s.id for s in sessions] == [1, 2, 3]
    last = sessions[-1]
    assert (last.source, last.device, last.placement) == ("ble:X", "Polar 2", "left wrist")
    assert (last.bundle_id, last.labels, last.hop_s) == ("bundle-1", ("walking", "sitting"), 0.5)
    assert (last.windows, last.start_s, last.end_s, last.ended) == (1, 2, 7, True)


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.db")
    show_alone(log, prediction(0))
    wait_until_written(log, 1)
    for path in tmp_path.iterdir():  # the write-ahead log too
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    log.close()


_WRITER = """
import sys, time
from pathlib import Path
from tests.edge.test_eventlog import moment, open_log
log = open_log(Path(sys.argv[1]), live=True)
for k in range(10_000):
    log.show(moment(k))
    print(k, time.monotonic(), flush=True)
    time.sleep(0.02)
"""


def test_a_killed_run_loses_the_last_second_at_most(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        shown = [tuple(map(float, run.stdout.readline().split())) for _ in range(120)]
        run.kill()
        shown += [tuple(map(float, line.split())) for line in run.stdout if line.count(" ")]
    last_s = shown[-1][1]
    kept = starts(path)
    assert kept == list(range(len(kept)))
    assert {k for k, at_s in shown if at_s < last_s - 1.0} <= set(kept)
    with LogReader(path) as reader:
        assert not reader.sessions()[0].ended
    open_log(path).close()  # the next run tidies up
    assert starts(path) == kept
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM recent").fetchone() == (0,)
    db.close()


def test_a_full_disk_stops_the_log_with_one_warning_and_nothing_else(tmp_path: Path) -> None:
    warnings: list[str] = []
    log = open_log(tmp_path / "log.db", warnings)
    log.show(moment(0))
    wait_until_written(log, 1)
    pages = log._store.connection.execute("PRAGMA page_count").fetchone()[0]
    log._store.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    for k in range(1, 10_000):
        log.show(moment(k))
    log.close()
    assert len(warnings) == 1 and "full" in warnings[0]
    assert f"stopped after {log.written} windows" in warnings[0]
    assert starts(log.path) == list(range(log.written))
    db = sqlite3.connect(log.path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_a_live_stream_drops_windows_and_says_so_where_the_disk_is_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventlog, "_MAX_WAITING", 20)
    warnings: list[str] = []
    log = open_log(tmp_path / "log.db", warnings, live=True)
    log.show(moment(0))
    wait_until_written(log, 1)
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # nobody else can write now
    shown = 1
    while log.dropped < 5:
        log.show(moment(shown))
        shown += 1
    other.execute("ROLLBACK")
    other.close()
    log.close()
    assert len(warnings) == 1 and "not logged, labels go on" in warnings[0]
    kept = starts(log.path)
    assert len(kept) == log.written == shown - log.dropped
    with LogReader(log.path) as reader:
        assert reader.sessions()[0].dropped == log.dropped


def test_a_replay_waits_rather_than_drops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "_MAX_WAITING", 8)
    monkeypatch.setattr(eventlog, "_HURRY", 4)
    log = open_log(tmp_path / "log.db")
    for k in range(100):
        log.show(moment(k))
    log.close()
    assert log.dropped == 0 and starts(log.path) == list(range(100))


def test_what_cannot_be_written_down_is_a_warning_and_no_crash(tmp_path: Path) -> None:
    warnings: list[str] = []
    log = open_log(tmp_path / "log.db", warnings)
    show_alone(log, replace(prediction(0), embedding=np.zeros(7, np.float32)))
    log.close()
    assert len(warnings) == 1 and "stopped after 0 windows" in warnings[0]


def test_a_purge_while_a_session_runs_erases_what_was_and_logs_what_comes(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.db")
    event = Event(1, 0.0, 5.0, "walking", 0.7, False)
    log.show(moment(0, events=(event,)))
    wait_until_written(log, 1)
    assert purge(log.path, Where())[:2] == (1, 1)
    log.show(moment(1, events=(event._replace(end_s=6.0, ended=True),)))
    log.close()
    assert starts(log.path) == [1]
    with LogReader(log.path) as reader:
        assert reader.events() == []  # it began before


def test_raw_samples_pass_and_the_newest_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    t_s = np.arange(0, 300, 0.02)
    whole = Samples(t_s, rng.normal(0, 9, (len(t_s), 3)), rng.normal(0, 1, (len(t_s), 3)))
    log = EventLog(tmp_path / "log.db", "x", "b", LABELS, 1.0, "0", pytest.fail, keep_raw_s=60.0)
    chunks = [whole[i : i + 37] for i in range(0, len(whole), 37)]
    passed = list(log.passing(chunks))
    assert all(a is b for a, b in zip(passed, chunks, strict=True))
    show_alone(log, replace(prediction(0), start_s=0.0))
    log.close()
    with LogReader(log.path) as reader:
        zero_s = reader.sessions()[0].zero_utc_s
        (kept,) = reader.raw(zero_s, zero_s + 1000)
        (piece,) = reader.raw(zero_s + 270.0, zero_s + 280.0)
        assert reader.raw(zero_s, zero_s + 100) == []
    assert 60 <= kept.t_s[-1] - kept.t_s[0] <= 72 and kept.t_s[-1] == t_s[-1]
    same = slice(len(t_s) - len(kept), None)
    np.testing.assert_array_equal(kept.t_s, t_s[same])
    np.testing.assert_array_equal(kept.acc_mps2, whole.acc_mps2[same].astype(np.float32))
    assert kept.gyro_rads is not None and whole.gyro_rads is not None
    np.testing.assert_array_equal(kept.gyro_rads, whole.gyro_rads[same].astype(np.float32))
    assert piece.t_s[0] == pytest.approx(270, abs=0.021) and len(piece) in (499, 500, 501)


def test_raw_samples_are_not_kept_unless_asked_for(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.db")
    list(log.passing([Samples(np.arange(100) / 50, np.ones((100, 3)), None)]))
    show_alone(log, prediction(0))
    log.close()
    with LogReader(log.path) as reader:
        assert reader.raw(0, 1e12) == []


def test_a_file_that_is_no_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, " * 200)
    with pytest.raises(InputError, match="choose another file with --log"):
        open_log(path)
    assert path.read_text() == "my notes, " * 200


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipes (name TEXT)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match="a database of something else"):
        open_log(path)
    assert path.read_bytes() == before


def test_a_log_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    open_log(tmp_path / "log.db").close()
    db = sqlite3.connect(tmp_path / "log.db")
    db.execute("PRAGMA user_version = 3")
    db.close()
    with pytest.raises(InputError, match=r"log version 3.*update aura-edge"):
        open_log(tmp_path / "log.db")
    with pytest.raises(InputError, match=r"log version 3.*update aura-edge"):
        LogReader(tmp_path / "log.db")


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot log there"):
        open_log(tmp_path / "file" / "log.db")
