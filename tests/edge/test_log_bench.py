"""The log's benchmark: a small one runs to its end, and a window stays below 200 bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.log.bench import main


def test_a_small_log_is_measured_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--windows", "40000", "--path", str(tmp_path), "--queries", "2"]) == 0
    table = {
        cells[0].strip(): cells[1].strip()
        for line in capsys.readouterr().out.splitlines()
        if len(cells := line.strip("│").split("│")) == 2
    }
    assert table["windows"] == "40,000"
    assert 130 < float(table["bytes a window"]) < 200
    assert "(40,000 windows)" in table["erasing the first day"]
    assert "(0 windows)" in table["erasing all that is left"]
    assert float(table["similarities of stored embeddings change by"].split()[0]) < 0.002
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--path", str(tmp_path / "nowhere")]) == 2
    assert "error: " in capsys.readouterr().err
