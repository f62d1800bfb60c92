"""What the event log costs: a year of wear by simulation.

    python -m edge.log.bench --windows 31_536_000 --path /var/tmp

Size on disk, rate of insertion, cost of a window to the stream, time of a search over a week and
over all, time of a purge. The file is deleted at the end; a year needs 6 GB and some minutes.

**The simulation.** A session a day, a window a second. Activities are the bundle's reference
embeddings, drawn at random; one lasts three minutes by the median (log-normal) and every third of a
day eight hours. Within an activity the embedding wanders about it as windows of WISDM's do (cosine
of neighbours 0.95, of windows five and more apart 0.81: medians of 30,000 windows): a first order
autoregression with the spread of the reference embeddings. Everything else that is said of a window
is random, which deflates worst. Searches are for prototypes of the label bank.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from edge.log.codec import TOP, WINDOW, Basis, Rows, basis_of
from edge.log.eventlog import EventLog
from edge.log.read import LogReader, Where
from edge.log.store import (
    BLOCK_WINDOWS,
    add_block,
    keep_bundle,
    open_for_writing,
    purge,
    session_names,
    transaction,
)
from edge.moment import Event, Moment
from edge.pipeline import Prediction
from edge.zeroshot import Score
from firmware_bridge.errors import InputError

_BEGAN_UTC_S = 1_700_000_000.25
_DAY_S, _WEEK_S = 86_400, 7 * 86_400
_BLOCKS = 64
"""Simulated at once."""

_SAME = 0.81
"""Cosine of two windows of one stretch of activity that do not overlap."""

_NEXT = 0.74
"""Coefficient of the autoregression: neighbours' cosine is then 0.95."""

_LIVE_WINDOWS = 20_000


class Figure(NamedTuple):
    """A row of the table."""

    what: str
    value: str


class Args(argparse.Namespace):
    """The command line."""

    windows: int
    path: Path
    queries: int


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m edge.log.bench", description="What the event log costs, by simulation."
    )
    parser.add_argument(
        "--windows",
        type=_count,
        default=7 * _DAY_S,
        metavar="N",
        help="default: a week's; a year has 31_536_000",
    )
    parser.add_argument(
        "--path",
        type=Path,
        default=Path(tempfile.gettempdir()),
        metavar="DIR",
        help="where the log is made and deleted again (default: the system's temporary folder)",
    )
    parser.add_argument(
        "--queries", type=_count, default=10, metavar="N", help="searches (default: 10)"
    )
    args = parser.parse_args(argv, namespace=Args())
    try:
        with tempfile.TemporaryDirectory(dir=args.path) as folder:
            _print(measure(Path(folder) / "log.db", args.windows, args.queries))
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"error: {args.path}: {error}", file=sys.stderr)
        return 2
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def measure(path: Path, windows: int, queries: int) -> list[Figure]:
    """Write, search and purge a log of so many windows.

    Raises:
        InputError: the shipped bundle has no reference embeddings.
        sqlite3.Error: the disk is full.
    """
    bundle = load_bundle(DEFAULT_BUNDLE)
    if bundle.reference is None:
        raise InputError(f"{bundle.folder}: no reference embeddings to simulate from")
    basis = basis_of(bundle.reference)
    took_s = _fill(path, bundle, basis, windows)
    figures = [
        Figure("windows", f"{windows:,}"),
        Figure("file", f"{path.stat().st_size / 1e9:.3f} GB"),
        Figure("bytes a window", f"{path.stat().st_size / windows:.1f}"),
        Figure("similarities of stored embeddings change by", _change(bundle, basis)),
        Figure("written in blocks, simulation included", f"{windows / took_s:,.0f} windows/s"),
    ]
    figures += _live(path.with_name("live.db"), bundle)
    figures += _searched(path, bundle, windows, queries)
    return figures + _purged(path, min(windows, _DAY_S))


def _change(bundle: Bundle, basis: Basis) -> str:
    """Of the reference embeddings with all prototypes."""
    assert bundle.reference is not None
    stored = basis.decode(basis.encode(bundle.reference))
    change = (stored - bundle.reference) @ bundle.prototypes.T
    return f"{change.std():.4f} RMS, {np.abs(change).max():.4f} at most"


