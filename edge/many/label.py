"""`edge-run --replay DIR --out DIR2`: labels a folder of recordings, several at a time.

    job = Job(bundle.id, labels, placement="wrist")
    exit_code = run(Path("recordings"), Path("labelled"), job, workers=4, say=print)

`edge/many/find.py` says what is taken for a recording, `edge/many/results.py` what comes out.
Every recording is labelled alone, by one thread, as `edge-run --replay FILE` would: the rows are
the same however many processes work, and wherever they do (`edge/many/fleet.py`).

The same command again goes on where it was interrupted, labels what is new or has changed, and
tries again what could not be read. The results are then those of a run over the folder as it is.

Needs pyarrow (extra `eval`).
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Set, Sized
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edge.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from edge.diary import Diary, smoothed
from edge.many.find import Found, Task, find_recordings
from edge.many.results import (
    EVENT_COLUMNS,
    WINDOW_COLUMNS,
    Entry,
    Results,
    event_row,
    schema_of,
    window_row,
)
from edge.moment import Event, Moment
from edge.pipeline import DEFAULT_HOP_S, Pipeline, Prediction
from edge.recording import Recording, UnitOptions, open_recording
from edge.threads import ONE_THREAD
from edge.window import every_hop
from edge.zeroshot import LabelSet
from firmware_bridge.errors import AuraError, InputError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import pyarrow

_BATCH_WINDOWS = 4096
"""Windows made into columns at once: until then one takes 3 kB, and 0.2 kB from then on."""

_SHOWN = 10
"""Names listed at most where there may be thousands."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What labels the recordings. Made once and sent to whoever does the work."""

    bundle_id: str
    """Of the bundle; another one in its place is refused."""

    labels: LabelSet

    bundle: Path | None = None
    """Its folder, the same wherever work is done; None for the one that came along."""

    hop_s: float = DEFAULT_HOP_S

    placement: str | None = None
    """Where the device was worn in all recordings, in words."""

    units: UnitOptions = field(default_factory=UnitOptions)
    """Of all recordings."""

    smooth: bool = False
    """Whether the diary looks ahead (`edge.diary.smoothed`)."""

    version: str = field(default_factory=lambda: version("aura-edge"))

    def __post_init__(self) -> None:
        if not 0.005 <= self.hop_s <= 3600:
            raise InputError(f"a hop of {self.hop_s:g} s is not between 0.005 and 3600 seconds")

    def description(self) -> dict[str, Any]:
        """All that the results depend on beside the recordings, as JSON can hold it."""
        prototypes = hashlib.sha256(self.labels.prototypes.tobytes()).hexdigest()[:16]
        return {
            "aura-edge": self.version,
            "bundle": self.bundle_id,
            "labels": list(self.labels.names),
            "prototypes": prototypes,
            "hop_s": self.hop_s,
            "placement": self.placement,
            "acc_unit": self.units.acc,
            "gyro_unit": self.units.gyro,
            "time_unit": self.units.time,
            "smooth": self.smooth,
        }


class Labelled(NamedTuple):
    """What labelling one recording gave."""

    entry: Entry
    """About the recording; its stamp is empty."""

    windows: pyarrow.Table
    """`edge.many.results.WINDOW_COLUMNS`"""

    events: pyarrow.Table
    """`edge.many.results.EVENT_COLUMNS`"""


class Failure(NamedTuple):
    """Why a recording could not be labelled."""

    reason: str
    exit_code: int


Outcome = Labelled | Failure
Outcomes = Generator[tuple[Task, Outcome], None, None]
LabelEach = Callable[[Sequence[Task], Job], Outcomes]
"""Labels recordings in any order, each told as soon as it is done; stops when it is closed."""


