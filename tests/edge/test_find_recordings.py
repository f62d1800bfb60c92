"""Which entries of a folder are taken for recordings."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edge.many.find import Found, find_recordings
from edge.raw import Recorder
from edge.recording import open_recording
from firmware_bridge.errors import InputError
from tests.conftest import TRUTH, walk, write_csv

SAMPLES = walk(6, 50)
ROWS = np.column_stack([SAMPLES.t_s, SAMPLES.acc_mps2])


def found_in(folder: Path, skip: str = "absent") -> Found:
    return find_recordings(folder, folder / skip)


def names(found: Found) -> list[str]:
    return [task.name for task in found.recordings]


def plain(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_csv(path, "time_s,ax_mps2,ay_mps2,az_mps2", ROWS)


def sensor_logger(folder: Path, metadata: bool = True) -> Path:
    """An export of Sensor Logger on iOS, with a file that the recording does not need."""
    folder.mkdir(parents=True)
    header = "time,seconds_elapsed,z,y,x"
    rows = np.column_stack([SAMPLES.t_s * 1e9, SAMPLES.t_s, SAMPLES.acc_mps2[:, ::-1]])
    for name in ("Accelerometer", "Gravity", "Magnetometer"):
        write_csv(folder / f"{name}.csv", header, rows / [1, 1, 2, 2, 2])
    if metadata:
        (folder / "Metadata.csv").write_text("platform,standardisation\nios,true\n")
    return folder


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return path


def test_files_folders_zips_and_raw_recordings_in_subfolders(tmp_path: Path) -> None:
    plain(tmp_path / "b.csv")
    plain(tmp_path / "day 1" / "a.csv")
    plain(tmp_path / ".hidden" / "a.csv")
    plain(tmp_path / "out" / "a.csv")
    export = sensor_logger(tmp_path / "day 1" / "phone")
    zipped(export, tmp_path / "phone.zip")
    plain(export / "watch" / "c.csv")  # a folder within an export
    recorder = Recorder(tmp_path / "raw.parquet", "sim", lambda: "", print)
    recorder.write(SAMPLES)
    recorder.close()
    found = found_in(tmp_path, "out")
    assert names(found) == [
        *("b.csv", "day 1/a.csv", "day 1/phone", "day 1/phone/watch/c.csv"),
        *("phone.zip", "raw.parquet"),
    ]
    assert not found.refused and not found.others
    for task in found.recordings:
        assert list(open_recording(task.path).chunks)


def test_a_folder_that_is_itself_an_export(tmp_path: Path) -> None:
    assert names(found_in(sensor_logger(tmp_path / "phone"))) == ["."]


def test_what_is_no_recording_is_listed_with_the_reason(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    plain(tmp_path / "a.csv")
    shutil.copy(TRUTH, tmp_path)
    (tmp_path / "subjects.csv").write_text("subject,age\nme,40\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\0\0")
    (tmp_path / "notes.json").write_text("{}")
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "other.parquet")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    found = found_in(tmp_path)
    assert names(found) == ["a.csv"] and not found.refused
    whys = dict(found.others)
    assert list(whys) == sorted(
        f"{TRUTH.name} subjects.csv empty.csv photo.jpg notes.json other.parquet photos.zip".split()
    )
    assert "not a text file" in whys["photo.jpg"] and "is empty" in whys["empty.csv"]
    assert "no row names a time column" in whys["subjects.csv"]


def test_recordings_that_cannot_be_read_are_not_passed_over(tmp_path: Path) -> None:
    plain(tmp_path / "a.csv")
    header = "time,linear acceleration x,linear acceleration y,linear acceleration z"
    write_csv(tmp_path / "linear.csv", header, ROWS)
    write_csv(tmp_path / "spin.csv", "time,gyro_x,gyro_y,gyro_z", ROWS)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no end")
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4 and no end")
    sensor_logger(tmp_path / "phone", metadata=False)
    found = found_in(tmp_path)
    assert names(found) == ["a.csv"] and not found.others
    whys = {task.name: why for task, why in found.refused}
    assert list(whys) == ["cut.parquet", "cut.zip", "linear.csv", "phone", "spin.csv"]
    assert "without gravity only" in whys["linear.csv"]
    assert "Metadata.csv is missing" in whys["phone"]


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(tmp_path / "a.csv")
    read = Path.open

    def deny(path: Path, *args: str) -> object:
        if path.name == "a.csv":
            raise PermissionError(13, "Permission denied")
        return read(path, *args)

    monkeypatch.setattr(Path, "open", deny)
    ((task, why),) = found_in(tmp_path).refused
    assert task.name == "a.csv" and "cannot be read (Permission denied)" in why


def test_several_recordings_of_one_app_in_a_folder_are_taken_one_by_one(tmp_path: Path) -> None:
    for name in ("1 Accelerometer", "2 Accelerometer"):
        plain(tmp_path / f"{name}.csv")
    assert names(found_in(tmp_path)) == ["1 Accelerometer.csv", "2 Accelerometer.csv"]


def test_a_recording_among_the_files_of_another_is_told(tmp_path: Path) -> None:
    plain(sensor_logger(tmp_path / "phone") / "run.csv")
    found = found_in(tmp_path)
    assert names(found) == ["phone"]
    ((name, why),) = found.others
    assert name == "phone/run.csv" and "give it a folder of its own" in why


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    plain(tmp_path / "a.csv")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    found = found_in(tmp_path)
    assert names(found) == ["a.csv", "b.csv"]
    assert found.others == [("loop", "a link to a folder is not followed")]


def test_the_stamp_changes_with_any_file_of_a_recording(tmp_path: Path) -> None:
    plain(tmp_path / "a.csv")
    export = sensor_logger(tmp_path / "phone")

    def stamps() -> list[str]:
        return [task.stamp for task in found_in(tmp_path).recordings]

    before = stamps()
    assert stamps() == before
    os.utime(export / "Gravity.csv", ns=(0, 0))
    after = stamps()
    assert after[0] == before[0] and after[1] != before[1]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_name_that_parquet_could_not_hold(tmp_path: Path) -> None:
    plain(tmp_path / os.fsdecode(b"caf\xe9.csv"))
    plain(tmp_path / "café.csv")
    found = found_in(tmp_path)
    assert names(found) == ["café.csv"]
    ((task, why),) = found.refused
    assert task.name == r"caf\udce9.csv" and "not valid UTF-8" in why


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        found_in(tmp_path / "absent")
