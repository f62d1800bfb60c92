"""Labelling a folder: the rows, going on after an interruption, what is said of bad recordings."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge.many.results
from edge.bundle import Bundle
from edge.diary import Diary, smoothed
from edge.labels import resolve_labels
from edge.many.find import Task
from edge.many.label import (
    Failure,
    Job,
    Outcome,
    label_folder,
    label_or_say_why,
    label_recording,
    run,
)
from edge.many.results import RECORDING_COLUMNS, WINDOW_COLUMNS, Results, schema_of
from edge.pipeline import Pipeline
from edge.recording import UnitOptions, open_recording
from firmware_bridge.errors import AuraError, InputError
from tests.conftest import RECORDING, walk, without, write_csv

pytest.importorskip("pyarrow")
from pyarrow import parquet

LABELS = ["walking", "climbing stairs", "sitting", "standing", "lying"]
FILES = ("windows.parquet", "events.parquet", "recordings.parquet")
HEADER = "time_s,ax_mps2,ay_mps2,az_mps2,gx_rads,gy_rads,gz_rads"


@pytest.fixture(scope="module")
def job(bundle: Bundle) -> Job:
    return Job(bundle.id, resolve_labels(LABELS, bundle))


def record(path: Path, duration_s: float, seed: int = 0) -> Path:
    """A walk with a gap in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    s = without(walk(duration_s, 50, seed=seed), 10, 14)
    assert s.gyro_rads is not None
    return write_csv(path, HEADER, np.column_stack([s.t_s, s.acc_mps2, s.gyro_rads]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings, one whose clock goes back in mid-file, and a picture."""
    folder = tmp_path / "recordings"
    for seed, (name, duration_s) in enumerate([("b", 20), ("a/x", 16), ("c", 25)]):
        record(folder / f"{name}.csv", duration_s, seed)
    rows = (folder / "b.csv").read_text().splitlines()
    (folder / "bad.csv").write_text("\n".join([*rows, *rows[1:]]))
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\0")
    return folder


class Here:
    """Labels in this process, in the order asked for; notes what it was asked for."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.asked: list[str] = []
        self._interrupt_after = interrupt_after

    def __call__(self, tasks: Sequence[Task], job: Job) -> Iterator[tuple[Task, Outcome]]:
        for n, task in enumerate(tasks):
            if n == self._interrupt_after:
                raise KeyboardInterrupt
            self.asked.append(task.name)
            yield task, label_or_say_why(task.path, job, task.name)


def label(folder: Path, out: Path, job: Job, here: Here | None = None) -> tuple[int, str]:
    said: list[str] = []
    code = label_folder(folder, out, job, here or Here(), said.append)
    return code, "\n".join(said)


def contents(out: Path) -> list[bytes]:
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    return [(out / name).read_bytes() for name in FILES]


def rows(path: Path) -> list[dict[str, Any]]:
    return parquet.ParquetFile(path).read().to_pylist()


# One recording


@pytest.mark.parametrize("smooth", [False, True])
def test_the_rows_are_what_pipeline_and_diary_say(bundle: Bundle, job: Job, smooth: bool) -> None:
    job = replace(job, placement="waist", hop_s=2.5, smooth=smooth)
    pipeline = Pipeline(
        bundle, job.labels, iter((k * 500, k * 500 + 1000) for k in range(500)), placement="waist"
    )
    predictions = [p for s in open_recording(RECORDING).chunks for p in pipeline.push(s)]
    predictions += pipeline.finish()
    if smooth:
        moments, last = smoothed(predictions, LABELS, 2.5)
    else:
        diary = Diary(LABELS, 2.5)
        moments = [diary.push(p) for p in predictions]
        last = diary.finish()
    done = label_recording(RECORDING, job, "me")
    got = done.windows.to_pylist()
    assert len(got) == len(moments) == done.entry.windows > 90
    for row, moment in zip(got, moments, strict=True):
        p = moment.prediction
        assert p.best is not None
        assert (row["start_s"], row["end_s"], row["label"]) == (p.start_s, p.end_s, moment.label)
        assert row["confidence"] == np.float32(moment.confidence)
        assert row["window_label"] == p.label and row["valid"] and row["recording"] == "me"
        assert row["similarity"] == np.float32(p.best.similarity)
        assert [score["label"] for score in row["top"]] == [score.label for score in p.top]
        assert row["motion_mps2"] == np.float32(p.motion_mps2)
    events = {e.number: e for e in [*(e for m in moments for e in m.events), *last]}
    assert [
        (r["event"], r["start_s"], r["end_s"], r["label"]) for r in done.events.to_pylist()
    ] == [(e.number, e.start_s, e.end_s, e.label) for e in events.values()]
    assert len(events) > 3 and len({row["label"] for row in got}) > 2


def test_what_is_said_of_a_recording(tmp_path: Path, job: Job) -> None:
    path = record(tmp_path / "a.csv", 20)
    text = path.read_text().splitlines()
    text[50] = text[49]  # the same time twice
    path.write_text("\n".join(text))
    entry = label_recording(path, job).entry
    assert (entry.recording, entry.error, entry.left_out) == (path.as_posix(), None, 1)
    assert (entry.start_s, entry.end_s) == (0, 20)
    assert entry.windows == 16 and 0 < entry.classified < 16  # the gap
    assert entry.summary is not None and "50.0 Hz" in entry.summary


def test_many_windows_are_the_same_as_few_at_a_time(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = label_recording(RECORDING, job).windows
    monkeypatch.setattr("edge.many.label._BATCH_WINDOWS", 7)
    assert label_recording(RECORDING, job).windows.equals(at_once)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundle_id": "other-1"}, "where other-1 is expected"),
        ({"version": "99.0"}, "99.0 where it was asked for"),
        ({"units": UnitOptions(acc="mg")}, "median |acceleration|"),
    ],
)
def test_another_bundle_version_or_unit(job: Job, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        label_recording(RECORDING, replace(job, **change))
    assert message in str(raised.value)


def test_a_recording_too_short_for_a_window(tmp_path: Path, job: Job) -> None:
    with pytest.raises(InputError, match="less than 1 s of signal"):
        label_recording(record(tmp_path / "a.csv", 0.9), job)


def test_a_hop_that_is_none(job: Job) -> None:
    with pytest.raises(InputError, match="hop of 0 s"):
        replace(job, hop_s=0)


def test_a_defect_costs_one_recording(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.many.label.open_recording", lambda *_: 1 / 0)
    outcome = label_or_say_why(RECORDING, job, "a")
    assert isinstance(outcome, Failure) and outcome.exit_code == 1
    assert "ZeroDivisionError" in outcome.reason


# A folder


def test_a_folder_by_one_process_and_by_two(folder: Path, tmp_path: Path, job: Job) -> None:
    said: list[str] = []
    before = (dict(os.environ), signal.getsignal(signal.SIGINT))
    assert run(folder, tmp_path / "one", job, 1, said.append) == 2
    assert run(folder, tmp_path / "two", job, 2, print) == 2
    label(folder, tmp_path / "here", job)
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "here")
    text = "\n".join(said)
    assert "failed: bad.csv: time goes back" in text and "photo.jpg: not a text file" in text
    assert "labelled 3 recordings" in text and "1 recording could not be labelled" in text
    windows = rows(tmp_path / "one" / "windows.parquet")
    assert list(dict.fromkeys(row["recording"] for row in windows)) == ["a/x.csv", "b.csv", "c.csv"]
    entries = {row["recording"]: row for row in rows(tmp_path / "one" / "recordings.parquet")}
    assert [(name, row["windows"]) for name, row in entries.items()] == [
        *(("a/x.csv", 12), ("b.csv", 16), ("bad.csv", 0), ("c.csv", 21)),
    ]
    assert entries["bad.csv"]["error"].startswith("time goes back")
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700
    assert (dict(os.environ), signal.getsignal(signal.SIGINT)) == before


def test_pandas_and_duckdb_read_it(folder: Path, tmp_path: Path, job: Job) -> None:
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    out = tmp_path / "out"
    label(folder, out, job)
    frame = pandas.read_parquet(out / "windows.parquet")
    assert len(frame) == 49 and frame.groupby("recording").size()["c.csv"] == 21
    assert list(frame.columns) == [name for name, *_ in WINDOW_COLUMNS]
    query = "SELECT w.recording, count(*), count(t) FROM '{}' w, unnest(top) u(t) GROUP BY 1"
    counted = duckdb.sql(query.format(out / "windows.parquet")).fetchall()
    valid = frame[frame.valid].groupby("recording").size()
    assert {name: n for name, n, _ in counted} == {name: 5 * n for name, n in valid.items()}
    spans = duckdb.sql(f"SELECT min(end_s - start_s) FROM '{out / 'events.parquet'}'").fetchall()
    assert spans[0][0] >= 0 and len(pandas.read_parquet(out / "events.parquet")) >= 3
    assert duckdb.sql(f"SELECT notes FROM '{out / 'recordings.parquet'}'").fetchall()


def test_every_column_says_what_it_means() -> None:
    for field in schema_of(RECORDING_COLUMNS):
        assert field.metadata[b"meaning"]


def test_it_goes_on_where_it_was_interrupted(folder: Path, tmp_path: Path, job: Job) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        label_folder(folder, out, job, Here(interrupt_after=2), said.append)
    # The largest first: bad.csv, then c.csv.
    assert (
        said[-1] == "interrupted: 1 of 4 recordings labelled; the same command goes on from there"
    )
    assert not any((out / name).exists() for name in FILES)
    (part,) = (out / "parts").glob("*.windows")
    (out / "parts" / "torn.windows").write_bytes(part.read_bytes()[:100])  # by a power cut
    here = Here()
    code, text = label(folder, out, job, here)
    assert code == 2 and sorted(here.asked) == ["a/x.csv", "b.csv", "bad.csv"]
    assert "4 recordings, 1 of them labelled before" in text
    label(folder, whole, job)
    assert contents(out) == contents(whole)


def test_what_is_new_or_changed_is_labelled_and_what_is_gone_is_left_out(
    folder: Path, tmp_path: Path, job: Job
) -> None:
    out = tmp_path / "out"
    label(folder, out, job)
    (folder / "bad.csv").unlink()
    here = Here()
    assert label(folder, out, job, here)[0] == 0 and here.asked == []
    before = contents(out)
    assert label(folder, out, job, here)[0] == 0 and here.asked == []
    assert contents(out) == before
    record(folder / "c.csv", 30, seed=9)
    record(folder / "a/y.csv", 18, seed=4)
    (folder / "b.csv").unlink()
    code, text = label(folder, out, job, here)
    assert code == 0 and here.asked == ["c.csv", "a/y.csv"]
    assert "1 recording labelled before, no longer there" in text
    label(folder, tmp_path / "anew", job)
    assert contents(out) == contents(tmp_path / "anew")


def test_a_recording_that_can_no_longer_be_read_has_no_rows_left(
    folder: Path, tmp_path: Path, job: Job
) -> None:
    out = tmp_path / "out"
    label(folder, out, job)
    (folder / "b.csv").write_text((folder / "bad.csv").read_text())
    assert label(folder, out, job)[0] == 2
    assert "b.csv" not in {row["recording"] for row in rows(out / "windows.parquet")}
    label(folder, tmp_path / "anew", job)
    assert contents(out) == contents(tmp_path / "anew")


def test_old_rows_are_cut_at_the_right_places() -> None:
    from pyarrow import record_batch

    numbers = iter(range(10))
    batches = [record_batch({"n": [next(numbers) for _ in range(n)]}) for n in (3, 1, 4, 2)]
    pieces = edge.many.results._cut(batches, [2, 0, 5, 1, 2])
    assert [[n for b in piece for n in b.column(0).to_pylist()] for piece in pieces] == [
        *([0, 1], [], [2, 3, 4, 5, 6], [7], [8, 9])
    ]


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_merge_that_was_cut_off_is_completed(
    folder: Path, tmp_path: Path, job: Job, moved: int
) -> None:
    """The new files lay ready, and `moved` of them were in their place."""
    out, new = tmp_path / "out", tmp_path / "new"
    label(folder, out, job)
    record(folder / "d.csv", 12)
    label(folder, new, job)
    expected = contents(new)
    (out / "parts").mkdir()
    for k, name in enumerate(FILES):
        (new / name).rename((out if k < moved else out / "parts") / name)
    here = Here()
    label(folder, out, job, here)
    assert here.asked == ["bad.csv"] and contents(out) == expected


def test_a_merge_that_was_cut_off_before_all_files_were_whole_is_done_again(
    folder: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    label(folder, out, job)
    record(folder / "d.csv", 12)
    before = contents(out)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("edge.many.results._entry_rows", full)
        with pytest.raises(AuraError, match=r"No space left on device.*same command goes on"):
            label(folder, out, job)
    assert [(out / name).read_bytes() for name in FILES] == before
    here = Here()
    label(folder, out, job, here)
    assert here.asked == ["bad.csv"]
    label(folder, tmp_path / "anew", job)
    assert contents(out) == contents(tmp_path / "anew")


@pytest.mark.parametrize("finished", [True, False])
def test_results_of_another_job_are_neither_mixed_nor_replaced(
    folder: Path, tmp_path: Path, bundle: Bundle, job: Job, finished: bool
) -> None:
    out = tmp_path / "out"
    if finished:
        label(folder, out, job)
    else:
        with pytest.raises(KeyboardInterrupt):
            label(folder, out, job, Here(interrupt_after=2))
    files = sorted(out.rglob("*"))
    other = Job(bundle.id, resolve_labels(["walking", "lying"], bundle), placement="wrist")
    with pytest.raises(InputError) as raised:
        label(folder, out, other)
    message = str(raised.value)
    assert "labels was walking, climbing stairs" in message and "now labels walking" in message
    assert "placement was None" in message and "hop" not in message
    with pytest.raises(InputError, match="folder was"):
        label(folder / "a", out, job)
    assert sorted(out.rglob("*")) == files


def test_folders_that_do_not_serve_for_results(folder: Path, tmp_path: Path, job: Job) -> None:
    with pytest.raises(InputError, match="is the folder of the recordings"):
        label(folder, folder, job)
    with pytest.raises(InputError, match="takes a folder"):
        label(folder, folder / "b.csv", job)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "windows.parquet").write_text("of someone else")
    with pytest.raises(InputError, match=r"holds windows.parquet, which is not from edge-run"):
        label(folder, foreign, job)
    assert [p.name for p in foreign.iterdir()] == ["windows.parquet"]


def test_damaged_results_are_refused(folder: Path, tmp_path: Path, job: Job) -> None:
    out = tmp_path / "out"
    label(folder, out, job)
    (out / "events.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="its results are damaged"):
        label(folder, out, job)


def test_a_folder_of_results_within_that_of_the_recordings(folder: Path, job: Job) -> None:
    label(folder, folder / "labels", job)
    _, text = label(folder, folder / "labels", job)
    assert "4 recordings, 3 of them labelled before" in text
    assert "not recognised as recordings (1):" in text


def test_a_folder_without_recordings(tmp_path: Path, job: Job) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.jpg").write_bytes(b"\0")
    with pytest.raises(InputError, match="nothing in there is recognised"):
        label(tmp_path / "in", tmp_path / "out", job)
    assert not (tmp_path / "out").exists()


def test_without_pyarrow(
    folder: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema_of.cache_clear()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"aura-edge\[eval\]"):
        Results(tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


# Processes


class _Bomb:
    """Ends the process that it is sent to."""

    names = LABELS
    prototypes = np.zeros(1)

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


def test_a_process_that_dies_takes_no_other_recording_with_it(
    folder: Path, tmp_path: Path, job: Job
) -> None:
    (folder / "bad.csv").unlink()
    said: list[str] = []
    bad = replace(job, labels=_Bomb())  # type: ignore[arg-type]
    assert run(folder, tmp_path / "out", bad, 2, said.append) == 1
    failed = [line for line in said if line.startswith("failed: ")]
    assert len(failed) == 3 and all("the process that labelled it died" in f for f in failed)
    entries = rows(tmp_path / "out" / "recordings.parquet")
    assert [e["recording"] for e in entries if e["error"]] == ["a/x.csv", "b.csv", "c.csv"]


SCRIPT = """
import sys
from pathlib import Path
from edge.bundle import DEFAULT_BUNDLE, load_bundle
from edge.labels import resolve_labels
from edge.many.label import Job, run

if __name__ == "__main__":
    bundle = load_bundle(DEFAULT_BUNDLE)
    job = Job(bundle.id, resolve_labels(["walking", "lying"], bundle))
    try:
        run(Path(sys.argv[1]), Path(sys.argv[2]), job, 2, print)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.skipif(os.name == "nt", reason="process groups are Unix'")
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_kill_leave_no_process_behind(tmp_path: Path, kill: signal.Signals) -> None:
    (tmp_path / "go.py").write_text(SCRIPT)
    folder, out = tmp_path / "in", tmp_path / "out"
    first = record(folder / "0.csv", 600)
    for k in range(1, 6):
        shutil.copy(first, folder / f"{k}.csv")
    argv = [sys.executable, str(tmp_path / "go.py"), str(folder), str(out)]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(out.glob("parts/*.windows")) and process.poll() is None:
        time.sleep(0.01)
    if kill == signal.SIGINT:
        os.killpg(process.pid, kill)  # as a terminal does
    else:
        process.kill()
    # Workers hold the pipes too: these end when the last of them has.
    try:
        text, errors = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):  # nothing is left, as it should be
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == (130 if kill == signal.SIGINT else -signal.SIGKILL)
    if kill == signal.SIGINT:
        assert "interrupted: " in text and "Traceback" not in errors
