"""Reading the event log: sessions, windows, events, and the windows that resemble a vector.

    with LogReader(path) as log:
        for block in log.windows(Where(label="walking")):
            print(block.session, block.utc_s, block.probability)

A window's time: `start_s` is the source's own clock, `utc_s` the same in seconds since 1970 UTC.
Of a recording whose times are none of the day (`Session.clock_known` false) the beginning of the
replay is taken for time 0.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from edge.log.codec import NO_LABEL, Basis, Rows, unpack, unpack_samples
from edge.log.store import (
    BLOCK_WINDOWS,
    Span,
    Where,
    basis_of_bundle,
    counted,
    kept_labels,
    open_for_reading,
    open_for_writing,
    session_names,
    spans,
)
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples

__all__ = ["Hit", "LogReader", "LoggedEvent", "LoggedQuery", "Session", "Where", "WindowBlock"]

_KEPT_HITS = 100
"""Of a query that is logged."""

_CANDIDATE = np.dtype([("similarity", "<f4"), ("piece", "<i8"), ("row", "<i8")])


@dataclass(frozen=True)
class Session:
    """One `edge-run`."""

    id: int
    started_utc_s: float
    zero_utc_s: float
    """UTC of the source's time 0."""
    clock_known: bool
    """False where the source's times are none of the day: then `zero_utc_s` is `started_utc_s`."""
    ended: bool
    """Closed in order; False while it runs and after a crash."""
    source: str
    device: str | None
    placement: str | None
    bundle_id: str
    labels: tuple[str, ...]
    hop_s: float
    version: str
    windows: int
    dropped: int
    """Windows that were not logged because the disk was too slow."""
    start_s: float | None
    """Of the first window; None without any."""
    end_s: float | None
    """Of the last window."""


@dataclass(frozen=True)
class WindowBlock:
    """Consecutive windows (N) of one session, in order of time. Labels are indices of `names`, -1
    for none; what an invalid window lacks is NaN."""

    session: int
    names: tuple[str, ...]
    """The session's labels, then "unknown" and "not worn"."""
    utc_s: NDArray[np.float64]
    """(N,) start."""
    start_s: NDArray[np.float64]
    """(N,)"""
    end_s: NDArray[np.float64]
    """(N,)"""
    label: NDArray[np.int64]
    """(N,) what was said: by the diary, or of the window alone with --raw-windows."""
    confidence: NDArray[np.float64]
    """(N,) of what was said, 0 to 1."""
    window_label: NDArray[np.int64]
    """(N,) what the window alone says: its best label, or "unknown"."""
    top: NDArray[np.int64]
    """(N, 5) the best labels, best first."""
    similarity: NDArray[np.float64]
    """(N, 5) cosines of the best labels."""
    probability: NDArray[np.float64]
    """(N, 5) of the best labels."""
    valid: NDArray[np.bool_]
    """(N,)"""
    missing: NDArray[np.float64]
    """(N,) fraction of the window in gaps."""
    rate_hz: NDArray[np.float64]
    """(N,)"""
    inference_ms: NDArray[np.float64]
    """(N,)"""
    motion_mps2: NDArray[np.float64]
    """(N,)"""
    tilt_deg: NDArray[np.float64]
    """(N,)"""
    face_deg: NDArray[np.float64]
    """(N,)"""
    presence: NDArray[np.float64]
    """(N,)"""
    embedding: NDArray[np.float32] | None
    """(N, D) unit vectors, zero where not valid; None unless asked for."""

    def __len__(self) -> int:
        return len(self.start_s)

    def texts(self, column: NDArray[np.int64]) -> list[str | None]:
        """The labels of `label`, `window_label` or one column of `top`."""
        return [None if i < 0 else self.names[i] for i in column]


class LoggedEvent(NamedTuple):
    """An event of the diary."""

    session: int
    number: int
    start_s: float
    end_s: float
    """Last known end, of an event that was never closed."""
    utc_s: float
    """Start."""
    label: str
    confidence: float
    ended: bool

    @property
    def duration_s(self) -> float:
        """Length."""
        return self.end_s - self.start_s