def label_recording(path: Path, job: Job, name: str = "") -> Labelled:
    """Label one recording. It depends on nothing but the recording and the job.

    Args:
        path: what `edge.recording.open_recording` takes.
        job: what to label it by.
        name: what the rows call it; its path if empty.

    Raises:
        InputError: it cannot be read to its end, or is too short for any window; the bundle or the
            version is not the job's.
    """
    bundle = _bundle_of(job)
    name = name or path.as_posix()
    recording = open_recording(path, job.units)
    pipeline = Pipeline(bundle, job.labels, every_hop(job.hop_s), placement=job.placement)
    windows = _Batches(name)
    events: dict[int, Event] = {}
    for moment in _moments(_predictions(pipeline, recording), job, events):
        windows.append(moment)
        events |= {event.number: event for event in moment.events}
    if not windows.n:
        raise InputError(f"{path}: less than 1 s of signal without a gap: no window to classify")
    left_out = pipeline.resampler.dropped
    entry = Entry(
        name,
        stamp="",
        summary=recording.summary,
        notes=tuple(recording.notes),
        start_s=windows.start_s,
        end_s=windows.end_s,
        windows=windows.n,
        classified=windows.n_valid,
        events=len(events),
        left_out=left_out.not_finite + left_out.not_later,
    )
    return Labelled(entry, windows.table(), _event_table(name, events))


def _predictions(pipeline: Pipeline, recording: Recording) -> Iterator[Prediction]:
    for samples in recording.chunks:
        yield from pipeline.push(samples)
    yield from pipeline.finish()


def _moments(
    predictions: Iterable[Prediction], job: Job, at_end: dict[int, Event]
) -> Iterator[Moment]:
    """What the diary says; the events that the recording's end ends go to `at_end`."""
    names = job.labels.names
    if job.smooth:
        lean = (replace(p, embedding=None) for p in predictions)  # all are held at once
        moments, ended = smoothed(lean, names, job.hop_s)
        yield from moments
    else:
        diary = Diary(names, job.hop_s)
        for prediction in predictions:
            yield diary.push(prediction)
        ended = diary.finish()
    at_end |= {event.number: event for event in ended}


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> Bundle:
    return load_bundle(folder)


def _bundle_of(job: Job) -> Bundle:
    """The job's bundle, loaded once a process.

    Raises:
        InputError: another bundle lies there, or another version of aura-edge is installed.
    """
    installed = version("aura-edge")
    if installed != job.version:
        raise InputError(
            f"aura-edge {installed} is installed where the work is done, {job.version} where it "
            "was asked for; install the same version everywhere"
        )
    bundle = _loaded(job.bundle or DEFAULT_BUNDLE)
    if bundle.id != job.bundle_id:
        raise InputError(
            f"{bundle.folder}: holds bundle {bundle.id}, where {job.bundle_id} is expected; put "
            "the same bundle there on all machines"
        )
    return bundle


class _Batches:
    """Windows as they come -> columns."""

    def __init__(self, name: str) -> None:
        self.n = 0
        self.n_valid = 0
        self.start_s: float | None = None
        self.end_s: float | None = None
        self._name = name
        self._schema = schema_of(WINDOW_COLUMNS)
        self._rows: list[dict[str, object]] = []
        self._done: list[pyarrow.RecordBatch] = []

    def append(self, moment: Moment) -> None:
        """Take the next window."""
        if self.start_s is None:
            self.start_s = moment.prediction.start_s
        self.end_s = moment.prediction.end_s
        self.n += 1
        self.n_valid += moment.prediction.valid
        self._rows.append(window_row(self._name, moment))
        if len(self._rows) >= _BATCH_WINDOWS:
            self._flush()

    def table(self) -> pyarrow.Table:
        """All windows."""
        import pyarrow as pa

        self._flush()
        return pa.Table.from_batches(self._done, self._schema)

    def _flush(self) -> None:
        import pyarrow as pa

        self._done.append(pa.RecordBatch.from_pylist(self._rows, self._schema))
        self._rows = []


def _event_table(name: str, events: dict[int, Event]) -> pyarrow.Table:
    import pyarrow as pa

    rows = [event_row(name, events[number]) for number in sorted(events)]
    return pa.Table.from_pylist(rows, schema_of(EVENT_COLUMNS))


def label_or_say_why(path: Path, job: Job, name: str) -> Outcome:
    """`label_recording`, for work that one bad recording may not end."""
    try:
        return label_recording(path, job, name)
    except AuraError as error:
        return Failure(str(error), error.exit_code)
    except OSError as error:
        return Failure(f"{path}: cannot be read ({error.strerror or error})", 1)
    except MemoryError:
        return Failure(f"{path}: does not fit into memory", 1)
    except Exception as error:  # a defect of ours; the other recordings go on, and it is said
        return Failure(f"{path}: {type(error).__name__}: {error}", 1)


