"""`edge-run` with its diary, outputs, personal labels and folders, as a user runs it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet
import pytest

import edge.log.cli
import edge.personal.enroll
from edge.cli import main
from edge.log.read import LogReader, Where
from tests.conftest import RECORDING, REPO, TRUTH

LABELS = "walking, climbing stairs, descending stairs, sitting, standing, lying"
REPLAY = ("--replay", str(RECORDING), "--labels", LABELS, "--placement", "waist")

Window = dict[str, object]


def said(capsys: pytest.CaptureFixture[str], *options: str) -> list[Window]:
    assert main([*REPLAY, "--format", "jsonl", *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def flips(windows: list[Window]) -> int:
    labels = [w["label"] for w in windows]
    return sum(a != b for a, b in pairwise(labels))


def test_labels_are_steadied_unless_raw_windows_are_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = said(capsys, "--raw-windows", "--no-log")
    steady, smooth = said(capsys, "--no-log"), said(capsys, "--no-log", "--smooth")
    assert [w["label"] for w in raw] == [w["window_label"] for w in steady]
    assert [w["window_label"] for w in smooth] == [w["window_label"] for w in steady]
    assert not any(w["events"] for w in raw)
    assert max(flips(steady), flips(smooth)) < flips(raw) / 2
    assert [w["label"] for w in smooth] != [w["label"] for w in steady]


@pytest.mark.parametrize("mode", [[], ["--smooth"]])
def test_events_reach_the_log_and_have_ended(tmp_path: Path, mode: list[str]) -> None:
    log = tmp_path / "log.db"
    assert main([*REPLAY, *mode, "--log", str(log), "--format", "jsonl"]) == 0
    with LogReader(log) as reader:
        events = reader.events(Where())
        windows = list(reader.windows(Where()))
    assert len(events) > 5
    assert all(a.end_s <= b.start_s for a, b in pairwise(events))
    assert events[-1].end_s == pytest.approx(windows[-1].end_s[-1])


def test_agreement_is_that_of_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    right = []
    for mode in ([], ["--raw-windows"]):
        argv = [*REPLAY, "--truth", str(TRUTH), "--no-log", "--format", "jsonl", *mode]
        assert main(argv) == 0
        captured = capsys.readouterr()
        windows = [json.loads(line) for line in captured.out.splitlines()]
        (found,) = re.findall(r"agrees with the truth in (\d+) of 201", captured.err)
        # All labels but "lie to stand" and the like are the truth's own words, or aliases of them.
        alias = {"climbing stairs": "walking upstairs", "descending stairs": "walking downstairs"}
        agree = sum(w["truth"] == alias.get(str(w["label"]), w["label"]) for w in windows)
        assert int(found) == agree
        right.append(agree)
    assert right[0] != right[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--device", "sim", "--smooth"], "--smooth goes with --replay"),
        ([*REPLAY, "--smooth", "--serve"], "it goes with neither --serve nor --mqtt"),
        ([*REPLAY, "--keep-raw", "60", "--no-log"], "does not go with --no-log"),
        ([*REPLAY, "--workers", "2"], "--workers goes with --out"),
        ([*REPLAY, "--out", "x"], "--out goes with --replay DIR"),
        (["--device", "sim", "--out", "x"], "--out goes with --replay DIR"),
        (["--replay", ".", "--out", "x", "--log", "y"], "--log: for one recording"),
        ([*REPLAY, "--serve", "here"], "is no [ADDRESS:]PORT"),
        ([*REPLAY, "--mqtt", "http://x"], "for example --mqtt mqtt://"),
    ],
)
def test_what_does_not_go_together(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out


def test_a_folder_is_labelled_into_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    shutil.copy(RECORDING, source)
    rows = "".join(f"{k / 50},0.1,0.1,0.1\n" for k in range(500))  # gravity was taken out
    (source / "bad.csv").write_text("time_s,ax_mps2,ay_mps2,az_mps2\n" + rows)
    options = ("--labels", LABELS, "--placement", "waist", "--workers", "1")
    assert main(["--replay", str(source), "--out", str(out), *options]) == 2  # for bad.csv
    assert "bad.csv" in capsys.readouterr().err
    table = pyarrow.parquet.read_table(out / "windows.parquet")
    assert table.column("label").to_pylist() == [w["label"] for w in said(capsys, "--no-log")]


def test_kept_raw_samples_give_the_same_labels_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, raw = tmp_path / "log.db", tmp_path / "raw.csv"
    first = said(capsys, "--log", str(log), "--keep-raw", "600", "--raw-windows")
    options = ["--log", str(log), "--out", str(raw)]
    assert edge.log.cli.main(["export", "raw", "1@100", *options]) == 0
    capsys.readouterr()
    again = ["--replay", str(raw), "--labels", LABELS, "--raw-windows", "--format", "jsonl"]
    assert main([*again, "--no-log", "--placement", "waist"]) == 0
    exported = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert 5 <= len(exported) < 30
    at = {w["start_s"]: w["label"] for w in first}
    assert [w["label"] for w in exported] == [at[w["start_s"]] for w in exported]


def test_what_was_enrolled_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty seconds of sitting, under a name that no bank knows."""
    name = "resting on my red chair"
    argv = [name, "--from", str(RECORDING), "--start", "24", "--end", "40", "--placement", "waist"]
    assert edge.personal.enroll.main(argv) == 0
    options = ["--labels", f"walking, lying, {name}", "--no-log", "--format", "jsonl"]
    capsys.readouterr()
    replay = [*REPLAY[:2], *REPLAY[4:], *options]
    assert main(replay) == 0
    windows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    there = [w["window_label"] for w in windows if 24 <= w["start_s"] <= 35]
    assert there.count(name) >= 0.8 * len(there)
    walked = [w["window_label"] for w in windows if 160 <= w["start_s"] <= 195]
    assert walked.count(name) <= 0.1 * len(walked)
    assert main([*REPLAY[:2], *REPLAY[4:], "--no-log", "--format", "jsonl"]) == 0
    defaults = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any(w["window_label"] == name for w in defaults)  # without --labels it takes part


def started(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge.cli", *argv],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_live_run_serves_its_page_until_it_is_interrupted(tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    with started("--device", "sim", "--serve", "127.0.0.1:0", "--log", str(log)) as process:
        assert process.stderr is not None and process.stdout is not None
        try:
            heard = ""
            while "http://" not in heard:
                line = process.stderr.readline()
                assert line, heard
                heard += line
            (url,) = re.findall(r"http://\S+", heard)
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert b"<html" in answer.read()
            assert process.stdout.readline()  # the first label
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in rest
    with LogReader(log) as reader:
        (session,) = reader.sessions()
        assert session.device == "sim" and session.windows >= 1
        assert len(reader.events(Where())) == 1


def test_labels_go_on_without_the_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*REPLAY, "--no-log", "--format", "jsonl", "--mqtt", "mqtt://127.0.0.1:9"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 236
    assert "127.0.0.1:9" in captured.err and "Traceback" not in captured.err


def test_from_a_run_to_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.db"
    assert main([*REPLAY, "--log", str(log), "--format", "jsonl"]) == 0
    capsys.readouterr()
    assert edge.log.cli.main(["query", "walking", "--top", "1", "--log", str(log)]) == 0
    said_of = capsys.readouterr().out
    assert "walking" in said_of
    with LogReader(log) as reader:
        (query,) = reader.queries()
        assert query.text == "walking"
