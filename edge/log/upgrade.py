"""Logs of version 1 (a row for each window and each prediction, float16 embeddings) become those of
today. Everything is kept; embeddings are stored as today's are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.log.codec import NO_LABEL, TOP, WINDOW, Basis, Rows, basis_of
from edge.log.store import BLOCK_WINDOWS, add_block, create_tables, keep_bundle, session_names

_UNIX_S = 1e9
_SAMPLE = 4096
"""Embeddings of a bundle that tell which subspace they lie in."""


def upgrade(connection: sqlite3.Connection) -> None:
    """Turn a log of version 1 into one of today, within the transaction that is open, if one is."""
    for table in ("session", "window", "prediction"):
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    connection.execute("DROP INDEX window_by_time")
    create_tables(connection)
    bases = {
        name: _basis(connection, name)
        for (name,) in connection.execute("SELECT DISTINCT bundle_id FROM old_session").fetchall()
    }
    for row in connection.execute("SELECT * FROM old_session ORDER BY id").fetchall():
        _upgrade_session(connection, row, bases[row[3]])
    for table in ("prediction", "window", "session"):
        connection.execute(f"DROP TABLE old_{table}")


def _basis(connection: sqlite3.Connection, bundle: str) -> Basis:
    blobs = connection.execute(
        "SELECT embedding_f16 FROM old_window JOIN old_session ON old_session.id = session_id"
        " WHERE bundle_id = ? AND embedding_f16 IS NOT NULL ORDER BY random() LIMIT ?",
        (bundle, _SAMPLE),
    ).fetchall()
    if not blobs:
        return Basis(512, None)
    return basis_of(np.stack([_embedding(blob) for (blob,) in blobs]))


def _embedding(blob: bytes) -> NDArray[np.float32]:
    return np.frombuffer(blob, "<f2").astype(np.float32)


def _upgrade_session(connection: sqlite3.Connection, row: tuple[Any, ...], basis: Basis) -> None:
    session, started, source, bundle, labels, hop_s, version = row
    names = session_names(json.loads(labels))
    first = connection.execute(
        "SELECT start_s, end_s, logged_utc FROM old_window WHERE session_id = ?"
        " ORDER BY id LIMIT 1",
        (session,),
    ).fetchone()
    last = connection.execute(
        "SELECT max(logged_utc) FROM old_window WHERE session_id = ?", (session,)
    ).fetchone()[0]
    connection.execute(
        "INSERT INTO session (id, started_utc_s, ended_utc_s, zero_utc_s, source, bundle_id,"
        " labels_json, hop_s, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            session,
            _utc_s(started),
            _utc_s(last or started),
            first and _zero_utc_s(source, *first),
            source,
            keep_bundle(connection, bundle, basis),
            labels,
            hop_s,
            version,
        ),
    )
    for windows in _windows(connection, session):
        rows, embeddings = _converted(windows, names, basis.dimension)
        add_block(connection, session, names, rows, basis.encode(embeddings))


def _utc_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _zero_utc_s(source: str, start_s: float, end_s: float, logged: str) -> float | None:
    if start_s > _UNIX_S:
        return 0.0
    return None if source.startswith("replay:") else _utc_s(logged) - end_s


def _windows(connection: sqlite3.Connection, session: int) -> Iterator[list[list[Any]]]:
    """Blocks of windows, each a list of rows: the window's columns, then one ranked label's."""
    found = connection.execute(
        "SELECT w.id, start_s, end_s, valid, w.label, missing_fraction, rate_hz, inference_ms,"
        " embedding_f16, p.rank, p.label, p.similarity, p.probability"
        " FROM old_window AS w LEFT JOIN old_prediction AS p ON window_id = id"
        " WHERE session_id = ? ORDER BY id, rank",
        (session,),
    )
    block: list[list[Any]] = []
    for _, ranked in groupby(found, key=lambda row: row[0]):
        block.append(list(ranked))
        if len(block) == BLOCK_WINDOWS:
            yield block
            block = []
    if block:
        yield block


def _converted(
    windows: list[list[Any]], names: tuple[str, ...], dimension: int
) -> tuple[Rows, NDArray[np.float32]]:
    rows = np.zeros(len(windows), WINDOW)
    embeddings = np.zeros((len(windows), dimension), np.float32)
    index = {name: i for i, name in reversed(list(enumerate(names)))}
    for name in ("confidence", "similarity", "probability", "motion_mps2"):
        rows[name] = np.nan
    for name in ("tilt_deg", "face_deg", "presence"):
        rows[name] = np.nan
    rows["top"] = NO_LABEL
    for i, ranked in enumerate(windows):
        _, start_s, end_s, _, label, missing, rate_hz, inference_ms, blob, *_ = ranked[0]
        rows["start_s"][i], rows["end_s"][i] = start_s, end_s
        rows["label"][i] = rows["window_label"][i] = index.get(label, NO_LABEL)
        rows["missing"][i], rows["rate_hz"][i] = missing, rate_hz
        rows["inference_ms"][i] = inference_ms
        for rank, name, similarity, probability in (row[9:] for row in ranked[:TOP] if row[9]):
            rows["top"][i, rank - 1] = index.get(name, NO_LABEL)
            rows["similarity"][i, rank - 1] = similarity
            rows["probability"][i, rank - 1] = probability
        rows["confidence"][i] = rows["probability"][i, 0]
        if blob is not None:
            embeddings[i] = _embedding(blob)
    return rows, embeddings