def run(source: Path, out: Path, job: Job, workers: int, say: Say) -> int:
    """Label a folder of recordings with processes of this machine.

    A script that calls this has to do it under `if __name__ == "__main__":`, as the processes
    import it.

    Args:
        source: the folder of recordings.
        out: the folder of results, made if it is not there.
        job: what to label them by.
        workers: how many recordings to label at a time.
        say: tells the user what goes on.

    Returns:
        The exit code: 0 all are labelled, 2 some recordings cannot be read, 1 some failed
        otherwise.

    Raises:
        InputError: there is no recording, or `out` cannot be used.
        AuraError: the results cannot be written.
    """

    def each(tasks: Sequence[Task], job: Job) -> Outcomes:
        return _in_processes(tasks, job, workers)

    return label_folder(source, out, job, each, say)


def default_workers() -> int:
    """The processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return min(os.cpu_count() or 1, 61)  # more processes Windows cannot wait for


def label_folder(source: Path, out: Path, job: Job, each: LabelEach, say: Say) -> int:
    """Label by `each` what is not labelled yet, and keep what it gives.

    Everything else is as in `run`.
    """
    source = source.resolve()
    if out.resolve() == source:
        raise InputError(f"{out}: is the folder of the recordings; give another one for --out")
    found = find_recordings(source, out)
    if not found.recordings and not found.refused:
        raise InputError(
            f"{source}: nothing in there is recognised as a recording; "
            "edge-run --replay FILE says of one why"
        )
    try:
        results = Results(out, {"folder": str(source), **job.description()})
        return _label_found(found, results, job, each, say)
    except OSError as error:
        raise AuraError(
            f"{out}: cannot be written ({error.strerror or error}); what was labelled before is "
            "kept, and the same command goes on from there"
        ) from None


def _label_found(found: Found, results: Results, job: Job, each: LabelEach, say: Say) -> int:
    done = results.done()
    todo = [t for t in found.recordings if t.name not in done or done[t.name].stamp != t.stamp]
    # A large one that is begun last would be waited for alone.
    todo.sort(key=lambda task: (-task.size, task.name))
    _say_begin(found, todo, done.keys(), say)
    failures: list[Entry] = []
    exit_codes = {0}

    def fail(task: Task, failure: Failure) -> None:
        reason = failure.reason.removeprefix(f"{task.path}: ")
        say(f"failed: {task.name}: {reason}")
        failures.append(Entry(task.name, task.stamp, reason))
        exit_codes.add(failure.exit_code)

    for refused, reason in found.refused:
        fail(refused, Failure(reason, InputError.exit_code))
    began_s, added = time.monotonic(), list[Entry]()
    try:
        with (
            _progress(found.recordings, todo) as advance,
            closing(each(todo, job)) as outcomes,
        ):
            for task, outcome in outcomes:
                if isinstance(outcome, Labelled):
                    added.append(replace(outcome.entry, stamp=task.stamp))
                    results.add(added[-1], outcome.windows, outcome.events)
                else:
                    fail(task, outcome)
                advance(task)
    except KeyboardInterrupt:
        n_done = len(found.recordings) - len(todo) + len(added)
        say(
            f"interrupted: {n_done} of {_counted(found.recordings)} labelled; the same command "
            "goes on from there"
        )
        raise
    keep = {task.name for task in found.recordings} - {entry.recording for entry in failures}
    entries = results.finish(keep, failures)
    _say_end(results.folder, entries, added, time.monotonic() - began_s, say)
    return 1 if 1 in exit_codes else max(exit_codes)


def _say_begin(found: Found, todo: list[Task], done: Set[str], say: Say) -> None:
    before = len(found.recordings) - len(todo)
    say(_counted(found.recordings) + (f", {before} of them labelled before" if before else ""))
    gone = done - {task.name for task in found.recordings}
    if gone:
        say(f"{_counted(gone)} labelled before, no longer there: left out of the results")
    if found.others:
        say(f"other files, not recognised as recordings ({len(found.others)}):")
        for name, why in found.others[:_SHOWN]:
            say(f"  {name}: {why.split('. ')[0]}")
        if len(found.others) > _SHOWN:
            say(f"  and {len(found.others) - _SHOWN} more")


def _say_end(
    folder: Path, entries: list[Entry], added: list[Entry], took_s: float, say: Say
) -> None:
    """What came out."""
    if added:
        signal_s = sum((e.end_s or 0) - (e.start_s or 0) for e in added)
        say(
            f"labelled {_counted(added)}, {signal_s / 3600:.2f} h of signal, in {took_s:.0f} s: "
            f"{signal_s / took_s:.0f} times real time"
        )
    failed = [entry for entry in entries if entry.error is not None]
    noted = [entry for entry in entries if entry.notes]
    if failed:
        say(f"{_counted(failed)} could not be labelled: column error of recordings.parquet")
    if noted:
        say(f"note: {_counted(noted)} with notes: column notes of recordings.parquet")
    say(
        f"{sum(e.windows for e in entries)} windows and {sum(e.events for e in entries)} events "
        f"of {len(entries) - len(failed)} recordings are in {folder}"
    )


def _counted(recordings: Sized) -> str:
    return f"{len(recordings)} recording{'s' if len(recordings) != 1 else ''}"


@contextmanager
def _progress(recordings: Sequence[Task], todo: Sequence[Task]) -> Iterator[Callable[[Task], None]]:
    """A progress bar on a terminal; what it yields is to be called for each task that is over.

    It goes by the sizes of files, for recordings may be of a minute or a week.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.fields[n]}/{task.fields[total_n]} recordings"), BarColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        total, left = (sum(task.size for task in tasks) for tasks in (recordings, todo))
        row = bar.add_task("", total=total, completed=total - left, n=0, total_n=len(recordings))
        n = len(recordings) - len(todo)
        bar.update(row, n=n)

        def advance(task: Task) -> None:
            nonlocal n
            n += 1
            bar.update(row, advance=task.size, n=n)

        yield advance