class Hit(NamedTuple):
    """A window that a search found."""

    session: int
    start_s: float
    end_s: float
    utc_s: float
    """Start."""
    similarity: float
    """Cosine to the vector; off by 0.001 (root mean square) as embeddings are stored in int8."""
    label: str | None
    """What was said."""
    confidence: float | None
    """Of what was said."""
    window_label: str | None
    probability: float
    """Of the window's best label."""


class LoggedQuery(NamedTuple):
    """A search that someone made."""

    id: int
    asked_utc_s: float
    text: str
    where: Where
    hits: tuple[Hit, ...]
    took_ms: float


class _Piece(NamedTuple):
    """Some windows as they are stored: a row of `block` or of `recent`."""

    table: str
    id: int
    first_s: float
    last_s: float
    windows: int


class _Source(NamedTuple):
    """What is needed to read a session's pieces."""

    session: int
    zero_utc_s: float
    names: tuple[str, ...]
    basis: Basis
    bundle_id: str
    since_s: float
    until_s: float
    labels: NDArray[np.int64] | None
    """Indices of the names that are asked for; None for all."""

    def text(self, label: int) -> str | None:
        """The label of an index."""
        return None if label < 0 else self.names[label]

    def kept(self, rows: Rows) -> NDArray[np.bool_]:
        """(N,) which windows are asked for."""
        kept = (rows["start_s"] >= self.since_s) & (rows["start_s"] < self.until_s)
        return kept if self.labels is None else kept & np.isin(rows["label"], self.labels)


