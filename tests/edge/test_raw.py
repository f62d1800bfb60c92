"""Raw recordings: bit for bit what the pipeline was given, whole or cut off."""

from __future__ import annotations

import stat
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from edge import raw
from edge.bundle import Bundle
from edge.labels import resolve_labels
from edge.pipeline import Pipeline, Prediction
from edge.raw import Recorder
from edge.recording import UnitOptions, open_recording
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples
from firmware_bridge.sim import simulated_packets
from tests.conftest import REPO, walk, without

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

DETAILS = "acc 52 Hz +-8 g, gyro 52 Hz"


def recorder(path: Path, warned: list[str] | None = None) -> Recorder:
    """One that must not warn, unless the warnings are asked for."""

    def warn(message: str) -> None:
        assert warned is not None, message
        warned.append(message)

    return Recorder(path, "ble:Polar Sense", lambda: DETAILS, warn)


def record(path: Path, chunks: list[Samples]) -> Path:
    to = recorder(path)
    assert list(to.passing(chunks)) == chunks
    to.close()
    assert to.samples == sum(map(len, chunks))
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]
    return path


def cut(samples: Samples, sizes: list[int]) -> list[Samples]:
    ends = np.cumsum(sizes)
    assert ends[-1] < len(samples)
    starts = [0, *ends.tolist()]
    return [samples[a:b] for a, b in zip(starts, [*ends.tolist(), len(samples)], strict=True)]


def live_chunks(has_gyro: bool) -> list[Samples]:
    """A walk as a link brings it: packets of many sizes, a gap, stamps that repeat, NaN."""
    samples = without(walk(24, 52, jitter=0.3), 9.0, 10.5)
    t_s = samples.t_s.copy()
    t_s[100] = t_s[99]
    t_s[101] = np.nextafter(t_s[102], 0)  # the last bit counts
    acc = samples.acc_mps2.copy()
    acc[300] = np.nan
    acc[301, 0] = -0.0
    samples = Samples(t_s, acc, samples.gyro_rads if has_gyro else None)
    return cut(samples, [1, 20, 20, 3, 400, 0, 17, 250])


def bits(chunks: list[Samples]) -> list[bytes]:
    """Of all values, one after another."""
    samples = Samples.joined(chunks)
    gyro = b"" if samples.gyro_rads is None else samples.gyro_rads.tobytes()
    return [samples.t_s.tobytes(), samples.acc_mps2.tobytes(), gyro]


def predictions(bundle: Bundle, chunks: list[Samples]) -> list[Prediction]:
    pipeline = Pipeline(bundle, resolve_labels(["walking", "sitting", "lying"], bundle))
    found = [p for chunk in chunks for p in pipeline.push(chunk)]
    return found + pipeline.finish()


@pytest.mark.parametrize("has_gyro", [True, False])
def test_a_replay_gives_the_same_samples_and_labels(
    tmp_path: Path, deciding: Bundle, has_gyro: bool
) -> None:
    live = live_chunks(has_gyro)
    recording = open_recording(record(tmp_path / "walk.parquet", live))
    replayed = list(recording.chunks)
    assert bits(replayed) == bits(live)
    first, second = predictions(deciding, live), predictions(deciding, replayed)
    assert len(first) == len(second) == 20
    assert any(not p.valid for p in first) and any(p.valid for p in first)
    for a, b in zip(first, second, strict=True):
        assert (a.start_s, a.end_s, a.valid, a.missing, a.top, a.rate_hz, a.tilt_deg) == (
            b.start_s, b.end_s, b.valid, b.missing, b.top, b.rate_hz, b.tilt_deg
        )  # fmt: skip
        if a.embedding is not None and b.embedding is not None:
            assert a.embedding.tobytes() == b.embedding.tobytes()