def _in_processes(tasks: Sequence[Task], job: Job, workers: int) -> Outcomes:
    """Label in processes of this machine. Where a recording takes its process down, as the system
    ends one for want of memory, the others go on."""
    waiting = {task.name: task for task in tasks}
    while waiting:
        try:
            for task, outcome in _in_pool([*waiting.values()], job, workers):
                del waiting[task.name]
                yield task, outcome
        except BrokenProcessPool:
            # Tasks are begun in order: those that were under way come first. Alone it shows whose
            # fault it was.
            for task in [*waiting.values()][:workers]:
                try:
                    ((_, outcome),) = _in_pool([task], job, 1)
                except BrokenProcessPool:
                    why = "the process that labelled it died, perhaps for want of memory"
                    outcome = Failure(f"{task.path}: {why}", 1)
                del waiting[task.name]
                yield task, outcome


def _in_pool(tasks: Sequence[Task], job: Job, workers: int) -> Outcomes:
    """Raises:
    BrokenProcessPool: a process died; all that was done before was yielded.
    """
    context = get_context("spawn")  # a fork would take over the threads of what runs here
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (reader,))
    try:
        with _for_workers():
            futures = {pool.submit(label_or_say_why, t.path, job, t.name): t for t in tasks}
        broken: BrokenProcessPool | None = None
        for future in as_completed(futures):
            task = futures.pop(future)  # lets go of what it gave
            try:
                outcome = future.result()
            except BrokenProcessPool as error:
                broken = error
            else:
                yield task, outcome
        if broken:
            raise broken
        pool.shutdown()
    finally:
        writer.close()
        pool.shutdown(cancel_futures=True)
        reader.close()


@contextmanager
def _for_workers() -> Iterator[None]:
    """Within it processes are started with one thread each, and deaf to Ctrl-C, which a terminal
    sends to them too: it is for the parent to end them."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker(parent: Connection) -> None:
    """Have a worker end at once when its parent closes the other end of a pipe, or dies."""

    def wait() -> None:
        parent.poll(None)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
