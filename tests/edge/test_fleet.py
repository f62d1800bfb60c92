"""The same on a Dask cluster: two worker processes on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.bundle import DEFAULT_BUNDLE, Bundle
from edge.labels import resolve_labels
from edge.many.fleet import main
from edge.many.label import Job
from edge.many.label import run as run_here
from tests.conftest import RECORDING

pytest.importorskip("pyarrow")
distributed = pytest.importorskip("distributed")

LABELS = "walking, climbing stairs, sitting, standing, lying"
FILES = ("windows.parquet", "events.parquet", "recordings.parquet")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a cluster of two worker processes."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five recordings, one of them bad."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    header, *rows = RECORDING.read_text().splitlines()
    for k in range(4):
        (folder / f"{k}.csv").write_text("\n".join([header, *rows[k * 2000 : k * 3000 + 2000]]))
    (folder / "bad.csv").write_text("\n".join([header, *rows[:900], *rows[:900]]))
    return folder


def read(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in FILES]


def test_a_cluster_gives_the_rows_of_one_machine(
    scheduler: str,
    folder: Path,
    tmp_path: Path,
    bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = [str(folder), "--scheduler", scheduler, "--labels", LABELS, "--placement", "waist"]
    assert main([*argv, "--out", str(tmp_path / "fleet")]) == 2
    said = capsys.readouterr().err
    assert "2 workers" in said and "labelled 4 recordings" in said
    assert "failed: bad.csv: time goes back" in said
    labels = resolve_labels(LABELS.split(", "), bundle)
    job = Job(bundle.id, labels, placement="waist")
    run_here(folder, tmp_path / "here", job, 2, print)
    assert read(tmp_path / "fleet") == read(tmp_path / "here")
    capsys.readouterr()
    assert main([*argv, "--out", str(tmp_path / "here")]) == 2  # goes on with what one machine did
    assert "5 recordings, 4 of them labelled before" in capsys.readouterr().err


def test_the_workers_take_the_bundle_that_was_asked_for(
    scheduler: str, plain_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a relative path too: it is this process that stands there, not they."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(RECORDING, folder)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(plain_folder, "bundle")
    assert main(["in", "--out", "plain", "--scheduler", scheduler, "--bundle", "bundle"]) == 0
    assert main(["in", "--out", "shipped", "--scheduler", scheduler]) == 0
    assert read(Path("plain"))[0] != read(Path("shipped"))[0]
    again = ["in", "--out", "plain", "--scheduler", scheduler, "--bundle", str(DEFAULT_BUNDLE)]
    assert main(again) == 2  # another job


class _Bomb:
    """Ends the worker that takes it."""

    def __call__(self, *_: object) -> None:
        os._exit(9)


def test_a_recording_that_takes_workers_down_costs_itself_alone(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import dask

    monkeypatch.setattr("edge.many.label.label_or_say_why", _Bomb())
    for path in folder.iterdir():
        if path.name != "0.csv":
            path.unlink()
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        assert main([str(folder), "--out", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert "failed: 0.csv: KilledWorker" in capsys.readouterr().err
    assert (tmp_path / "out" / "recordings.parquet").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{}", "127.0.0.1:{}"])
def test_no_scheduler_answers(
    folder: Path,
    tmp_path: Path,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("edge.many.fleet._CONNECT_S", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        argv = [str(folder), "--out", str(tmp_path / "out"), "--scheduler", address.format(port)]
        assert main(argv) == 1
    assert "no Dask scheduler answers at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--scheduler", "carrier pigeon"], "is no address"),
        (["--labels", ","], "names no label"),
        (["--hop", "0"], "hop of 0 s"),
        (["--workers", "0"], "at least one worker"),
    ],
)
def test_bad_input(
    folder: Path,
    tmp_path: Path,
    argv: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(folder), "--out", str(tmp_path / "out"), *argv]) == 2
    assert message in capsys.readouterr().err


def test_without_dask(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "aura-edge[eval,fleet]" in capsys.readouterr().err
