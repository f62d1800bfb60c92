"""What the user sees, rendered without a terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from edge.display import clock, make_display
from edge.livetable import render
from edge.pipeline import Prediction
from edge.zeroshot import Score


def prediction(start_s: float, label: str | None) -> Prediction:
    top = (Score(label, 0.31, 0.82), Score("other", 0.1, 0.18)) if label else ()
    tilt_deg, face_deg = (68.2461, 51.08) if label else (None, None)
    missing = 0.0 if label else 0.45
    return Prediction(
        start_s, start_s + 5, label is not None, top, missing, 52, 1, None, tilt_deg, face_deg
    )


def unknown(start_s: float, label: str) -> Prediction:
    return replace(prediction(start_s, label), presence=0.12345, unknown=True)


def test_lines_come_when_the_label_changes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = make_display("lines", "x", with_truth=False)
    for k, label in enumerate(["walking", "walking", "sitting", None, None, "sitting"]):
        lines.show(prediction(100 + k, label), None)
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in said] == [
        ["0:05.0", "walking"],
        ["0:07.0", "sitting"],
        ["0:08.0", "(not"],
        ["0:10.0", "sitting"],
    ]
    assert "45% of the window is missing" in " ".join(said[2])


def test_lines_show_the_truth_beside(capsys: pytest.CaptureFixture[str]) -> None:
    lines = make_display("lines", "x", with_truth=True)
    lines.show(prediction(0, "walking"), "walking")
    lines.show(prediction(1, "walking"), None)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("truth: walking") and second.endswith("truth: -")


def test_json_lines_hold_every_window(capsys: pytest.CaptureFixture[str]) -> None:
    jsonl = make_display("jsonl", "x", with_truth=False)
    jsonl.show(prediction(0, "walking"), None)
    jsonl.show(prediction(1, None), None)
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert (good["start_s"], good["end_s"], good["label"], good["valid"]) == (0, 5, "walking", True)
    assert good["similarity"] == 0.31 and good["probability"] == 0.82
    assert [s["label"] for s in good["top"]] == ["walking", "other"]
    assert (good["tilt_deg"], good["face_deg"]) == (68.2, 51.1)
    assert bad["tilt_deg"] is None and bad["face_deg"] is None
    assert bad["valid"] is False and bad["label"] is None and bad["top"] == []
    assert bad["missing"] == 0.45
    assert good["unknown"] is bad["unknown"] is False and good["presence"] is None


def test_unknown_is_said_with_the_best_label_in_brackets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = make_display("lines", "x", with_truth=False)
    lines.show(prediction(0, "walking"), None)
    lines.show(unknown(1, "walking"), None)
    lines.show(unknown(2, "sitting"), None)  # as unknown as before: no line
    lines.show(prediction(3, "sitting"), None)
    first, second, third = capsys.readouterr().out.splitlines()
    assert second.split()[1:] == ["unknown", "(walking)", "presence", "0.12"]
    assert "unknown" not in first + third
    make_display("jsonl", "x", with_truth=False).show(unknown(0, "walking"), None)
    record = json.loads(capsys.readouterr().out)
    assert (record["label"], record["unknown"], record["presence"]) == ("unknown", True, 0.1235)
    assert [s["label"] for s in record["top"]] == ["walking", "other"]
    console = Console(file=(out := io.StringIO()), width=100, force_terminal=False)
    console.print(render("sim", unknown(0, "walking"), 65.0, []))
    assert "unknown (walking)" in out.getvalue() and "other" in out.getvalue()


def test_the_live_view_is_a_function_of_its_state() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=False)
    console.print(render("sim", prediction(0, "walking"), 65.0, ["1:05.0  walking"]))
    text = out.getvalue()
    assert "unknown" not in text
    assert "sim   1:05.0   52.0 Hz" in text and "0.31" in text and "0.82" in text
    assert text.index("walking") < text.index("other")


def test_clock() -> None:
    assert clock(5) == "0:05.0" and clock(754.25) == "12:34.2"
