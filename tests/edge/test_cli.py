"""`edge-run` as a user runs it: output, log, exit codes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import edge.cli
import edge.source
from edge.cli import main
from edge.log.read import LogReader, Where
from edge.source import PACKET_SAMPLES, in_real_time
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS, TIME_UNITS_S
from tests.conftest import RECORDING, REPO, TRUTH, walk

LABELS = "walking, going upstairs, sitting, lying"


def windows_in(log: Path) -> int:
    with LogReader(log) as reader:
        return sum(len(block.start_s) for block in reader.windows(Where()))


def run_jsonl(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, object]]:
    assert main([*argv, "--format", "jsonl"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_recording_gives_one_object_a_window_and_a_log(
    walk_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.db"
    out = run_jsonl(capsys, "--replay", str(walk_csv), "--labels", LABELS, "--log", str(log))
    assert [(w["start_s"], w["end_s"]) for w in out] == [(k, k + 5) for k in range(16)]
    assert all(w["valid"] and w["label"] in LABELS for w in out)
    with LogReader(log) as reader:
        (block,) = reader.windows(Where())
        assert block.texts(block.label) == [w["label"] for w in out]
        assert block.texts(block.window_label) == [w["window_label"] for w in out]
        assert block.start_s.tolist() == [w["start_s"] for w in out]
        np.testing.assert_allclose(
            block.probability[:, 0], [w["probability"] for w in out], atol=1e-3
        )


def test_the_hop_and_no_log(
    walk_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    out = run_jsonl(capsys, "--replay", str(walk_csv), "--hop", "2.5", "--no-log")
    assert [w["start_s"] for w in out] == [0, 2.5, 5, 7.5, 10, 12.5, 15]
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="XDG folders are Linux'")
def test_the_default_log_is_in_the_users_data_folder(
    walk_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert main(["--replay", str(walk_csv)]) == 0
    assert (tmp_path / "data" / "aura-edge" / "log.db").exists()


def test_the_shipped_recording_beside_its_truth(capsys: pytest.CaptureFixture[str]) -> None:
    labels = "walking, climbing stairs, descending stairs, sitting, standing, lying"
    argv = ["--replay", str(RECORDING), "--truth", str(TRUTH), "--labels", labels, "--no-log"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert out.count("truth: walking") > 3 and "(not classified)" not in out
    assert "50.0 Hz" in err and "agrees with the truth in" in err


def test_an_unknown_window_is_never_right(
    deciding_folder: Path, rejecting_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--replay", str(RECORDING), "--truth", str(TRUTH), "--no-log", "--bundle"]
    assert main([*argv, str(deciding_folder)]) == 0
    out, err = capsys.readouterr()
    assert "unknown" not in out + err and "agrees with the truth in 0 " not in err
    forced, *_ = (line for line in err.splitlines() if line.endswith(" classified"))
    assert main([*argv, str(rejecting_folder)]) == 0
    out, err = capsys.readouterr()
    n_classified = forced.split()[-2]
    assert f"{forced}, {n_classified} of them unknown" in err
    assert "agrees with the truth in 0 of " in err
    assert "unknown (" in out


def test_a_reset_clock_in_mid_file_keeps_what_was_logged(
    walk_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = walk_csv.read_text().splitlines()
    header, rows = lines[0], lines[1:]
    walk_csv.write_text("\n".join([header, *rows * 3]))
    log = tmp_path / "log.db"
    assert main(["--replay", str(walk_csv), "--log", str(log), "--format", "jsonl"]) == 2
    out, err = capsys.readouterr()
    assert "time goes back" in err and len(out.splitlines()) == 15  # the last one lacks its end
    db = sqlite3.connect(log)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert windows_in(log) == 15


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--replay", "absent.csv"], "absent.csv: no such file"),
        (["--replay", "{walk}", "--bundle", "/nowhere"], "manifest.json: missing"),
        (["--replay", "{walk}", "--labels", ","], "names no label"),
        (["--replay", "{walk}", "--acc-unit", "g"], "median |acceleration|"),
        (["--device", "toaster"], "'toaster' is not known"),
        (["--device", "sim", "--truth", "{walk}"], "--truth goes with --replay"),
        (["--device", "sim", "--acc-unit", "g"], "a device states its units"),
        (["--replay", "{walk}", "--log", "{walk}"], "choose another file with --log"),
    ],
)
def test_bad_input_is_one_clear_error_and_exit_code_2(
    walk_csv: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    log = [] if "--log" in argv else ["--no-log"]
    assert main([a.format(walk=walk_csv) for a in argv] + log) == 2
    out, err = capsys.readouterr()
    assert out == "" and "error: " in err and message in err and "Traceback" not in err


def test_the_placement_is_understood_or_a_note_says_which_are(
    walk_csv: Path, deciding_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--replay", str(walk_csv), "--bundle", str(deciding_folder), "--no-log"]
    assert main([*argv, "--placement", "left trouser pocket"]) == 0
    err = capsys.readouterr().err
    assert "placement 'left trouser pocket': worn on the thigh" in err and "note:" not in err
    assert main([*argv, "--placement", "nose"]) == 0
    err = capsys.readouterr().err
    assert "note: placement 'nose' is not recognised" in err and "wrist" in err
    assert main(argv) == 0
    assert "placement" not in capsys.readouterr().err


def test_a_bundle_without_a_use_for_the_placement_says_so(
    walk_csv: Path, plain_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--replay", str(walk_csv), "--bundle", str(plain_folder), "--no-log"]
    assert main([*argv, "--placement", "wrist"]) == 0
    assert "decides without the placement" in capsys.readouterr().err


def test_the_placement_changes_what_is_said(
    walk_csv: Path, deciding_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--replay", str(walk_csv), "--bundle", str(deciding_folder), "--labels", LABELS]
    unknown = run_jsonl(capsys, *argv, "--no-log")
    worn = run_jsonl(capsys, *argv, "--no-log", "--placement", "chest")
    assert [w["tilt_deg"] for w in unknown] == [w["tilt_deg"] for w in worn]
    assert worn[0]["tilt_deg"] is None and worn[-1]["tilt_deg"] == pytest.approx(0, abs=5)
    assert worn[0]["face_deg"] == pytest.approx(90, abs=10)
    assert [w["probability"] for w in unknown] != [w["probability"] for w in worn]


def test_too_short_a_recording(walk_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walk_csv.write_text("\n".join(walk_csv.read_text().splitlines()[:30]))
    assert main(["--replay", str(walk_csv), "--no-log"]) == 2
    assert "less than 1 s of signal" in capsys.readouterr().err


def test_the_unit_choices_are_those_of_the_border() -> None:
    help_text = edge.cli._parser().format_help()
    for table in (ACC_UNITS_MPS2, GYRO_UNITS_RADS, TIME_UNITS_S):
        assert "{" + ",".join(table) + "}" in help_text


def test_real_time_waits_until_each_piece_is_due() -> None:
    now = [0.0]
    pieces = in_real_time(
        iter([walk(2, 50), walk(2, 50).shifted(2)]),
        lambda: now[0],
        lambda s: now.__setitem__(0, now[0] + s),
    )
    due = [(now[0], float(p.t_s[-1])) for p in pieces]
    assert len(due) == 2 * 100 / PACKET_SAMPLES
    np.testing.assert_allclose([d[0] for d in due], [d[1] for d in due], atol=1e-9)


def edge_run(*argv: str, **kwargs: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge.cli", *argv],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,  # type: ignore[call-overload]
    )


def test_the_simulated_wearable_streams_until_the_reader_has_enough() -> None:
    process = edge_run("--device", "sim", "--speed", "max", "--format", "jsonl", "--no-log")
    assert process.stdout is not None and process.stderr is not None
    windows = [json.loads(line) for line in islice(process.stdout, 30)]
    process.stdout.close()
    assert process.wait(timeout=30) == 0 and "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert [w["start_s"] for w in windows] == pytest.approx(np.arange(30), abs=0.5)
    assert 45 < np.mean([w["rate_hz"] for w in windows]) < 53  # 52.5 Hz less 2 % lost


def test_ctrl_c_ends_with_a_summary_and_130(tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    process = edge_run("--device", "sim", "--speed", "max", "--format", "jsonl", "--log", str(log))
    assert process.stdout is not None
    for _ in islice(process.stdout, 5):
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "windows" in err and "Traceback" not in err
    shown = 5 + len(out.splitlines())
    assert windows_in(log) in (shown, shown + 1)  # the signal may come between log and display


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_run_leaves_a_readable_log(tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    process = edge_run("--device", "sim", "--speed", "max", "--format", "jsonl", "--log", str(log))
    assert process.stdout is not None
    began = time.monotonic()
    for _ in process.stdout:
        if time.monotonic() - began > 2.5:  # at least one commit is due every second
            break
    process.kill()
    process.communicate()
    db = sqlite3.connect(log)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert windows_in(log) > 0