def test_what_a_recording_says_of_itself(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    path = record(tmp_path / "walk.parquet", live_chunks(has_gyro=False))
    notes: list[str] = []
    origin, has_gyro, chunks = raw.read_raw(path, notes)
    assert (origin.source, origin.details, has_gyro) == ("ble:Polar Sense", DETAILS, False)
    assert origin.version == version("aura-edge")
    began = datetime.fromisoformat(origin.began_utc)
    assert before.replace(microsecond=0) <= began <= datetime.now(UTC)
    assert notes == [] and next(chunks).gyro_rads is None
    recording = open_recording(path)
    assert "ble:Polar Sense" in recording.summary and DETAILS in recording.summary
    assert "Hz, no gyroscope" in recording.summary
    assert recording.rate_hz == pytest.approx(52, rel=0.02)
    assert len(recording.notes) == 1 and "accelerometer alone" in recording.notes[0]


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    live = live_chunks(has_gyro=True)
    table = parquet.read_table(record(tmp_path / "walk.parquet", live))
    assert table.schema.names == ["t_s", *raw._ACC, *raw._GYRO]
    assert set(table.schema.types) == {pa.float64()}
    np.testing.assert_array_equal(table["gy_rads"], Samples.joined(live).gyro_rads[:, 1])


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX file modes")
def test_it_is_for_its_owner_only(tmp_path: Path) -> None:
    to = recorder(tmp_path / "walk.parquet")
    assert stat.S_IMODE(to.journal.stat().st_mode) == 0o600
    to.write(walk(1, 52))
    to.close()
    assert stat.S_IMODE(to.path.stat().st_mode) == 0o600


def test_chunks_and_row_groups_are_bounded(tmp_path: Path) -> None:
    """However the samples came: in one piece, or in packets."""
    whole = walk(1000, 200)
    path = record(tmp_path / "walk.parquet", [whole])
    packets = cut(whole, [4] * 40_000)
    sub = tmp_path / "packets"
    sub.mkdir()
    for file in (path, record(sub / "walk.parquet", packets)):
        chunks = list(open_recording(file).chunks)
        assert max(map(len, chunks)) <= raw._READ_ROWS
        assert bits(chunks) == bits([whole])
    metadata = parquet.read_metadata(sub / "walk.parquet")
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert max(groups) < 2 * raw._GROUP_ROWS and min(groups[:-1]) >= raw._GROUP_ROWS


KILLED = """
import os, sys
from itertools import islice
from pathlib import Path
from edge import raw
from firmware_bridge.sim import simulated_packets

raw._WRITE_SAMPLES = 400
to = raw.Recorder(Path(sys.argv[1]), "sim", lambda: "simulated", print)
for samples in islice(simulated_packets(), 250):
    to.write(samples)
print(to.samples, flush=True)
os._exit(9)
"""


def killed(path: Path) -> int:
    """A recording whose program is killed; how many samples were written until then."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)],
        cwd=REPO, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 9, done.stderr
    return int(done.stdout)


def test_a_crash_leaves_a_journal_that_can_be_replayed(tmp_path: Path) -> None:
    n = killed(tmp_path / "day.parquet")
    journal = tmp_path / "day.parquet.part"
    assert list(tmp_path.iterdir()) == [journal]
    live = list(islice(simulated_packets(), 250))
    assert 0 <= sum(map(len, live)) - n < 400
    recording = open_recording(journal)
    assert bits(list(recording.chunks)) == bits([Samples.joined(live)[:n]])
    assert "was not closed" in recording.notes[0]
    with pytest.raises(InputError, match=r"part: is there already"):
        recorder(tmp_path / "day.parquet")


def test_a_journal_is_read_up_to_where_it_was_cut_off(tmp_path: Path) -> None:
    killed(tmp_path / "day.parquet")
    journal = tmp_path / "day.parquet.part"
    whole = journal.read_bytes()
    live = Samples.joined(list(islice(simulated_packets(), 250)))
    lengths = set()
    for size in [*range(4, len(whole), 997), len(whole) - 1, len(whole)]:
        journal.write_bytes(whole[:size])
        try:
            chunks = list(open_recording(journal).chunks)
        except InputError as error:
            assert str(journal) in str(error)
            lengths.add(0)
        else:
            n = sum(map(len, chunks))
            assert bits(chunks) == bits([live[:n]])
            lengths.add(n)
    assert len(lengths) == 3 and min(lengths) == 0  # nothing, 400 and 800 samples


def test_random_damage_is_an_input_error_or_nothing(tmp_path: Path) -> None:
    killed(tmp_path / "day.parquet")
    journal = (tmp_path / "day.parquet.part").read_bytes()
    good = record(tmp_path / "whole" / "walk.parquet", live_chunks(has_gyro=True)).read_bytes()
    path = tmp_path / "damaged.parquet"
    rng = np.random.default_rng(0)
    for whole in (good, journal[:3000]):  # of the journal the descriptions, and a little more
        refused = 0
        for _ in range(100):
            damaged = bytearray(whole)
            for at in rng.integers(4, len(whole), 8):
                damaged[at] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                list(open_recording(path).chunks)
            except InputError:
                refused += 1
        assert refused > 10
    path.write_bytes(good[: len(good) // 2])
    (tmp_path / "damaged.parquet.part").write_bytes(b"")
    with pytest.raises(InputError, match=r"cut off .*; replay .*damaged\.parquet\.part instead"):
        open_recording(path)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_full_disk_stops_recording_and_nothing_else(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    warned: list[str] = []
    to = recorder(tmp_path / "walk.parquet", warned)
    packets = list(islice(simulated_packets(), 12_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))  # no file may grow larger
    try:
        handed_on = list(to.passing(packets))
        to.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert handed_on == packets
    assert len(warned) == 1 and "stopped after" in warned[0] and "labels go on" in warned[0]
    assert not to.path.exists()
    replayed = list(open_recording(to.journal).chunks)
    n = sum(map(len, replayed))
    assert to.samples == n > 8192
    assert bits(replayed) == bits([Samples.joined(packets)[:n]])


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_disk_that_is_full_at_the_end_leaves_the_journal(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    warned: list[str] = []
    to = recorder(tmp_path / "walk.parquet", warned)
    samples = walk(200, 200)
    to.write(samples)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        to.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(warned) == 1 and str(to.journal) in warned[0]
    assert not to.path.exists()
    assert bits(list(open_recording(to.journal).chunks)) == bits([samples])


def test_a_file_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    warned: list[str] = []
    to = recorder(tmp_path / "walk.parquet", warned)
    to.write(walk(2, 52))
    to.path.write_text("somebody else's")
    to.close()
    assert to.path.read_text() == "somebody else's"
    assert len(warned) == 1 and "--replay reads" in warned[0]
    assert len(list(open_recording(to.journal).chunks)) == 1


def test_a_gyroscope_that_comes_later_ends_the_recording(tmp_path: Path) -> None:
    warned: list[str] = []
    to = recorder(tmp_path / "walk.parquet", warned)
    samples = walk(4, 52)
    to.write(Samples(samples.t_s, samples.acc_mps2, None))
    to.write(samples)
    to.write(samples)
    to.close()
    assert len(warned) == 1 and "gyroscope came or went" in warned[0]
    assert bits(list(open_recording(to.journal).chunks)) == bits(
        [Samples(samples.t_s, samples.acc_mps2, None)]
    )


def test_closing_twice_and_without_samples(tmp_path: Path) -> None:
    to = recorder(tmp_path / "new folder" / "walk.parquet")
    to.write(walk(1, 52)[:0])
    to.close()
    to.close()
    assert list(to.path.parent.iterdir()) == []


def test_what_cannot_be_recorded_to_is_said_at_once(tmp_path: Path) -> None:
    taken = record(tmp_path / "walk.parquet", [walk(1, 52)])
    before = taken.read_bytes()
    with pytest.raises(InputError, match=r"walk\.parquet: is there already"):
        recorder(taken)
    assert taken.read_bytes() == before
    with pytest.raises(InputError, match=r"name the file walk\.parquet"):
        recorder(tmp_path / "walk.csv")
    with pytest.raises(InputError, match="cannot record there"):
        recorder(taken / "inside" / "walk.parquet")


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(tmp_path / "walk.parquet", [walk(1, 52)])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for use in (lambda: recorder(tmp_path / "new.parquet"), lambda: open_recording(path)):
        with pytest.raises(InputError, match=r'pip install "aura-edge\[eval\]"'):
            use()
    assert list(tmp_path.iterdir()) == [path]


def test_another_programs_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    parquet.write_table(pa.table({"time": [0.0, 1.0], "speed": [1.0, 2.0]}), path)
    with pytest.raises(InputError, match=r"no raw recording \(columns time, speed\)"):
        open_recording(path)
    path.unlink()
    table = parquet.read_table(record(tmp_path / "walk.parquet", [walk(1, 52)]))
    newer = table.replace_schema_metadata({raw._KEY: b'{"format": 99}'})
    parquet.write_table(newer, path)
    with pytest.raises(InputError, match="newer aura-edge"):
        open_recording(path)


def test_units_do_not_go_with_a_raw_recording(tmp_path: Path) -> None:
    path = record(tmp_path / "walk.parquet", [walk(1, 52)])
    with pytest.raises(InputError, match="SI units"):
        open_recording(path, UnitOptions(acc="g"))


def test_one_sample_is_nothing_to_replay(tmp_path: Path) -> None:
    path = record(tmp_path / "walk.parquet", [walk(1, 52)[:1]])
    with pytest.raises(InputError, match="nothing to replay"):
        open_recording(path)


def test_a_replay_takes_little_memory(tmp_path: Path) -> None:
    """Of a recording of 50 MB, and of its journal."""
    whole = walk(4500, 200)
    to = recorder(tmp_path / "walk.parquet")
    for chunk in cut(whole, [8192] * 100):
        to.write(chunk)
    size = to.journal.stat().st_size
    assert size > 50e6
    for path in (to.journal, to.path):
        if path == to.path:
            to.close()
        before, most, n = pa.total_allocated_bytes(), 0, 0
        for samples in open_recording(path).chunks:
            most = max(most, pa.total_allocated_bytes() - before)
            n += len(samples)
        assert n == len(whole)
        assert most < size / 4, path
