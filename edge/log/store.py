"""The file of the event log: its tables, how it is opened, how windows are put in, and how they are
erased.

Plain tables hold what people ask for (`session`, `event`, `query`, the view `label_count`); windows
and embeddings lie in blocks of some minutes (`block`, `block_windows`, `block_embeddings`, in the
form of `edge/log/codec.py`). The newest windows of a session, which fill no block yet, lie in
`recent`, a row for each commit.

    sqlite3 log.db "SELECT label, sum(end_s - start_s) / 3600 AS hours FROM event GROUP BY label"
    sqlite3 log.db "SELECT label, sum(windows) FROM label_count GROUP BY label"
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.log.codec import WINDOW, Basis, Rows, pack, unpack
from edge.moment import NOT_WORN_LABEL
from edge.pipeline import UNKNOWN_LABEL
from firmware_bridge.errors import InputError

SCHEMA_VERSION = 2

BLOCK_WINDOWS = 512
"""Of a full block: 8.5 minutes at a hop of 1 s, 66 kB of embeddings."""

_BUSY_S = 10.0
"""How long another program's write is waited for."""

SCHEMA = """
CREATE TABLE bundle (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    dimension INTEGER NOT NULL,  -- of the embeddings
    basis_f32 BLOB               -- (K, dimension), NULL for the whole space
);
CREATE TABLE session (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, not even after a purge
    started_utc_s REAL NOT NULL,
    ended_utc_s REAL,            -- NULL while it runs and after a crash
    zero_utc_s REAL,             -- UTC of the source's time 0, NULL if not known
    source TEXT NOT NULL,
    device TEXT,
    placement TEXT,
    bundle_id INTEGER NOT NULL REFERENCES bundle (id),
    labels_json TEXT NOT NULL,
    hop_s REAL NOT NULL,
    version TEXT NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE event (
    session_id INTEGER NOT NULL REFERENCES session (id),
    number INTEGER NOT NULL,
    start_s REAL NOT NULL,
    end_s REAL NOT NULL,
    label TEXT NOT NULL,
    confidence REAL NOT NULL,
    ended INTEGER NOT NULL,
    PRIMARY KEY (session_id, number)
) WITHOUT ROWID;
CREATE TABLE recent (
    id INTEGER PRIMARY KEY,
    session_id INTEGER NOT NULL REFERENCES session (id),
    windows INTEGER NOT NULL,
    first_s REAL NOT NULL,       -- start of the first window
    last_s REAL NOT NULL,        -- start of the last window
    end_s REAL NOT NULL,         -- end of the last window
    window_data BLOB NOT NULL,
    embedding_data BLOB NOT NULL
);
CREATE TABLE block (
    id INTEGER PRIMARY KEY,
    session_id INTEGER NOT NULL REFERENCES session (id),
    windows INTEGER NOT NULL,
    first_s REAL NOT NULL,
    last_s REAL NOT NULL,
    end_s REAL NOT NULL
);
CREATE INDEX block_by_time ON block (session_id, first_s);
CREATE TABLE block_windows (
    id INTEGER PRIMARY KEY REFERENCES block (id) ON DELETE CASCADE, data BLOB NOT NULL
);
CREATE TABLE block_embeddings (
    id INTEGER PRIMARY KEY REFERENCES block (id) ON DELETE CASCADE, data BLOB NOT NULL
);
CREATE TABLE block_label (
    block_id INTEGER NOT NULL REFERENCES block (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    windows INTEGER NOT NULL,
    PRIMARY KEY (block_id, label)
) WITHOUT ROWID;
CREATE VIEW label_count AS
    SELECT session_id, first_s, end_s, label, block_label.windows AS windows
    FROM block JOIN block_label ON block.id = block_label.block_id;
CREATE TABLE query (
    id INTEGER PRIMARY KEY,
    asked_utc_s REAL NOT NULL,
    text TEXT NOT NULL,
    where_json TEXT NOT NULL,
    hits_json TEXT NOT NULL,
    took_ms REAL NOT NULL
);
CREATE TABLE raw (
    id INTEGER PRIMARY KEY,
    session_id INTEGER NOT NULL REFERENCES session (id),
    start_s REAL NOT NULL,
    end_s REAL NOT NULL,
    has_gyro INTEGER NOT NULL,
    data BLOB NOT NULL
);
"""