def _fill(path: Path, bundle: Bundle, basis: Basis, windows: int) -> float:
    """Write the simulated log; how many seconds that took."""
    from rich.console import Console
    from rich.progress import Progress

    assert bundle.reference is not None
    labels = list(bundle.manifest["default_labels"])
    names = session_names(labels)
    # What is stored is simulated in the basis itself, which saves most of the time.
    inside = Basis(basis.rank, None)
    began = time.perf_counter()
    with (
        closing(open_for_writing(path)) as connection,
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("simulating", total=windows)
        bundle_row = keep_bundle(connection, bundle.id, basis)
        day = -1
        for first, embeddings in _embeddings(basis.inside(bundle.reference), windows):
            with transaction(connection):
                for at in range(0, len(embeddings), BLOCK_WINDOWS):
                    part = embeddings[at : at + BLOCK_WINDOWS]
                    if (first + at) // _DAY_S > day:
                        day = (first + at) // _DAY_S
                        _add_session(connection, bundle_row, labels)
                    rows = _rows(first + at, len(part), len(labels))
                    add_block(connection, day + 1, names, rows, inside.encode(part))
            progress.advance(task, len(embeddings))
    return time.perf_counter() - began


def _add_session(connection: sqlite3.Connection, bundle_row: int, labels: list[str]) -> None:
    connection.execute(
        "INSERT INTO session (started_utc_s, zero_utc_s, source, bundle_id, labels_json, hop_s,"
        " version) VALUES (?, 0, 'simulated', ?, ?, 1.0, '0')",
        (_BEGAN_UTC_S, bundle_row, json.dumps(labels)),
    )


def _embeddings(
    centres: NDArray[np.float32], windows: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(N, K) embeddings with the number of the first, until there are enough."""
    rng = np.random.default_rng(0)
    spread = centres.std(axis=0)
    noise_size = np.sqrt((1 - _SAME) / (spread**2).sum())
    activity = _activities(rng, len(centres), windows)
    step = np.sqrt(1 - _NEXT**2)
    for first in range(0, windows, _BLOCKS * BLOCK_WINDOWS):
        shape = (BLOCK_WINDOWS, _BLOCKS, centres.shape[1])
        noise = rng.standard_normal(shape, np.float32)
        for k in range(1, BLOCK_WINDOWS):
            noise[k] = _NEXT * noise[k - 1] + step * noise[k]
        wandering = noise.transpose(1, 0, 2).reshape(-1, centres.shape[1])
        part = activity[first : first + len(wandering)]
        vectors = np.sqrt(_SAME) * centres[part] + noise_size * spread * wandering[: len(part)]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        yield first, (vectors / norms).astype(np.float32)


def _activities(rng: np.random.Generator, kinds: int, windows: int) -> NDArray[np.intp]:
    """(windows,) which activity each is of."""
    n = windows // 60 + 1000
    dwell_s = np.maximum(rng.lognormal(np.log(180), 1.0, n), 5).astype(np.intp)
    activity = np.repeat(rng.integers(0, kinds, n), dwell_s)
    while len(activity) < windows:
        activity = np.concatenate([activity, activity])
    activity = activity[:windows]
    for night in range(0, windows, _DAY_S):
        activity[night : night + _DAY_S // 3] = rng.integers(kinds)
    return activity


def _rows(first: int, n: int, labels: int) -> Rows:
    """What else is said of windows."""
    rng = np.random.default_rng(first)
    rows = np.zeros(n, WINDOW)
    rows["start_s"] = _BEGAN_UTC_S + first + np.arange(n)
    rows["end_s"] = rows["start_s"] + 5
    order = np.argsort(rng.random((n, labels)), axis=1)[:, :TOP]
    rows["top"][:, : order.shape[1]] = order
    rows["label"] = order[np.arange(n) // 100 * 100, 0]  # the diary's labels last
    rows["window_label"] = order[:, 0]
    rows["similarity"] = np.sort(rng.normal(0.1, 0.15, (n, TOP)), axis=1)[:, ::-1]
    rows["probability"] = np.sort(rng.dirichlet(np.ones(TOP), n), axis=1)[:, ::-1]
    rows["rate_hz"] = 50 + rng.integers(-1, 2, n) * 0.2
    for name, mean, size in (
        ("confidence", 0.7, 0.1),
        ("inference_ms", 0.45, 0.05),
        ("motion_mps2", 2.0, 0.5),
        ("tilt_deg", 40.0, 15.0),
        ("face_deg", 45.0, 15.0),
        ("presence", 0.5, 0.1),
    ):
        rows[name] = rng.normal(mean, size, n)
    return rows


def _live(path: Path, bundle: Bundle) -> list[Figure]:
    """What one window costs, as a replay gives them: as fast as it goes."""
    assert bundle.reference is not None
    labels = list(bundle.manifest["default_labels"])
    log = EventLog(path, "bench", bundle.id, labels, 1.0, "0", print, reference=bundle.reference)
    moments = [_moment(k, labels, bundle.reference) for k in range(_LIVE_WINDOWS)]
    main_s, all_s, wall_s = time.thread_time(), time.process_time(), time.perf_counter()
    for moment in moments:
        log.show(moment)
    main_s = time.thread_time() - main_s
    log.close()
    all_s, wall_s = time.process_time() - all_s, time.perf_counter() - wall_s
    each_us = 1e6 / _LIVE_WINDOWS
    return [
        Figure("a window costs the stream's thread", f"{main_s * each_us:.2f} us"),
        Figure("and both threads together", f"{all_s * each_us:.2f} us"),
        Figure("logged as fast as it goes", f"{_LIVE_WINDOWS / wall_s:,.0f} windows/s"),
    ]


def _moment(k: int, labels: list[str], reference: NDArray[np.float32]) -> Moment:
    top = tuple(
        Score(label, 0.3 - i / 20 + k % 7 / 100, 0.5 / (i + 1))
        for i, label in enumerate(labels[:TOP])
    )
    window = Prediction(
        float(k), k + 5.0, True, top, 0.0, 50.0, 0.4 + k % 11 / 100, reference[k % len(reference)],
        40.0 + k % 13, 50.0 + k % 17, None, False, None, 1.0 + k % 19 / 10,
    )  # fmt: skip
    event = Event(k // 100, k - k % 100, k + 1.0, labels[0], 0.7, k % 100 == 99)
    return Moment(window, labels[0], 0.7, (event,))


def _searched(path: Path, bundle: Bundle, windows: int, queries: int) -> list[Figure]:
    rows = np.random.default_rng(1).choice(len(bundle.prototypes), queries, replace=False)
    end_utc_s = _BEGAN_UTC_S + windows
    week, everything = Where(since_utc_s=end_utc_s - _WEEK_S), Where()
    figures = []
    for name, where in (("a week", week), ("all", everything)):
        _forget_cached(path)
        cold = _search_s(path, where, bundle.prototypes[rows[0]])
        warm = [_search_s(path, where, bundle.prototypes[row]) for row in rows]
        figures += [
            Figure(f"a search over {name}, file not in memory", f"{cold:.2f} s"),
            Figure(
                f"a search over {name}, file in memory",
                f"{statistics.median(warm):.2f} s (longest {max(warm):.2f} s)",
            ),
        ]
    return figures


def _search_s(path: Path, where: Where, vector: NDArray[np.float32]) -> float:
    began = time.perf_counter()
    with LogReader(path) as log:
        log.search(vector, where, top=1000)
    return time.perf_counter() - began


def _forget_cached(path: Path) -> None:
    """Have the system drop the file from its memory, where it can be asked to."""
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _purged(path: Path, day: int) -> list[Figure]:
    began = time.perf_counter()
    erased = purge(path, Where(until_utc_s=_BEGAN_UTC_S + day))
    day_s = time.perf_counter() - began
    began = time.perf_counter()
    rest = purge(path, Where())
    return [
        Figure("erasing the first day", f"{day_s:.1f} s ({erased.windows:,} windows)"),
        Figure(
            "erasing all that is left",
            f"{time.perf_counter() - began:.1f} s ({rest.windows:,} windows)",
        ),
    ]


def _print(figures: list[Figure]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "figure")
    for figure in figures:
        table.add_row(*figure)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    sys.exit(main())