class LogReader:
    """An event log as it is at this moment; another program may write it at the same time.

    Raises:
        InputError: there is no log, it is none, or it was written by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = open_for_reading(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def sessions(self, where: Where | None = None) -> list[Session]:
        """The sessions that `where` may have windows in (its label is not looked at), by id."""
        where = where or Where()
        asked = {span.session: span for span in spans(self._connection, where)}
        found = self._connection.execute(
            "SELECT session.id, started_utc_s, coalesce(zero_utc_s, started_utc_s),"
            " zero_utc_s IS NOT NULL, ended_utc_s IS NOT NULL, source, device, placement,"
            " bundle.name, labels_json, hop_s, version, coalesce(n, 0), dropped, first_s, end_s"
            " FROM session JOIN bundle ON bundle.id = bundle_id LEFT JOIN ("
            "  SELECT session_id, sum(windows) AS n, min(first_s) AS first_s, max(end_s) AS end_s"
            "  FROM (SELECT session_id, windows, first_s, end_s FROM block UNION ALL"
            "   SELECT session_id, windows, first_s, end_s FROM recent) GROUP BY session_id"
            " ) ON session_id = session.id ORDER BY session.id"
        )
        sessions = []
        for (
            id_,
            started,
            zero,
            known,
            ended,
            *said,
            labels,
            hop_s,
            version,
            n,
            lost,
            start_s,
            end_s,
        ) in found:
            asks_time = where.since_utc_s is not None or where.until_utc_s is not None
            if id_ not in asked or (asks_time and not _overlaps(asked[id_], start_s, end_s)):
                continue
            source, device, placement, bundle = said
            sessions.append(
                Session(
                    id_,
                    started,
                    zero,
                    bool(known),
                    bool(ended),
                    source,
                    device,
                    placement,
                    bundle,
                    tuple(json.loads(labels)),
                    hop_s,
                    version,
                    n,
                    lost,
                    start_s,
                    end_s,
                )
            )
        return sessions

    def windows(
        self, where: Where | None = None, with_embeddings: bool = False
    ) -> Iterator[WindowBlock]:
        """The windows asked for, by session and time, some hundreds at once."""
        for source in self._sources(where or Where()):
            for piece in self._pieces(source):
                rows = self._rows(piece)
                kept = source.kept(rows)
                if not kept.any():
                    continue
                embedding = None
                if with_embeddings:
                    embedding = source.basis.decode(self._embeddings(piece))[kept]
                yield _block(source, rows[kept], embedding)

    def events(self, where: Where | None = None) -> list[LoggedEvent]:
        """The events asked for, by session and start."""
        where = where or Where()
        wanted = where.label and where.label.casefold()
        events = []
        for span in spans(self._connection, where):
            for number, start_s, end_s, utc_s, label, confidence, ended in self._connection.execute(
                "SELECT number, start_s, end_s, start_s + coalesce(zero_utc_s, started_utc_s),"
                " label, confidence, event.ended FROM event JOIN session ON session.id = session_id"
                " WHERE session_id = ? AND end_s > ? AND start_s < ? ORDER BY start_s",
                (span.session, span.since_s, span.until_s),
            ):
                if wanted in (None, label.casefold()):
                    events.append(
                        LoggedEvent(
                            span.session,
                            number,
                            start_s,
                            end_s,
                            utc_s,
                            label,
                            confidence,
                            bool(ended),
                        )
                    )
        return events

    def label_counts(self, where: Where | None = None) -> dict[str, int]:
        """How many windows were called what; windows of which nothing was said are left out."""
        total: Counter[str] = Counter()
        for source in self._sources(where or Where()):
            within = []
            for piece in self._pieces(source):
                is_within = source.since_s <= piece.first_s and piece.last_s < source.until_s
                if piece.table == "block" and is_within:
                    within.append((piece.id,))
                else:
                    rows = self._rows(piece)
                    total.update(counted(rows["label"][source.kept(rows)], source.names))
            wanted = None if source.labels is None else {source.names[i] for i in source.labels}
            for (block,) in within:
                for label, n in self._connection.execute(
                    "SELECT label, windows FROM block_label WHERE block_id = ?", (block,)
                ):
                    if wanted is None or label in wanted:
                        total[label] += n
        return dict(total)

    def search(
        self,
        vector: NDArray[np.float32],
        where: Where | None = None,
        top: int = 10,
        bundle_id: str | None = None,
    ) -> list[Hit]:
        """The windows nearest to a vector, nearest first: exact, nothing is approximated but the
        stored embeddings themselves. Every window is compared, which is fast enough for a year
        (`python -m edge.log.bench`).

        Args:
            vector: (D,) of the shared space: a prototype, or a window's embedding.
            where: which windows.
            top: how many. Windows overlap and resemble their neighbours: ask for some thousands
                to find several stretches.
            bundle_id: only windows that this bundle's encoder made; None for those of all bundles
                with D dimensions.
        """
        best = _Best(top)
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        for source in self._sources(where or Where()):
            if bundle_id not in (None, source.bundle_id) or source.basis.dimension != len(vector):
                continue
            inside = source.basis.inside(vector.astype(np.float32))
            values = np.empty((BLOCK_WINDOWS, source.basis.rank), np.float32)
            for piece in self._pieces(source):
                factors, codes = source.basis.codes(self._embeddings(piece))
                if len(codes) > len(values):
                    values = np.empty(codes.shape, np.float32)
                part = values[: len(codes)]
                np.copyto(part, codes, casting="unsafe")  # int8 products are slow in NumPy
                similar = (part @ inside) * factors
                near = np.flatnonzero((similar > best.floor) & (factors > 0))
                if len(near) and not self._is_within(source, piece):
                    near = near[source.kept(self._rows(piece))[near]]
                best.add(similar[near], (source, piece), near)
        return self._hits(best)

    def queries(self) -> list[LoggedQuery]:
        """The searches that were recorded, oldest first."""
        return [
            LoggedQuery(
                id_,
                asked_utc_s,
                text,
                Where(**json.loads(where)),
                tuple(Hit(**hit) for hit in json.loads(hits)),
                took_ms,
            )
            for id_, asked_utc_s, text, where, hits, took_ms in self._connection.execute(
                "SELECT id, asked_utc_s, text, where_json, hits_json, took_ms FROM query"
                " ORDER BY id"
            )
        ]

    def record_query(self, text: str, where: Where, hits: Sequence[Hit], took_ms: float) -> None:
        """Log a search; of its hits the first 100. Opens the file for writing for a moment; this
        reader does not see it, the next one does.

        Raises:
            InputError: it cannot be written.
        """
        kept = json.dumps([hit._asdict() for hit in hits[:_KEPT_HITS]])
        with closing(open_for_writing(self.path, create=False)) as connection:
            try:
                connection.execute(
                    "INSERT INTO query (asked_utc_s, text, where_json, hits_json, took_ms)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (time.time(), text, json.dumps(asdict(where)), kept, took_ms),
                )
            except sqlite3.Error as error:
                raise InputError(f"{self.path}: the query could not be logged ({error})") from None

    def raw(
        self, start_utc_s: float, end_utc_s: float, session: int | None = None
    ) -> list[Samples]:
        """Raw samples of a time, as far as they are still kept: for each session those with one
        set of sensors in a piece; times in the source's own clock, values rounded to float32."""
        found = []
        for span in spans(self._connection, Where(start_utc_s, end_utc_s, session=session)):
            pieces = [
                unpack_samples(blob, bool(has_gyro))
                for has_gyro, blob in self._connection.execute(
                    "SELECT has_gyro, data FROM raw"
                    " WHERE session_id = ? AND end_s >= ? AND start_s < ? ORDER BY id",
                    (span.session, span.since_s, span.until_s),
                )
            ]
            for _, alike in groupby(pieces, key=lambda piece: piece.gyro_rads is None):
                whole = Samples.joined(list(alike))
                first, after = np.searchsorted(whole.t_s, [span.since_s, span.until_s])
                found += [whole[first:after]] if after > first else []
        return found

    def _sources(self, where: Where) -> list[_Source]:
        sources = []
        bases: dict[int, Basis] = {}
        for span in spans(self._connection, where):
            zero, labels, row, bundle_id = self._connection.execute(
                "SELECT coalesce(zero_utc_s, started_utc_s), labels_json, bundle.id, name"
                " FROM session JOIN bundle ON bundle.id = bundle_id WHERE session.id = ?",
                (span.session,),
            ).fetchone()
            if row not in bases:
                bases[row] = basis_of_bundle(self._connection, row)
            names = session_names(json.loads(labels))
            labels = kept_labels(where, names)
            sources.append(
                _Source(span.session, zero, names, bases[row], bundle_id, *span[1:], labels)
            )
        return sources

    def _pieces(self, source: _Source) -> list[_Piece]:
        """What holds windows that start in the time asked for, and where it says so the labels."""
        at = (source.session, source.since_s, source.until_s)
        within = "WHERE session_id = ? AND last_s >= ? AND first_s < ?"
        labelled, names = "", ()
        if source.labels is not None:
            names = tuple(source.names[i] for i in source.labels)
            marks = ", ".join("?" * len(names))
            labelled = f" AND id IN (SELECT block_id FROM block_label WHERE label IN ({marks}))"
        found = self._connection.execute(
            f"SELECT 'block', id, first_s, last_s, windows FROM block {within}{labelled} UNION ALL"
            f" SELECT 'recent', id, first_s, last_s, windows FROM recent {within} ORDER BY 3",
            (*at, *names, *at),
        )
        return [_Piece(*row) for row in found]

    def _rows(self, piece: _Piece) -> Rows:
        return unpack(self._stored(piece, "data", "block_windows", "window_data"))

    def _embeddings(self, piece: _Piece) -> bytes:
        return self._stored(piece, "data", "block_embeddings", "embedding_data")

    def _stored(self, piece: _Piece, in_block: str, table: str, in_recent: str) -> bytes:
        column, of = (in_block, table) if piece.table == "block" else (in_recent, "recent")
        found = self._connection.execute(f"SELECT {column} FROM {of} WHERE id = ?", (piece.id,))
        return bytes(found.fetchone()[0])

    def _is_within(self, source: _Source, piece: _Piece) -> bool:
        """Whether all windows of a piece are asked for, so that none needs to be looked at."""
        in_time = source.since_s <= piece.first_s and piece.last_s < source.until_s
        return in_time and source.labels is None

    def _hits(self, best: _Best) -> list[Hit]:
        hits = []
        rows_of: dict[tuple[str, int], Rows] = {}
        for similarity, (source, piece), row in best.sorted():
            key = (piece.table, piece.id)
            if key not in rows_of:
                rows_of[key] = self._rows(piece)
            window = rows_of[key][row]
            start_s = float(window["start_s"])
            hits.append(
                Hit(
                    source.session,
                    start_s,
                    float(window["end_s"]),
                    start_s + source.zero_utc_s,
                    similarity,
                    source.text(window["label"]),
                    _number(window["confidence"]),
                    source.text(window["window_label"]),
                    float(window["probability"][0]),
                )
            )
        return hits