@dataclass(frozen=True)
class Where:
    """Which windows and events; None asks for all."""

    since_utc_s: float | None = None
    """A window starts at or after it; an event ends after it."""

    until_utc_s: float | None = None
    """Both start before it."""

    label: str | None = None
    """What was said then, upper or lower case."""

    session: int | None = None

    device: str | None = None
    """Part of the session's device or source, upper or lower case."""


class Span(NamedTuple):
    """What a `Where` asks for of one session, in the session's own time."""

    session: int
    since_s: float
    until_s: float


class Erased(NamedTuple):
    """What a purge erased."""

    windows: int
    events: int
    """Erased or cut short."""
    queries: int
    raw_s: float
    """Seconds of raw samples."""
    not_shrunk: str | None
    """Why the file could not be made smaller; what was erased is overwritten in any case."""


def session_names(labels: Sequence[str]) -> tuple[str, ...]:
    """What a session's label indices mean."""
    return (*labels, UNKNOWN_LABEL, NOT_WORN_LABEL)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def open_for_writing(path: Path, create: bool = True) -> sqlite3.Connection:
    """The log, made or upgraded where that is needed.

    The connection may be used from one thread at a time, and leaves transactions to the caller.

    Raises:
        InputError: it cannot be opened or made, is no log, or was written by a newer version.
    """
    if not create and not path.exists():
        raise InputError(f"{path}: there is no log; edge-run writes one")
    connection: sqlite3.Connection | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Created readable by its owner only: it says what someone did all day.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        _prepare(connection, path)
    except (OSError, sqlite3.Error) as error:
        if connection:
            connection.close()
        raise cannot_log(path, error) from None
    except BaseException:
        if connection:
            connection.close()
        raise
    return connection


