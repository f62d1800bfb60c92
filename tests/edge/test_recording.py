"""Recorded files: what is understood, and a clear error for every kind of bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.recording import Recording, UnitOptions, open_recording, read_truth, truth_of
from firmware_bridge.errors import InputError
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2
from tests.conftest import RECORDING, TRUTH, walk, write_csv

G = STANDARD_GRAVITY_MPS2


def all_samples(recording: Recording) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    chunks = list(recording.chunks)
    gyro = [c.gyro_rads for c in chunks if c.gyro_rads is not None]
    return (
        np.concatenate([c.t_s for c in chunks]),
        np.concatenate([c.acc_mps2 for c in chunks]),
        np.concatenate(gyro) if gyro else None,
    )


def columns(acc_scale: float = 1.0, gyro_scale: float = 1.0, time_scale: float = 1.0) -> np.ndarray:
    s = walk(6, 50)
    assert s.gyro_rads is not None
    return np.column_stack([s.t_s * time_scale, s.acc_mps2 * acc_scale, s.gyro_rads * gyro_scale])


DEG = 180 / np.pi


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("time_s,ax_mps2,ay_mps2,az_mps2,gx_rads,gy_rads,gz_rads", columns()),
        ("t,ax,ay,az,gx,gy,gz", columns()),
        ("ts,acc_x_m_s2,acc_y_m_s2,acc_z_m_s2,gyro_x_deg_s,gyro_y_deg_s,gyro_z_deg_s",
         columns(1.0, DEG)),
        ("time,gFx,gFy,gFz,wx,wy,wz", columns(1 / G)),
        ("timestamp_ms,accX_g,accY_g,accZ_g,gyrX_dps,gyrY_dps,gyrZ_dps", columns(1 / G, DEG, 1e3)),
        ("Time (s),Acceleration x (m/s^2),Acceleration y (m/s^2),Acceleration z (m/s^2),"
         "Gyroscope x (rad/s),Gyroscope y (rad/s),Gyroscope z (rad/s)", columns()),
        ("Timestamp (us),Accelerometer X [mg],Accelerometer Y [mg],Accelerometer Z [mg],"
         "Gyroscope X (deg/s),Gyroscope Y (deg/s),Gyroscope Z (deg/s)", columns(1e3 / G, DEG, 1e6)),
    ],
)  # fmt: skip
def test_units_in_the_header_are_converted(tmp_path: Path, header: str, rows: np.ndarray) -> None:
    recording = open_recording(write_csv(tmp_path / "r.csv", header, rows))
    t, acc, gyro = all_samples(recording)
    expected = walk(6, 50)
    np.testing.assert_allclose(t, expected.t_s, atol=1e-4)
    np.testing.assert_allclose(acc, expected.acc_mps2, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gyro, expected.gyro_rads, rtol=1e-4, atol=1e-4)
    assert recording.rate_hz == pytest.approx(50, rel=0.01)


def test_columns_are_found_by_name_in_any_order_after_a_preamble(tmp_path: Path) -> None:
    rows = columns()
    path = tmp_path / "r.csv"
    body = "\n".join(";".join(f"{v:.6f}".replace(".", ",") for v in r) for r in rows[:, ::-1])
    path.write_text(f"DeviceTag: left\nFirmware: 1.2\ngz;gy;gx;az;ay;ax;time\n{body}\n")
    _, acc, gyro = all_samples(open_recording(path))
    np.testing.assert_allclose(acc, rows[:, 1:4], atol=1e-5)
    np.testing.assert_allclose(gyro, rows[:, 4:7], atol=1e-5)


def test_the_shipped_recording_is_in_si_units_and_its_truth_lies_within() -> None:
    t, acc, _ = all_samples(open_recording(RECORDING))
    assert np.median(np.sqrt((acc**2).sum(axis=1))) == pytest.approx(G, rel=0.06)
    truth = read_truth(TRUTH)
    assert all(t[0] <= s.start_s < s.end_s <= t[-1] for s in truth)
    assert {"walking", "sitting", "lying"} <= {s.label for s in truth}


@pytest.mark.parametrize(
    ("header", "scale", "unit"),
    [
        ("t,ax,ay,az", 1 / G, "g"),
        ("t,ax,ay,az", 1e3 / G, "mg"),
        ("t,ax_mps2,ay_mps2,az_mps2", 1 / G, "g"),
    ],
)
def test_an_accelerometer_in_g_is_named_and_converted_only_when_asked(
    tmp_path: Path, header: str, scale: float, unit: str
) -> None:
    path = write_csv(tmp_path / "r.csv", header, columns(scale)[:, :4])
    with pytest.raises(InputError, match=rf"looks like {unit}: say --acc-unit {unit}"):
        open_recording(path)
    _, acc, _ = all_samples(open_recording(path, UnitOptions(acc=unit)))
    np.testing.assert_allclose(acc, walk(6, 50).acc_mps2, rtol=1e-3, atol=1e-3)


def test_gravity_free_acceleration_is_refused_with_the_reason(tmp_path: Path) -> None:
    named = "time,userAccelerationX,userAccelerationY,userAccelerationZ"
    path = write_csv(tmp_path / "named.csv", named, columns()[:, :4])
    with pytest.raises(InputError, match=r"named\.csv:1: .*without gravity"):
        open_recording(path)
    unnamed = columns()[:, :4]
    unnamed[:, 1:] = (unnamed[:, 1:] - [0, 0, G]) / 20
    path = write_csv(tmp_path / "unnamed.csv", "time,ax,ay,az", unnamed)
    with pytest.raises(InputError, match="gravity was removed"):
        open_recording(path)


def test_a_missing_gyroscope_is_noted(tmp_path: Path) -> None:
    recording = open_recording(write_csv(tmp_path / "r.csv", "t,ax,ay,az", columns()[:, :4]))
    assert all_samples(recording)[2] is None
    assert "no gyroscope" in recording.summary
    assert any("no gyroscope" in note for note in recording.notes)


def test_a_gyroscope_in_deg_s_that_claims_rad_s_is_refused(tmp_path: Path) -> None:
    rows = columns(gyro_scale=DEG)
    path = write_csv(tmp_path / "r.csv", "t,ax,ay,az,gx,gy,gz", rows)
    with pytest.raises(InputError, match="say --gyro-unit deg/s"):
        open_recording(path)
    _, _, gyro = all_samples(open_recording(path, UnitOptions(gyro="deg/s")))
    np.testing.assert_allclose(gyro, walk(6, 50).gyro_rads, atol=1e-3)


def test_a_gyroscope_without_a_unit_is_taken_as_si_and_said(tmp_path: Path) -> None:
    recording = open_recording(write_csv(tmp_path / "r.csv", "t,ax,ay,az,gx,gy,gz", columns()))
    assert any("taken as rad/s" in note for note in recording.notes)


def test_a_time_in_ms_without_a_unit_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "r.csv", "time,ax,ay,az", columns(time_scale=1e3)[:, :4])
    with pytest.raises(InputError, match="50 Hz with --time-unit ms"):
        open_recording(path)
    assert open_recording(path, UnitOptions(time="ms")).rate_hz == pytest.approx(50, rel=0.01)


def test_a_rate_out_of_range_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "r.csv", "time_s,ax,ay,az", columns(time_scale=20)[:, :4])
    with pytest.raises(InputError, match="10 to 1000 Hz"):
        open_recording(path)


def test_a_cell_that_is_no_number_is_named_by_line_and_column(walk_csv: Path) -> None:
    lines = walk_csv.read_text().splitlines()
    lines[7] = lines[7].replace(",", ",oops", 1)
    walk_csv.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"walk\.csv:8: column 'ax_mps2' holds 'oops"):
        open_recording(walk_csv)


def test_a_short_line_is_an_error_but_a_cut_off_last_line_is_noted(walk_csv: Path) -> None:
    text = walk_csv.read_text()
    walk_csv.write_text(text[: len(text) - 30])
    recording = open_recording(walk_csv)
    assert len(all_samples(recording)[0]) == 999
    assert any("cut off" in note for note in recording.notes)
    lines = text.splitlines()
    lines[20] = "1.0,2.0"
    walk_csv.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"walk\.csv:21: 2 fields, expected 7"):
        open_recording(walk_csv)


def test_empty_cells_are_not_measured(walk_csv: Path) -> None:
    lines = walk_csv.read_text().splitlines()
    time, _, rest = lines[5].split(",", 2)
    lines[5] = f"{time},,{rest}"
    walk_csv.write_text("\n".join(lines))
    _, acc, _ = all_samples(open_recording(walk_csv))
    assert np.isnan(acc[4, 0]) and np.isfinite(acc[5]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"time,steps\n1,2\n", "three accelerometer columns.*time, steps"),
        (b"time_s,ax,ay,az\n", "0 samples"),
        (b"\xff\xfe\x00\x01\x80" * 50, "not a text file"),
    ],
)
def test_files_that_are_no_recordings(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_recording(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_recording(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="is a folder"):
        open_recording(tmp_path)


def test_truth_covers_most_of_a_window_or_none(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("start_s,end_s,label\n0,10,walking\n12,20,sitting\n")
    truth = read_truth(path)
    assert truth_of(truth, 2, 7) == "walking"
    assert truth_of(truth, 7.5, 12.5) == "walking"
    assert truth_of(truth, 8, 13) is None
    path.write_text("start_s,end_s,label\n0,ten,walking\n")
    with pytest.raises(InputError, match=r"truth\.csv:2"):
        read_truth(path)