class _Best:
    """The most similar windows so far."""

    def __init__(self, top: int) -> None:
        self.floor = -np.inf
        """What is not more similar than this is not among them."""
        self._top = top
        self._pieces: list[tuple[_Source, _Piece]] = []
        self._new: list[NDArray[np.void]] = []
        self._n_new = 0

    def add(
        self,
        similar: NDArray[np.float32],
        piece: tuple[_Source, _Piece],
        rows: NDArray[np.intp],
    ) -> None:
        """Take candidates of one piece."""
        if not len(similar):
            return
        new = np.empty(len(similar), _CANDIDATE)
        new["similarity"], new["piece"], new["row"] = similar, len(self._pieces), rows
        self._pieces.append(piece)
        self._new.append(new)
        self._n_new += len(new)
        if self._n_new >= 2 * self._top + BLOCK_WINDOWS or self.floor == -np.inf:
            self._select()

    def sorted(self) -> list[tuple[float, tuple[_Source, _Piece], int]]:
        """Similarity, piece and row within it, most similar first; of equals the first first."""
        self._select()
        found = self._new[0] if self._new else np.empty(0, _CANDIDATE)
        order = np.argsort(-found["similarity"], kind="stable")
        return [
            (float(c["similarity"]), self._pieces[c["piece"]], int(c["row"])) for c in found[order]
        ]

    def _select(self) -> None:
        if not self._new:
            return
        found = np.concatenate(self._new)
        if len(found) >= self._top:
            order = np.argsort(-found["similarity"], kind="stable")[: self._top]
            found = found[np.sort(order)]
            self.floor = float(found["similarity"].min())
        self._new, self._n_new = [found], len(found)


