"""`edge-log`, command by command, on logs as `edge-run` writes them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.bundle import Bundle
from edge.log import cli as log_cli
from edge.log.read import LogReader
from edge.log.store import Where
from edge.recording import UnitOptions, open_recording
from tests.edge.made_log import Act, in_zone, utc, write_session

START = utc(2026, 7, 1, 6)
"""8:00 in the tests' zone."""

NOW = utc(2026, 7, 3, 10)
"""Two days later."""

MORNING = [
    Act("walking", 120),
    Act("sitting", 300, 0.6),
    Act("unknown", 30, 0.3, alike="lying"),
    Act("climbing stairs", 60, 0.9),
    Act(None, 20),
    Act("not worn", 90, 0.9),
]
"""One session; the other is a day later, `write_session`'s 40 s of lying."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edge.bundle import DEFAULT_BUNDLE, load_bundle

    bundle = load_bundle(DEFAULT_BUNDLE)
    path = tmp_path_factory.mktemp("logged") / "log.db"
    write_session(path, bundle, MORNING, START, device="Polar Sense [A1]", raw=True)
    write_session(path, bundle, [Act("lying", 40)], START + 86_400, device="Bangle.js")
    return path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    written: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Run]:
    """Run a command on a copy of the log: exit code, stdout, stderr."""
    path = tmp_path / "log.db"
    for file in written.parent.glob(f"{written.name}*"):
        shutil.copy(file, tmp_path / file.name)
    clock = SimpleNamespace(time=lambda: NOW, perf_counter=time.perf_counter)
    monkeypatch.setattr("edge.log.cli.time", clock)
    monkeypatch.setattr("edge.personal.store.personal_folder", lambda: tmp_path / "personal")

    def command(*args: str) -> tuple[int, str, str]:
        code = log_cli.main([args[0], "--log", str(path), *args[1:]])
        out = capsys.readouterr()
        return code, out.out, out.err

    with in_zone(monkeypatch, "CET-1CEST,M3.5.0,M10.5.0/3"):
        yield command


def rows(out: str) -> list[str]:
    """The lines of a table, single spaces, without its head."""
    return [" ".join(line.split()) for line in out.splitlines()[1:]]


def test_sessions_are_listed_with_their_local_time(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    labels = "4: walking, sitting, climbing stairs, ..."
    assert rows(out) == [
        f"1 2026-07-01 08:00:00 +02:00 10 min 24 s 620 Polar Sense [A1] left wrist {labels}",
        f"2 2026-07-02 08:00:00 +02:00 44 s 40 Bangle.js left wrist {labels}",
    ]
    assert [line[0] for line in rows(run("list", "--device", "bangle")[1])] == ["2"]
    assert [line[0] for line in rows(run("list", "--since", "2026-07-02")[1])] == ["2"]
    assert [line[0] for line in rows(run("list", "--until", "2026-07-01")[1])] == ["1"]
    assert [line[0] for line in rows(run("list", "--session", "1")[1])] == ["1"]


def test_events_are_listed_as_the_filters_say(run: Run) -> None:
    _, out, _ = run("list", "events")
    assert rows(out)[:2] == [
        "1.1 2026-07-01 08:00:00 +02:00 2 min 00 s walking 0.80",
        "1.2 2026-07-01 08:02:00 +02:00 5 min 00 s sitting 0.60",
    ]
    assert len(rows(out)) == 6
    _, out, _ = run("list", "events", "--label", "SITTING")
    assert len(rows(out)) == 1
    times = ("--since", "2026-07-01 08:07:10", "--until", "2026-07-01T06:07:20Z")
    assert [line.split(" s ")[1] for line in rows(run("list", "events", *times)[1])] == [
        "unknown 0.30"
    ]
    _, out, _ = run("list", "events", "--since", "51.5h ago")
    assert [line.split(" s ")[1] for line in rows(out)] == ["lying 0.80"], "8:30 of the first day"


def test_a_query_finds_bouts_and_is_logged(run: Run) -> None:
    code, out, err = run("query", "walking upstairs", "--top", "3")
    assert code == 0
    table = rows(out)
    assert table[0].startswith("1 2026-07-01 08:07:30 +02:00 1 min 04 s 0.9")
    assert table[0].endswith("climbing stairs 1")
    assert len(table) == 4
    assert "'climbing stairs' was said in 1 event, 1 min 00 s together" in table[3]
    assert "searched in" in err
    _, out, _ = run("list", "queries")
    (line,) = rows(out)
    assert line.startswith("1 ") and "walking upstairs 3 2026-07-01 08:07:30 +02:00 0.9" in line
    assert line.endswith(" ms")
    _, out, _ = run("show", "hit:1")
    assert out.startswith("hit 1 of 'walking upstairs', similarity 0.9")


def test_a_query_looks_only_where_it_is_told(run: Run) -> None:
    _, out, _ = run("query", "walking", "--since", "2026-07-02")
    assert [line.split()[-1] for line in rows(out)] == ["2"]
    _, out, _ = run("query", "lying", "--device", "polar")
    assert {line.split()[-1] for line in rows(out)} == {"1"}
    code, out, err = run("query", "walking", "--since", "2026-07-03")
    assert (code, out) == (0, "")
    assert "nothing found" in err


def test_windows_of_another_bundle_are_told(run: Run, tmp_path: Path, bundle: Bundle) -> None:
    write_session(
        tmp_path / "log.db", bundle, [Act("walking", 30)], START + 9000, bundle_id="older-1"
    )
    _, out, err = run("query", "walking")
    assert "note: 30 windows were embedded by other bundles (older-1)" in err
    assert "3" not in {line.split()[-1] for line in rows(out)}


def test_a_window_is_shown_with_its_neighbours(run: Run) -> None:
    _, out, _ = run("show", f"1@{START + 120:.0f}")
    head, _, *lines = out.splitlines()
    assert head.endswith(": 2026-07-01 08:02:00 +02:00, 5 s, session 1") or "08:01:5" in head
    marked = [line for line in lines if line.startswith(">")]
    assert len(marked) == 1
    assert any("walking 0.80" in " ".join(line.split()) for line in lines)
    assert any("sitting 0.60" in " ".join(line.split()) for line in lines)
    assert any(" ".join(line.split()).startswith("1.2 2026-07-01 08:02:00") for line in lines)


@pytest.mark.parametrize("reference", ["event:1.3", "2026-07-01 08:07:15", "2026-07-01T06:07:15Z"])
def test_things_are_named_in_many_ways(run: Run, reference: str) -> None:
    code, out, _ = run("show", reference)
    assert code == 0
    assert "unknown" in next(line for line in out.splitlines() if line.startswith(">"))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hit:1", "no such query; edge-log list queries"),
        ("event:1.99", "no event 1.99; edge-log list events"),
        ("9@5", "no session 9"),
        ("2026-06-01 12:00", "no window was logged at that time"),
        ("the second one", "'the second one': expected hit:2"),
    ],
)
def test_what_is_not_there_is_said(run: Run, reference: str, message: str) -> None:
    code, _, err = run("show", reference)
    assert code == 2
    assert message in err and err.startswith("error: ")


def test_the_timeline_is_a_day_of_bars(run: Run) -> None:
    code, out, _ = run("timeline", "--day", "2026-07-01")
    assert code == 0
    title, axis, *bars = out.splitlines()
    assert title == "Wednesday 1 July 2026"
    assert axis.split()[:2] == ["08:00", "08:05"]
    by_label = {bar[: bar.index("  ")]: bar for bar in bars}
    assert list(by_label) == ["sitting", "walking", "not worn", "climbing stairs", "unknown"]
    full = "\N{FULL BLOCK}"
    first = axis.index("08:00")
    width = (axis.index("08:05") - first) * 2 / 5  # of the walk's two minutes
    assert abs(by_label["walking"].count(full) - width) <= 1
    assert (
        by_label["walking"][first] == full and full not in by_label["sitting"][: first + int(width)]
    )
    assert by_label["sitting"].split()[-4:] == ["5", "min", "00", "s"]
    _, out, _ = run("timeline")
    assert out.startswith("Thursday 2 July 2026"), "the last day that there is"


def test_stats_say_time_per_label_day_and_device(run: Run) -> None:
    code, out, _ = run("stats")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[1] == "sitting 5 min 00 s 47% 1 0.60"
    assert "2026-07-01 Wed 5 min 00 s 2 min 00 s 1 min 30 s 1 min 00 s 30 s 10 min 00 s" in lines
    assert "2026-07-02 Thu 40 s 40 s" in lines
    health = lines[-2:]
    assert health[0].startswith("1 620 96.8% ")
    assert health[0].endswith("50.0 Hz 50.0 Hz 1 (16 s) Polar Sense [A1]")
    assert health[1].endswith("none Bangle.js")
    _, out, _ = run("stats", "--day", "2026-07-02")
    assert rows(out)[0].startswith("lying 40 s 100%")


def test_windows_are_exported_alike_in_three_forms(run: Run, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        code, _, err = run("export", "windows", "--out", str(tmp_path / f"w.{suffix}"))
        assert (code, err) == (0, f"wrote 660 windows to {tmp_path / f'w.{suffix}'}\n")
        mode = stat.S_IMODE((tmp_path / f"w.{suffix}").stat().st_mode)
        assert mode == 0o600, "it says what someone did all day"
    of_parquet = parquet.read_table(tmp_path / "w.parquet").to_pylist()
    of_json = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert of_parquet == of_json
    of_csv = list(csv.DictReader(io.StringIO((tmp_path / "w.csv").read_text())))
    assert [row["label"] for row in of_csv] == [row["label"] or "" for row in of_json]
    assert list(of_csv[0]) == list(of_json[0])
    first = of_json[0]
    assert first["utc"] == "2026-07-01T06:00:00.000+00:00"
    assert (first["session"], first["start_s"], first["end_s"]) == (1, START, START + 5)
    assert (first["label"], first["valid"], first["rate_hz"]) == ("walking", True, 50)
    unknown = next(row for row in of_json if row["label"] == "unknown")
    assert unknown["best_label"] == "lying"
    gap = next(row for row in of_json if not row["valid"])
    assert gap["label"] is None and gap["similarity"] is None
    assert not list(tmp_path.glob("*.part"))


def test_events_are_exported(run: Run, tmp_path: Path) -> None:
    run("export", "events", "--session", "1", "--out", str(tmp_path / "e.csv"))
    found = list(csv.DictReader(io.StringIO((tmp_path / "e.csv").read_text())))
    assert [row["label"] for row in found] == [act.label for act in MORNING if act.label]
    assert float(found[1]["start_s"]) == START + 120
    assert float(found[1]["end_s"]) == START + 420
    run("export", "events", "--label", "nothing", "--out", str(tmp_path / "none.csv"))
    assert (tmp_path / "none.csv").read_text().startswith("session,number,utc,")


def test_raw_samples_of_a_hit_can_be_replayed(run: Run, tmp_path: Path) -> None:
    run("query", "climbing stairs", "--top", "1")
    out = tmp_path / "hit.csv"
    code, _, err = run("export", "raw", "hit:1", "--out", str(out))
    assert code == 0, err
    recording = open_recording(out, UnitOptions(None, None, None))
    times = [t for chunk in recording.chunks for t in chunk.t_s]
    # The hit, 64 s from 8:07:30, and 5 s on either side.
    assert times[0] == pytest.approx(START + 445, abs=0.03)
    assert times[-1] == pytest.approx(START + 519, abs=0.03)
    assert len(times) == pytest.approx(74 * 50, abs=2)
    code, _, err = run(
        "export", "raw", "--since", "2026-07-02", "--until", "today", "--out", str(out)
    )
    assert code == 2 and "no raw samples of that time are kept" in err
    code, _, err = run("export", "raw", "--out", str(out))
    assert code == 2 and "--since and --until" in err


def test_a_file_that_cannot_be_written_is_an_error(run: Run, tmp_path: Path) -> None:
    code, _, err = run("export", "windows", "--out", str(tmp_path / "no" / "w.csv"))
    assert code == 1 and "cannot be written (No such file or directory)" in err
    code, _, err = run("export", "windows", "--out", str(tmp_path / "w.xlsx"))
    assert code == 2 and "has to end in .csv, .jsonl, .parquet" in err
    code, _, err = run("report", "--out", str(tmp_path / "r.pdf"))
    assert code == 2 and "has to end in .html, .png" in err


def test_purging_asks_and_erases_what_the_filters_say(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"

    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, _, err = run("purge")
    assert code == 2 and "nobody can be asked here; --yes" in err
    monkeypatch.setattr("sys.stdin", Person("\n"))
    code, _, err = run("purge", "--session", "2")
    assert code == 1 and "erase what the filters say" in err and "(40 windows" in err
    assert "nothing was erased" in err
    monkeypatch.setattr("sys.stdin", Person("yes\n"))
    code, _, err = run("purge", "--session", "2")
    assert code == 0 and "erased 40 windows, 1 event, 0 queries\n" in err
    with LogReader(path) as log:
        assert [s.id for s in log.sessions() if s.windows] == [1]

    code, _, err = run("purge", "--yes")
    # The ring keeps 10 min, and of the oldest piece all.
    assert code == 0 and re.search(
        r"erased 620 windows, 5 events, 0 queries, 10 min \d\d s of raw", err
    )
    with LogReader(path) as log:
        assert sum(len(block) for block in log.windows(Where())) == 0
    assert b"climbing stairs" not in b"".join(f.read_bytes() for f in tmp_path.glob("log.db*"))


def test_the_path_is_said(run: Run, tmp_path: Path) -> None:
    assert run("path")[1] == f"{tmp_path / 'log.db'}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("list", "--since", "soon"), "'soon' is no time; write"),
        (("list", "--since", "today", "--until", "yesterday"), "is not before"),
        (("timeline", "--day", "today", "--since", "2h"), "two ways to say it"),
        (("timeline", "--day", "2026-06-01"), "nothing was logged there"),
        (("stats", "--label", "juggling"), "nothing was logged there"),
        (("query", "walking", "--bundle", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_told_without_a_traceback(
    run: Run, args: tuple[str, ...], message: str
) -> None:
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert message in err and "Traceback" not in err


def test_a_log_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (("absent.db", None), ("text.db", b"not a database at all")):
        if content:
            (tmp_path / name).write_bytes(content)
        assert log_cli.main(["list", "--log", str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err
    assert not (tmp_path / "absent.db").exists(), "looking makes no log"
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    assert log_cli.main(["purge", "--yes", "--log", str(tmp_path / "other.db")]) == 2


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nimport edge.log.cli\n"
        "try: edge.log.cli.main(['query', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'rich', 'onnxruntime', 'sqlite3', 'pyarrow'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("heavy: []\n")
    assert "TEXT" in done.stdout


def test_a_session_that_ends_at_midnight_is_of_the_day_before(
    tmp_path: Path,
    bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last window ends 4 s into the next day, of which nothing is said."""
    path = tmp_path / "log.db"
    write_session(path, bundle, [Act("walking", 60)], utc(2026, 7, 1, 21, 59))
    with in_zone(monkeypatch, "CET-1CEST,M3.5.0,M10.5.0/3"):
        assert log_cli.main(["timeline", "--log", str(path)]) == 0
    assert capsys.readouterr().out.startswith("Wednesday 1 July 2026")
