"""The log's file: how windows are coded, how old logs are upgraded, and that a purge erases."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import DEFAULT_BUNDLE, load_bundle
from edge.log import store as logstore
from edge.log.codec import WINDOW, basis_of, pack, pack_samples, unpack, unpack_samples
from edge.log.eventlog import EventLog
from edge.log.read import Hit, LogReader, Where
from edge.log.store import Erased, open_for_writing, purge
from edge.moment import Event, Moment
from edge.pipeline import Prediction
from edge.zeroshot import Score
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples

RNG = np.random.default_rng(0)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def test_rows_come_back_bit_for_bit() -> None:
    raw = RNG.integers(0, 256, (100, WINDOW.itemsize), dtype=np.uint8)
    rows = np.ascontiguousarray(raw).view(WINDOW)[:, 0]
    assert unpack(pack(rows)).tobytes() == rows.tobytes()


@pytest.mark.parametrize("has_gyro", [True, False])
def test_samples_come_back(has_gyro: bool) -> None:
    t_s = 1.7e9 + np.arange(50) / 50
    gyro = RNG.normal(0, 1, (50, 3)) if has_gyro else None
    samples = Samples(t_s, RNG.normal(0, 9, (50, 3)), gyro)
    back = unpack_samples(pack_samples(samples), has_gyro)
    np.testing.assert_array_equal(back.t_s, t_s)
    np.testing.assert_allclose(back.acc_mps2, samples.acc_mps2, rtol=1e-6)
    assert (back.gyro_rads is None) == (gyro is None)


def test_the_basis_is_the_subspace_that_the_embeddings_lie_in() -> None:
    plane = np.linalg.qr(RNG.normal(size=(64, 12)))[0].T
    inside = unit(RNG.normal(size=(100, 12)) @ plane)
    basis = basis_of(inside.astype(np.float16).astype(np.float32))
    assert basis.rank == 12
    others = unit(RNG.normal(size=(40, 12)) @ plane)
    np.testing.assert_allclose(basis.decode(basis.encode(others)), others, atol=0.01)


def test_too_few_embeddings_tell_no_subspace() -> None:
    vectors = unit(RNG.normal(size=(10, 64)))
    assert basis_of(vectors).rows is None  # an eleventh may point elsewhere
    assert basis_of(unit(RNG.normal(size=(100, 64)))).rows is None
    basis = basis_of(vectors)
    np.testing.assert_allclose(basis.decode(basis.encode(vectors)), vectors, atol=0.01)


def test_the_shipped_bundle_is_coded_in_128_bytes_and_cosines_stay() -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    assert bundle.reference is not None
    basis = basis_of(bundle.reference)
    assert basis.rank == 128
    golden = np.load(DEFAULT_BUNDLE / "golden.npz")["embedding"][None]
    embeddings = unit(np.concatenate([golden, bundle.reference]))
    blob = basis.encode(embeddings)
    assert len(blob) == len(embeddings) * 130
    coded = basis.decode(blob)
    error = (coded - embeddings) @ bundle.prototypes.T
    assert np.abs(error).max() < 0.01 and error.std() < 0.0015
    np.testing.assert_allclose(np.linalg.norm(coded, axis=1), 1, atol=1e-4)


def test_a_window_without_embedding_stays_zero() -> None:
    basis = basis_of(unit(RNG.normal(size=(100, 8))))
    coded = basis.decode(basis.encode(np.zeros((3, 8), np.float32)))
    np.testing.assert_array_equal(coded, np.zeros((3, 8)))


# Logs of version 1: the tables as edge-run made them then.
_VERSION_1 = """
CREATE TABLE session (
    id INTEGER PRIMARY KEY, started_utc TEXT NOT NULL, source TEXT NOT NULL,
    bundle_id TEXT NOT NULL, labels_json TEXT NOT NULL, hop_s REAL NOT NULL, version TEXT NOT NULL
);
CREATE TABLE window (
    id INTEGER PRIMARY KEY, session_id INTEGER NOT NULL REFERENCES session (id),
    start_s REAL NOT NULL, end_s REAL NOT NULL, logged_utc TEXT NOT NULL, valid INTEGER NOT NULL,
    label TEXT, similarity REAL, probability REAL, missing_fraction REAL NOT NULL,
    rate_hz REAL NOT NULL, inference_ms REAL NOT NULL, embedding_f16 BLOB
);
CREATE INDEX window_by_time ON window (session_id, start_s);
CREATE TABLE prediction (
    window_id INTEGER NOT NULL REFERENCES window (id), rank INTEGER NOT NULL, label TEXT NOT NULL,
    similarity REAL NOT NULL, probability REAL NOT NULL, PRIMARY KEY (window_id, rank)
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
_OLD_WINDOWS = 1100


def old_log(path: Path) -> np.ndarray:
    """Two sessions of 1,100 and of no windows; returns the embeddings."""
    embeddings = unit(RNG.normal(size=(_OLD_WINDOWS, 4)) @ RNG.normal(size=(4, 32)))
    db = sqlite3.connect(path)
    db.executescript(_VERSION_1)
    for source in ("ble:Polar", "replay:x.csv"):
        db.execute(
            "INSERT INTO session (started_utc, source, bundle_id, labels_json, hop_s, version)"
            " VALUES ('2026-01-02T03:04:00.000+00:00', ?, 'b', '[\"walk\", \"sit\"]', 1.0, '0')",
            (source,),
        )
    for k, embedding in enumerate(embeddings):
        valid = k != 1
        window = db.execute(
            "INSERT INTO window (session_id, start_s, end_s, logged_utc, valid, label, similarity,"
            " probability, missing_fraction, rate_hz, inference_ms, embedding_f16)"
            " VALUES (1, ?, ?, '2026-01-02T03:05:00.000+00:00', ?, ?, ?, ?, 0.25, 50.0, 0.5, ?)",
            (
                *(k, k + 5, valid),
                *(("unknown" if k == 2 else "sit", 0.5, 0.75) if valid else (None,) * 3),
                embedding.astype("<f2").tobytes() if valid else None,
            ),
        ).lastrowid
        if valid:
            db.execute("INSERT INTO prediction VALUES (?, 1, 'sit', 0.5, 0.75)", (window,))
            db.execute("INSERT INTO prediction VALUES (?, 2, 'walk', 0.125, 0.25)", (window,))
    db.commit()
    db.close()
    return embeddings


def check_upgraded(path: Path, embeddings: np.ndarray) -> None:
    with LogReader(path) as log:
        first, second = log.sessions()
        assert (first.windows, second.windows) == (_OLD_WINDOWS, 0)
        assert first.clock_known and first.zero_utc_s == 1767323100 - 5.0
        assert not second.clock_known
        blocks = list(log.windows(with_embeddings=True))
        labels = [label for b in blocks for label in b.texts(b.label)]
        assert labels == ["sit", None, "unknown"] + ["sit"] * (_OLD_WINDOWS - 3)
        block = blocks[0]
        assert block.texts(block.top[0, :3]) == ["sit", "walk", None]
        assert block.texts(block.top[1, :1]) == [None] and not block.valid[1] and block.valid[2]
        np.testing.assert_array_equal(block.similarity[0, :2], [0.5, 0.125])
        np.testing.assert_array_equal(block.probability[2, :2], [0.75, 0.25])
        assert block.confidence[0] == 0.75 and block.missing[0] == 0.25
        stored = np.concatenate([b.embedding for b in blocks if b.embedding is not None])
    valid = np.arange(_OLD_WINDOWS) != 1
    np.testing.assert_allclose(stored[valid], embeddings[valid], atol=0.01)


def test_an_old_log_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    embeddings = old_log(path)
    before = path.read_bytes()
    check_upgraded(path, embeddings)
    assert path.read_bytes() == before


def test_an_old_log_is_upgraded_once_it_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    embeddings = old_log(path)
    size = path.stat().st_size
    open_for_writing(path).close()
    check_upgraded(path, embeddings)
    assert path.stat().st_size < size / 2
    db = sqlite3.connect(path)
    assert db.execute("SELECT dimension, length(basis_f32) FROM bundle").fetchall() == [
        (32, 4 * 32 * 4)  # rank 4 was found from the embeddings themselves
    ]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    db.close()
    assert not {name for name in tables if name.startswith("old_")}
    EventLog(path, "x", "b", ["walk"], 1.0, "0", pytest.fail).close()
    with LogReader(path) as log:
        assert [s.id for s in log.sessions()] == [1, 2, 3]


def test_an_upgrade_that_fails_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    embeddings = old_log(path)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("edge.log.upgrade.add_block", full)
        with pytest.raises(InputError, match="disk is full"):
            open_for_writing(path)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert db.execute("SELECT count(*) FROM window").fetchone() == (_OLD_WINDOWS,)
    db.close()
    open_for_writing(path).close()
    check_upgraded(path, embeddings)


LABELS = ["walking", "sitting"]
SECRET = "a label nobody may read"


def made_log(path: Path, seconds: int = 1500) -> None:
    """A window a second: 500 s of walking, a secret and walking again; raw samples of the last
    600 s; and a query."""
    log = EventLog(
        path,
        "replay:x",
        "b",
        [*LABELS, SECRET],
        1.0,
        "0",
        pytest.fail,
        reference=unit(RNG.normal(size=(40, 6)) @ RNG.normal(size=(6, 32))),
        device="Polar",
        keep_raw_s=600,
    )
    t_s = 1_000_000_001 + np.arange(seconds * 10) / 10
    for _ in log.passing(
        [Samples(t_s, np.ones((len(t_s), 3)), None)[i : i + 100] for i in range(0, len(t_s), 100)]
    ):
        pass
    for k in range(seconds):
        label = SECRET if 500 <= k < 1000 else "walking"
        start_s = 1_000_000_001.0 + k
        event = Event(1 + k // 500, start_s - k % 500, start_s + 1, label, 0.7, k % 500 == 499)
        top = (Score(label, 0.5, 0.8),)
        embedding = unit(RNG.normal(size=32))
        window = Prediction(start_s, start_s + 5, True, top, 0.0, 50.0, 0.4, embedding)
        log.show(Moment(window, label, 0.7, (event,)))
    log.close()
    with LogReader(path) as reader:
        hits = [
            Hit(1, s, s + 5, s, 0.5, label, 0.7, label, 0.8)
            for s, label in ((1_000_000_101.0, "walking"), (1_000_000_701.0, SECRET))
        ]
        reader.record_query("what I did", Where(label="walking"), hits, 12.5)


def holds(folder: Path, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in folder.iterdir())


def test_purging_everything_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    made_log(path)
    assert holds(tmp_path, SECRET) and holds(tmp_path, "Polar") and holds(tmp_path, "what I did")
    erased = purge(path, Where())
    assert erased[:3] == (1500, 3, 1) and 590 < erased.raw_s < 620 and erased.not_shrunk is None
    assert not any(holds(tmp_path, text) for text in (SECRET, "walking", "Polar", "what I did"))
    assert path.stat().st_size < 100_000
    with LogReader(path) as log:
        assert log.sessions() == [] and log.events() == [] and log.queries() == []
    assert purge(path, Where()) == Erased(0, 0, 0, 0.0, None)


def test_purging_a_label_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    made_log(path)
    erased = purge(path, Where(label=SECRET.upper()))
    assert erased[:3] == (500, 1, 1)  # of the query one hit
    with LogReader(path) as log:
        assert log.label_counts() == {"walking": 1000}
        starts = np.concatenate([b.start_s for b in log.windows()]) - 1_000_000_001
        np.testing.assert_array_equal(starts, [*range(500), *range(1000, 1500)])
        assert [e.label for e in log.events()] == ["walking", "walking"]
        (query,) = log.queries()
        assert [hit.label for hit in query.hits] == ["walking"]
        t_s = np.concatenate([piece.t_s for piece in log.raw(0, 2e9)]) - 1_000_000_001
        assert t_s.min() >= 1004  # the windows that were erased end here
        for block in log.windows(with_embeddings=True):
            assert block.embedding is not None and len(block.embedding) == len(block)


def test_purging_a_time_cuts_blocks_and_events(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    made_log(path)
    with LogReader(path) as log:
        kept = {
            float(s): e
            for b in log.windows(None, True)
            for s, e in zip(b.start_s, b.embedding, strict=True)
        }
    zero = 1_000_000_001
    erased = purge(path, Where(since_utc_s=zero + 100, until_utc_s=zero + 600))
    # A window lasts 5 s: those that began up to 5 s before hold some of that time too.
    assert erased.windows == 504 and erased.events == 2 and erased.queries == 1
    with LogReader(path) as log:
        blocks = list(log.windows(with_embeddings=True))
        starts = np.concatenate([b.start_s for b in blocks])
        np.testing.assert_array_equal(starts - zero, [*range(96), *range(600, 1500)])
        for block in blocks:
            assert block.embedding is not None
            for start_s, embedding in zip(block.start_s, block.embedding, strict=True):
                np.testing.assert_array_equal(embedding, kept[float(start_s)])
        assert [(e.start_s - zero, e.end_s - zero, e.label) for e in log.events()] == [
            (0, 100, "walking"),
            (600, 1000, SECRET),
            (1000, 1500, "walking"),
        ]
        assert log.label_counts() == {"walking": 96 + 500, SECRET: 400}


def test_what_is_erased_is_overwritten_where_the_file_keeps_its_size(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    made_log(path, seconds=8000)
    db = sqlite3.connect(path)
    query = "SELECT data FROM block_embeddings ORDER BY id LIMIT 1"
    codes = db.execute(query).fetchone()[0]
    db.close()
    size = path.stat().st_size
    middle = codes[1024 + 1500 :][:100]  # of windows 250 and on, whose codes have 6 bytes each
    assert middle in path.read_bytes()
    purge(path, Where(since_utc_s=1_000_000_001 + 200, until_utc_s=1_000_000_001 + 300))
    assert path.stat().st_size >= size
    assert not any(middle in file.read_bytes() for file in tmp_path.iterdir())


def test_a_time_within_an_event_leaves_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    made_log(path)
    zero = 1_000_000_001
    purge(path, Where(since_utc_s=zero + 1100, until_utc_s=zero + 1200))
    with LogReader(path) as log:
        ends = [
            (e.start_s - zero, e.end_s - zero) for e in log.events(Where(since_utc_s=zero + 1000))
        ]
    assert ends == [(1000, 1100), (1200, 1500)]


def test_what_is_old_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    made_log(path)
    assert purge(path, Where(until_utc_s=1_000_000_001 + 1000)).windows == 1000
    with LogReader(path) as log:
        assert log.label_counts() == {"walking": 500}
        assert log.queries()[0].hits == ()  # it was asked today: the question itself stays


def test_a_purge_waits_for_no_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logstore, "_BUSY_S", 0.1)
    path = tmp_path / "log.db"
    made_log(path)
    with LogReader(path) as reader:
        erased = purge(path, Where())
        assert erased.windows == 1500 and erased.not_shrunk is not None
        assert sum(map(len, reader.windows())) == 1500  # what it began to read
    with LogReader(path) as log:
        assert log.sessions() == []


def test_there_is_nothing_to_purge_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no log"):
        purge(tmp_path / "log.db", Where())
    assert list(tmp_path.iterdir()) == []
