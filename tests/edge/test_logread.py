"""Reading the event log: filters, exact search, and what was recorded beside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.log.eventlog import EventLog
from edge.log.read import Hit, LogReader, Where
from edge.log.store import BLOCK_WINDOWS
from edge.moment import Event, Moment
from edge.pipeline import Prediction
from edge.zeroshot import Score
from firmware_bridge.errors import InputError

LABELS = ["walking", "sitting", "Lying down"]
ZERO = 1_000_000_001.0
N = 2 * BLOCK_WINDOWS + 100
DIMENSION = 24


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def label_of(k: int) -> str:
    return LABELS[k // 400 % 3]


def add_session(
    path: Path, bundle: str = "b", seed: int = 0, start_s: float = ZERO, n: int = N
) -> tuple[EventLog, np.ndarray]:
    """A window a second, every fiftieth not valid; returns the open log and the embeddings."""
    rng = np.random.default_rng(seed)
    plane = np.linalg.qr(np.random.default_rng(7).normal(size=(DIMENSION, 8)))[0].T
    embeddings = unit(rng.normal(size=(n, 8)) @ plane)
    reference = unit(rng.normal(size=(50, 8)) @ plane)
    log = EventLog(
        path,
        f"ble:W{seed}",
        bundle,
        LABELS,
        1.0,
        "0",
        pytest.fail,
        reference=reference,
        device="Polar",
    )
    for k in range(n):
        at, label = start_s + k, label_of(k)
        event = Event(k // 400 + 1, start_s + k // 400 * 400, at + 1, label, 0.7, k % 400 == 399)
        if k % 50 == 49:
            log.show(Moment(Prediction(at, at + 5, False, (), 0.9, 50.0, 0.0, None), None, None))
            embeddings[k] = 0
            continue
        top = (Score(LABELS[(k + 1) % 3], 0.5, 0.8),)
        window = Prediction(at, at + 5, True, top, 0.0, 50.0, 0.4, embeddings[k])
        log.show(Moment(window, label, 0.75, (event,)))
    return log, embeddings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("log") / "log.db"
    log, embeddings = add_session(path)
    log.close()
    other, _ = add_session(path, "other bundle", seed=1, start_s=ZERO + 10_000, n=60)
    other.close()
    return path, embeddings


WHERES: list[tuple[Where, Callable[[int], bool]]] = [
    (Where(session=1), lambda k: True),
    (Where(session=1, since_utc_s=ZERO + 100.5), lambda k: k >= 101),
    (Where(session=1, until_utc_s=ZERO + 700), lambda k: k < 700),
    (Where(session=1, since_utc_s=ZERO + 600, until_utc_s=ZERO + 603), lambda k: 600 <= k < 603),
    (Where(session=1, label="lying DOWN"), lambda k: k % 50 != 49 and label_of(k) == "Lying down"),
    (
        Where(session=1, label="walking", since_utc_s=ZERO + 300),
        lambda k: k % 50 != 49 and k >= 300 and label_of(k) == "walking",
    ),
    (Where(session=1, label="flying"), lambda k: False),
]


@pytest.mark.parametrize(("where", "asked"), WHERES)
def test_filters_give_the_windows_asked_for(
    made: tuple[Path, np.ndarray], where: Where, asked: Callable[[int], bool]
) -> None:
    with LogReader(made[0]) as log:
        starts = [float(s) - ZERO for block in log.windows(where) for s in block.start_s]
        counts = log.label_counts(where)
    wanted = [k for k in range(N) if asked(k)]
    assert starts == wanted
    labels = [label_of(k) for k in wanted if k % 50 != 49]
    assert counts == {label: labels.count(label) for label in set(labels)}


@pytest.mark.parametrize(("where", "asked"), WHERES)
@pytest.mark.parametrize("top", [1, 40, 5000])
def test_a_search_finds_what_comparing_every_window_finds(
    made: tuple[Path, np.ndarray], where: Where, asked: Callable[[int], bool], top: int
) -> None:
    path, embeddings = made
    for seed in range(3):
        vector = np.random.default_rng(100 + seed).normal(size=DIMENSION).astype(np.float32)
        with LogReader(path) as log:
            hits = log.search(vector, where, top)
            blocks = list(log.windows(where, with_embeddings=True))
        stored = {
            float(s): e
            for b in blocks
            for s, e, ok in zip(b.start_s, b.embedding, b.valid, strict=True)
            if ok
        }
        similar = {s: float(e @ unit(vector)) for s, e in stored.items()}
        nearest = sorted(similar, key=lambda s: -similar[s])[:top]
        assert len(hits) == len(nearest)
        for hit, start_s in zip(hits, nearest, strict=True):
            assert hit.similarity == pytest.approx(similar[start_s], abs=3e-4)
            assert hit.similarity == pytest.approx(similar[hit.start_s], abs=3e-4)
            true = float(embeddings[round(hit.start_s - ZERO)] @ unit(vector))
            assert hit.similarity == pytest.approx(true, abs=0.01)
            assert asked(round(hit.start_s - ZERO))
        assert [h.similarity for h in hits] == sorted((h.similarity for h in hits), reverse=True)


def test_a_hit_says_what_was_said_then(made: tuple[Path, np.ndarray]) -> None:
    path, embeddings = made
    with LogReader(path) as log:
        (hit,) = log.search(embeddings[450], Where(session=1), top=1)
    assert hit == Hit(
        1,
        ZERO + 450,
        ZERO + 455,
        ZERO + 450,
        hit.similarity,
        "sitting",
        0.75,
        LABELS[451 % 3],
        pytest.approx(0.8, rel=1e-3),
    )
    assert hit.similarity == pytest.approx(1, abs=1e-3)


def test_a_search_may_be_kept_to_one_bundle(made: tuple[Path, np.ndarray]) -> None:
    vector = np.ones(DIMENSION, np.float32)
    with LogReader(made[0]) as log:
        assert {hit.session for hit in log.search(vector, top=5000)} == {1, 2}
        assert {hit.session for hit in log.search(vector, top=9, bundle_id="other bundle")} == {2}
        assert log.search(np.ones(7, np.float32)) == []  # embeddings of another length


def test_windows_that_fill_no_block_yet_are_found_too(tmp_path: Path) -> None:
    log, embeddings = add_session(tmp_path / "log.db", n=30)
    while log.written < 30:
        time.sleep(0.01)
    with LogReader(log.path) as reader:  # the session still runs
        assert [h.start_s - ZERO for h in reader.search(embeddings[7], top=1)] == [7]
        assert sum(map(len, reader.windows())) == 30
        assert reader.label_counts(Where(label="walking")) == {"walking": 30}
        assert not reader.sessions()[0].ended
    log.close()


def test_a_reader_sees_the_log_as_it_was_when_opened(tmp_path: Path) -> None:
    log, _ = add_session(tmp_path / "log.db", n=30)
    while log.written < 30:
        time.sleep(0.01)
    with LogReader(log.path) as reader:
        log.close()  # moves the windows to a block
        assert sum(map(len, reader.windows())) == 30 and not reader.sessions()[0].ended


def test_devices_and_sources_are_found_by_a_part_of_their_name(
    made: tuple[Path, np.ndarray],
) -> None:
    with LogReader(made[0]) as log:
        assert [s.id for s in log.sessions(Where(device="polar"))] == [1, 2]
        assert [s.id for s in log.sessions(Where(device="BLE:w1"))] == [2]
        assert log.sessions(Where(device="movesense")) == []
        late = Where(since_utc_s=ZERO + 5000)
        assert [s.id for s in log.sessions(late)] == [2]
        assert sum(len(b) for b in log.windows(Where(device="ble:W1"))) == 60


def test_events_by_time_and_label(made: tuple[Path, np.ndarray]) -> None:
    with LogReader(made[0]) as log:
        assert [e.label for e in log.events(Where(session=1))] == LABELS
        (event,) = log.events(Where(session=1, label="SITTING"))
        assert (event.utc_s, event.start_s, event.duration_s) == (ZERO + 400, ZERO + 400, 399)
        within = Where(session=1, since_utc_s=ZERO + 450, until_utc_s=ZERO + 460)
        assert [e.label for e in log.events(within)] == ["sitting"]


def test_queries_are_recorded_with_what_they_found(tmp_path: Path) -> None:
    log, embeddings = add_session(tmp_path / "log.db", n=200)
    log.close()
    where = Where(label="walking", since_utc_s=ZERO)
    with LogReader(log.path) as reader:
        hits = reader.search(embeddings[3], where, top=150)
        reader.record_query("going for a walk", where, hits, 12.5)
    with LogReader(log.path) as reader:
        (query,) = reader.queries()
    assert (query.text, query.where, query.took_ms) == ("going for a walk", where, 12.5)
    assert query.hits == tuple(hits[:100])


def test_there_is_no_log_to_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no log"):
        LogReader(tmp_path / "log.db")
    (tmp_path / "notes").write_text("not a database at all" * 50)
    with pytest.raises(InputError, match="cannot be read as a log"):
        LogReader(tmp_path / "notes")