def cannot_log(path: Path, why: Exception) -> InputError:
    """What is said where a log cannot be opened."""
    return InputError(
        f"{path}: cannot log there ({why}); choose another file with --log, or --no-log"
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    # In WAL mode NORMAL is safe against a crash of the program; only a power cut can lose the last
    # transactions.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
    if version == SCHEMA_VERSION:
        return
    from edge.log.upgrade import upgrade

    with transaction(connection):
        # Asked again: by now another program may have done it.
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 1:
            upgrade(connection)
        elif version == 0:
            create_tables(connection)
    if version == 1:
        with suppress(sqlite3.Error):  # too full a disk for it: only the file stays as large
            connection.execute("VACUUM")


def create_tables(connection: sqlite3.Connection) -> None:
    """All of version 2, in an empty database; within the transaction that is open."""
    for statement in SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """0 for an empty file.

    Raises:
        InputError: it is no log, or was written by a newer version.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: log version {version}, this runtime writes {SCHEMA_VERSION}; update "
            "aura-edge, or choose another file with --log"
        )
    if tables and not _is_log(connection):
        raise InputError(
            f"{path}: a database of something else (log version {version}); choose another file "
            "with --log"
        )
    return version


def _is_log(connection: sqlite3.Connection) -> bool:
    columns = {row[1] for row in connection.execute("PRAGMA table_info (session)")}
    return {"source", "bundle_id", "labels_json", "hop_s"} <= columns


def open_for_reading(path: Path) -> sqlite3.Connection:
    """The log as it is at this moment, read-only. A log of version 1 is read into memory, in the
    form of today; the file stays as it is.

    Raises:
        InputError: there is no log, it is none, or it was written by a newer version.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no log; edge-run writes one, --log PATH names another")
    connection: sqlite3.Connection | None = None
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
        version = _version(connection, path)
        if version == SCHEMA_VERSION:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM session").fetchone()  # takes the snapshot
            return connection
        return _read_as_today(connection, version)
    except sqlite3.Error as error:
        if connection:
            connection.close()
        raise InputError(f"{path}: cannot be read as a log ({error})") from None
    except InputError:
        if connection:
            connection.close()
        raise


def _read_as_today(old: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """A copy in memory, upgraded; closes `old`."""
    from edge.log.upgrade import upgrade

    copy = sqlite3.connect(":memory:", isolation_level=None)
    with closing(old):
        if version == 1:
            old.backup(copy)
            upgrade(copy)
        else:
            create_tables(copy)
    return copy


def keep_bundle(connection: sqlite3.Connection, name: str, basis: Basis) -> int:
    """The id of a bundle's row, made if there is none."""
    rows = None if basis.rows is None else basis.rows.astype("<f4").tobytes()
    connection.execute(
        "INSERT OR IGNORE INTO bundle (name, dimension, basis_f32) VALUES (?, ?, ?)",
        (name, basis.dimension, rows),
    )
    found = connection.execute("SELECT id FROM bundle WHERE name = ?", (name,)).fetchone()
    return int(found[0])


def basis_of_bundle(connection: sqlite3.Connection, row: int) -> Basis:
    """The basis that embeddings of a bundle are stored in."""
    dimension, rows = connection.execute(
        "SELECT dimension, basis_f32 FROM bundle WHERE id = ?", (row,)
    ).fetchone()
    if rows is None:
        return Basis(dimension, None)
    return Basis(dimension, np.frombuffer(rows, "<f4").reshape(-1, dimension))


def add_windows(
    connection: sqlite3.Connection,
    session: int,
    names: Sequence[str],
    basis: Basis,
    rows: Rows,
    embeddings: bytes,
) -> None:
    """Put a session's next windows in: once there are enough, with those in `recent`, as blocks."""
    waiting = connection.execute(
        "SELECT total(windows) FROM recent WHERE session_id = ?", (session,)
    ).fetchone()[0]
    if waiting + len(rows) < BLOCK_WINDOWS:
        _add_recent(connection, session, rows, embeddings)
        return
    rows, embeddings = _taken(connection, session, basis, [(rows, embeddings)])
    full = len(rows) - len(rows) % BLOCK_WINDOWS
    for start in range(0, full, BLOCK_WINDOWS):
        part = slice(start, start + BLOCK_WINDOWS)
        add_block(connection, session, names, rows[part], basis.part(embeddings, part))
    if full < len(rows):
        part = slice(full, None)
        _add_recent(connection, session, rows[part], basis.part(embeddings, part))


def settle(
    connection: sqlite3.Connection, session: int, names: Sequence[str], basis: Basis
) -> None:
    """Make a block of what a session that has ended left in `recent`."""
    rows, embeddings = _taken(connection, session, basis, [])
    if len(rows):
        add_block(connection, session, names, rows, embeddings)


def settle_crashed(connection: sqlite3.Connection, before: int) -> None:
    """Make blocks of what sessions before this one left in `recent`."""
    crashed = connection.execute(
        "SELECT DISTINCT session.id, labels_json, bundle_id FROM recent"
        " JOIN session ON session.id = session_id WHERE session.id < ?",
        (before,),
    ).fetchall()
    for session, labels, bundle in crashed:
        names = session_names(json.loads(labels))
        settle(connection, session, names, basis_of_bundle(connection, bundle))


def _taken(
    connection: sqlite3.Connection, session: int, basis: Basis, more: list[tuple[Rows, bytes]]
) -> tuple[Rows, bytes]:
    """A session's recent windows, which are deleted, and some more behind them."""
    recent = connection.execute(
        "SELECT window_data, embedding_data FROM recent WHERE session_id = ? ORDER BY id",
        (session,),
    ).fetchall()
    connection.execute("DELETE FROM recent WHERE session_id = ?", (session,))
    parts = [(unpack(windows), embeddings) for windows, embeddings in recent] + more
    if not parts:
        return np.empty(0, WINDOW), b""
    return np.concatenate([rows for rows, _ in parts]), basis.joined([e for _, e in parts])


def _add_recent(
    connection: sqlite3.Connection, session: int, rows: Rows, embeddings: bytes
) -> None:
    connection.execute(
        "INSERT INTO recent (session_id, windows, first_s, last_s, end_s, window_data,"
        " embedding_data) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (session, *_extent(rows), pack(rows), embeddings),
    )


def add_block(
    connection: sqlite3.Connection,
    session: int,
    names: Sequence[str],
    rows: Rows,
    embeddings: bytes,
) -> None:
    """Put a block of windows in, with how often each label was said."""
    block = connection.execute(
        "INSERT INTO block (session_id, windows, first_s, last_s, end_s) VALUES (?, ?, ?, ?, ?)",
        (session, *_extent(rows)),
    ).lastrowid
    connection.execute("INSERT INTO block_windows VALUES (?, ?)", (block, pack(rows)))
    connection.execute("INSERT INTO block_embeddings VALUES (?, ?)", (block, embeddings))
    connection.executemany(
        "INSERT INTO block_label VALUES (?, ?, ?)",
        [(block, label, n) for label, n in counted(rows["label"], names).items()],
    )


def counted(labels: NDArray[np.integer[Any]], names: Sequence[str]) -> dict[str, int]:
    """How often each label occurs in a column of indices."""
    found, counts = np.unique(labels[labels >= 0], return_counts=True)
    total: dict[str, int] = {}
    for index, n in zip(found, counts, strict=True):
        total[names[index]] = total.get(names[index], 0) + int(n)
    return total


def _extent(rows: Rows) -> tuple[int, float, float, float]:
    start_s = rows["start_s"]
    return len(rows), float(start_s[0]), float(start_s[-1]), float(rows["end_s"][-1])


def spans(connection: sqlite3.Connection, where: Where) -> list[Span]:
    """The sessions that `where` asks for, each with its share of the time; by id."""
    found = []
    for session, started, zero, source, device in connection.execute(
        "SELECT id, started_utc_s, zero_utc_s, source, device FROM session ORDER BY id"
    ):
        if where.session not in (None, session):
            continue
        if where.device and where.device.casefold() not in f"{device or ''}\n{source}".casefold():
            continue
        offset_s = started if zero is None else zero
        since_s = -np.inf if where.since_utc_s is None else where.since_utc_s - offset_s
        until_s = np.inf if where.until_utc_s is None else where.until_utc_s - offset_s
        found.append(Span(session, since_s, until_s))
    return found


def kept_labels(where: Where, names: Sequence[str]) -> NDArray[np.int64] | None:
    """Indices of the names that `where` asks for; None for all windows, named or not."""
    if where.label is None:
        return None
    wanted = where.label.casefold()
    return np.array([i for i, n in enumerate(names) if n.casefold() == wanted], np.int64)


def purge(path: Path, where: Where) -> Erased:
    """Erase what `where` asks for, for good: `Where()` erases everything.

    Windows go that overlap the time, and raw samples measured then; events are cut to what remains
    of them; searches go that were made then, and of others the hits that show what is erased. The
    room is overwritten with zeros, the write-ahead log emptied, and the file made smaller where
    that is worth it. What a file system or a flash memory keeps of the old contents of overwritten
    blocks is out of reach. Erases step by step: interrupted, it can be called again.

    Raises:
        InputError: there is no log, or it cannot be written.
    """
    with closing(open_for_writing(path, create=False)) as connection:
        try:
            connection.execute("PRAGMA wal_checkpoint (TRUNCATE)")  # room, if the disk is full
            queries = _erase_queries(connection, where)
            windows, events, raw_s = 0, 0, 0.0
            for span in spans(connection, where):
                erased, times = _erase_windows(connection, span, where)
                windows += erased
                events += _erase_events(connection, span, where)
                raw_s += _erase_raw(connection, span.session, times)
            _erase_empty(connection)
            return Erased(windows, events, queries, raw_s, _shrink(connection))
        except sqlite3.Error as error:
            raise InputError(
                f"{path}: could not be purged ({error}); what was erased so far stays erased, "
                "free some space and purge again, or delete the file and its -wal and -shm"
            ) from None


_ERASED_AT_ONCE = 16
"""Blocks in a transaction: zeros for 1.5 MB pass through the write-ahead log."""


def _erase_windows(
    connection: sqlite3.Connection, span: Span, where: Where
) -> tuple[int, list[tuple[float, float]]]:
    """Erase windows of one session; how many, and from when to when they were."""
    labels, basis = connection.execute(
        "SELECT labels_json, bundle_id FROM session WHERE id = ?", (span.session,)
    ).fetchone()
    names = session_names(json.loads(labels))
    indices, basis_ = kept_labels(where, names), basis_of_bundle(connection, basis)
    with transaction(connection):  # so that only blocks have to be looked at
        settle(connection, span.session, names, basis_)
    blocks = connection.execute(
        "SELECT id, windows, first_s, end_s FROM block"
        " WHERE session_id = ? AND end_s > ? AND first_s < ? ORDER BY first_s",
        (span.session, span.since_s, span.until_s),
    ).fetchall()
    n, times = 0, [] if where.label else [(span.since_s, span.until_s)]
    for at in range(0, len(blocks), _ERASED_AT_ONCE):
        with transaction(connection):
            for block, windows, first_s, end_s in blocks[at : at + _ERASED_AT_ONCE]:
                if indices is None and span.since_s <= first_s and end_s <= span.until_s:
                    n += windows
                else:
                    erased = _cut_block(connection, block, span, names, indices, basis_)
                    n += len(erased)
                    times += _joined_times(erased) if where.label else []
                    if not len(erased):
                        continue
                connection.execute("DELETE FROM block WHERE id = ?", (block,))
        connection.execute("PRAGMA wal_checkpoint (TRUNCATE)")
    return n, times


def _cut_block(
    connection: sqlite3.Connection,
    block: int,
    span: Span,
    names: Sequence[str],
    indices: NDArray[np.int64] | None,
    basis: Basis,
) -> Rows:
    """Put in what is to stay of a block; returns what is not to."""
    rows, embeddings = connection.execute(
        "SELECT block_windows.data, block_embeddings.data FROM block_windows"
        " JOIN block_embeddings USING (id) WHERE id = ?",
        (block,),
    ).fetchone()
    rows = unpack(rows)
    erased = (rows["end_s"] > span.since_s) & (rows["start_s"] < span.until_s)
    if indices is not None:
        erased &= np.isin(rows["label"], indices)
    if erased.any() and not erased.all():
        stay = ~erased
        add_block(connection, span.session, names, rows[stay], basis.part(embeddings, stay))
    return rows[erased]


def _joined_times(rows: Rows) -> list[tuple[float, float]]:
    """From when to when windows were, those that overlap joined."""
    if not len(rows):
        return []
    breaks = np.flatnonzero(rows["start_s"][1:] > rows["end_s"][:-1])
    firsts, lasts = [0, *(breaks + 1)], [*breaks, len(rows) - 1]
    return [
        (float(rows["start_s"][a]), float(rows["end_s"][b]))
        for a, b in zip(firsts, lasts, strict=True)
    ]


def _erase_events(connection: sqlite3.Connection, span: Span, where: Where) -> int:
    with transaction(connection):
        events = connection.execute(
            "SELECT number, start_s, end_s, label, confidence, ended FROM event"
            " WHERE session_id = ? AND end_s > ? AND start_s < ?",
            (span.session, span.since_s, span.until_s),
        ).fetchall()
        wanted = where.label and where.label.casefold()
        events = [e for e in events if wanted in (None, e[3].casefold())]
        last = connection.execute(
            "SELECT max(number) FROM event WHERE session_id = ?", (span.session,)
        ).fetchone()[0]
        for number, start_s, end_s, label, confidence, ended in events:
            connection.execute(
                "DELETE FROM event WHERE session_id = ? AND number = ?", (span.session, number)
            )
            before, after = (start_s, min(end_s, span.since_s)), (max(start_s, span.until_s), end_s)
            # An event that still grows goes on under its own number.
            for piece in (p for p in (after, before) if p[0] < p[1]):
                connection.execute(
                    "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (span.session, number, *piece, label, confidence, ended or piece[1] < end_s),
                )
                last += 1
                number = last  # noqa: PLW2901
    return len(events)


def _erase_raw(
    connection: sqlite3.Connection, session: int, times: list[tuple[float, float]]
) -> float:
    erased_s = 0.0
    with transaction(connection):
        for since_s, until_s in times:
            found = "FROM raw WHERE session_id = ? AND end_s >= ? AND start_s < ?"
            at = (session, since_s, until_s)
            erased_s += connection.execute(f"SELECT total(end_s - start_s) {found}", at).fetchone()[
                0
            ]
            connection.execute(f"DELETE {found}", at)
    return erased_s


def _erase_queries(connection: sqlite3.Connection, where: Where) -> int:
    """Erase searches that were made then, and hits that show what is erased."""
    everyone = where.session is None and where.device is None and where.label is None
    since_s = -np.inf if where.since_utc_s is None else where.since_utc_s
    until_s = np.inf if where.until_utc_s is None else where.until_utc_s
    sessions = {span.session for span in spans(connection, where)}
    wanted = where.label and where.label.casefold()

    def stays(hit: dict[str, Any]) -> bool:
        length_s = hit["end_s"] - hit["start_s"]
        return not (
            hit["session"] in sessions
            and hit["utc_s"] + length_s > since_s
            and hit["utc_s"] < until_s
            and wanted in (None, (hit["label"] or "").casefold())
        )

    n = 0
    with transaction(connection):
        for query, asked, hits_json in connection.execute(
            "SELECT id, asked_utc_s, hits_json FROM query"
        ).fetchall():
            hits = json.loads(hits_json)
            left = [hit for hit in hits if stays(hit)]
            if everyone and since_s <= asked < until_s:
                connection.execute("DELETE FROM query WHERE id = ?", (query,))
                n += 1
            elif len(left) < len(hits):
                connection.execute(
                    "UPDATE query SET hits_json = ? WHERE id = ?", (json.dumps(left), query)
                )
                n += 1
    return n


def _erase_empty(connection: sqlite3.Connection) -> None:
    """Sessions of which nothing is left, and bundles that no session used."""
    with transaction(connection):
        nothing = " AND ".join(
            f"id NOT IN (SELECT session_id FROM {table})"
            for table in ("block", "recent", "event", "raw")
        )
        connection.execute(f"DELETE FROM session WHERE {nothing}")
        connection.execute("DELETE FROM bundle WHERE id NOT IN (SELECT bundle_id FROM session)")


def _shrink(connection: sqlite3.Connection) -> str | None:
    """Empty the write-ahead log, and give free room back where it is a tenth of the file."""
    try:
        free, pages = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("freelist_count", "page_count")
        )
        if free * 10 >= pages:
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        return str(error)
    finally:
        is_busy = connection.execute("PRAGMA wal_checkpoint (TRUNCATE)").fetchone()[0]
    return "another program has the log open" if is_busy else None