def _overlaps(span: Span, start_s: float | None, end_s: float | None) -> bool:
    if start_s is None or end_s is None:
        return False
    return start_s < span.until_s and end_s > span.since_s


def _number(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)


def _block(source: _Source, rows: Rows, embedding: NDArray[np.float32] | None) -> WindowBlock:
    def numbers(name: str) -> NDArray[np.float64]:
        return rows[name].astype(np.float64)

    def indices(name: str) -> NDArray[np.int64]:
        return rows[name].astype(np.int64)

    top = indices("top")
    return WindowBlock(
        session=source.session,
        names=source.names,
        utc_s=rows["start_s"] + source.zero_utc_s,
        start_s=numbers("start_s"),
        end_s=numbers("end_s"),
        label=indices("label"),
        confidence=numbers("confidence"),
        window_label=indices("window_label"),
        top=top,
        similarity=numbers("similarity"),
        probability=numbers("probability"),
        valid=top[:, 0] != NO_LABEL,
        missing=numbers("missing"),
        rate_hz=numbers("rate_hz"),
        inference_ms=numbers("inference_ms"),
        motion_mps2=numbers("motion_mps2"),
        tilt_deg=numbers("tilt_deg"),
        face_deg=numbers("face_deg"),
        presence=numbers("presence"),
        embedding=embedding,
    )
