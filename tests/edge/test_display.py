"""What the user sees, rendered without a terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from edge.moment import Event, Moment
from edge.outputs.display import clock, make_display
from edge.outputs.livetable import render
from edge.pipeline import Prediction
from edge.zeroshot import Score


def prediction(start_s: float, label: str | None) -> Prediction:
    top = (Score(label, 0.31, 0.82), Score("other", 0.1, 0.18)) if label else ()
    tilt_deg, face_deg = (68.2461, 51.08) if label else (None, None)
    missing = 0.0 if label else 0.45
    return Prediction(
        start_s, start_s + 5, label is not None, top, missing, 52, 1, None, tilt_deg, face_deg
    )


def moment(start_s: float, label: str | None, said: str | None = None, *events: Event) -> Moment:
    """What is said of a window: its own label, or another one."""
    said = said or label
    return Moment(prediction(start_s, label), said, None if said is None else 0.7, events)


def unknown(start_s: float, label: str) -> Moment:
    window = replace(prediction(start_s, label), presence=0.12345, unknown=True)
    return Moment(window, "unknown", 0.9)


def shown(capsys: pytest.CaptureFixture[str], kind: str, *moments: Moment) -> list[str]:
    display = make_display(kind, "x", with_truth=False)
    for m in moments:
        display.show(m, None)
    display.finish((Event(9, 0, 1, "walking", 0.5, True),))
    display.close()
    return capsys.readouterr().out.splitlines()


def test_lines_come_when_what_is_said_changes(capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["walking", "walking", "sitting", None, None, "sitting"]
    lines = shown(capsys, "lines", *(moment(100 + k, label) for k, label in enumerate(labels)))
    said = [line.split() for line in lines]
    assert [row[:2] for row in said] == [
        ["0:05.0", "walking"],
        ["0:07.0", "sitting"],
        ["0:08.0", "(not"],
        ["0:10.0", "sitting"],
    ]
    assert said[0][2] == "0.70"  # the confidence, not the window's probability
    assert "45% of the window is missing" in lines[2]


def test_lines_say_what_the_diary_says(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(
        capsys,
        "lines",
        moment(0, "walking"),
        moment(1, "sitting", "walking"),  # a flicker
        moment(2, None, "walking"),  # a short gap
        moment(3, "lying", "not worn"),
    )
    assert [line.split()[1:] for line in lines] == [["walking", "0.70"], ["not", "worn", "0.70"]]


def test_lines_show_the_truth_beside(capsys: pytest.CaptureFixture[str]) -> None:
    lines = make_display("lines", "x", with_truth=True)
    lines.show(moment(0, "walking"), "walking")
    lines.show(moment(1, "walking"), None)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("truth: walking") and second.endswith("truth: -")


def records(capsys: pytest.CaptureFixture[str], *moments: Moment) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shown(capsys, "jsonl", *moments)]


def test_json_lines_hold_every_window(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = records(capsys, moment(0, "walking", "sitting"), moment(1, None))
    assert (good["start_s"], good["end_s"], good["valid"]) == (0, 5, True)
    assert (good["label"], good["window_label"]) == ("sitting", "walking")
    assert good["similarity"] == 0.31 and good["probability"] == 0.82 and good["confidence"] == 0.7
    assert [s["label"] for s in good["top"]] == ["walking", "other"]
    assert (good["tilt_deg"], good["face_deg"]) == (68.2, 51.1)
    assert bad["tilt_deg"] is None and bad["face_deg"] is None
    assert bad["valid"] is False and bad["top"] == []
    assert bad["label"] is bad["window_label"] is bad["confidence"] is None
    assert bad["missing"] == 0.45
    assert good["unknown"] is bad["unknown"] is False and good["presence"] is None
    assert "truth" not in good
    make_display("jsonl", "x", with_truth=True).show(moment(0, "walking"), "sitting")
    assert json.loads(capsys.readouterr().out)["truth"] == "sitting"


def test_json_lines_hold_events_that_begin_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    first = Event(1, 0.0, 5.0, "walking", 0.81239, False)
    ended = first._replace(end_s=6.12345, ended=True)
    second = Event(2, 6.12345, 8.0, "sitting", 0.5, False)
    held = records(
        capsys,
        moment(0, "walking", None, first),
        moment(1, "walking", None, first._replace(end_s=6.0)),
        moment(3, "sitting", None, ended, second),
        moment(4, "sitting", None, second._replace(end_s=9.0)),
    )
    began, grew, changed, grew_again = (record["events"] for record in held)
    assert grew == grew_again == []
    assert began == [
        {
            "number": 1,
            "start_s": 0.0,
            "end_s": 5.0,
            "label": "walking",
            "confidence": 0.8124,
            "ended": False,
        }
    ]
    assert [(e["number"], e["ended"], e["end_s"]) for e in changed] == [
        (1, True, 6.123),
        (2, False, 8.0),
    ]


def drawn(m: Moment, recent: list[str]) -> str:
    out = io.StringIO()
    Console(file=out, width=100, force_terminal=False).print(render("sim", m, 65.0, recent))
    return out.getvalue()


def test_unknown_is_said_with_the_best_label_in_brackets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second, third = shown(
        capsys,
        "lines",
        moment(0, "walking"),
        unknown(1, "walking"),
        unknown(2, "sitting"),  # as unknown as before: no line
        moment(3, "sitting"),
    )
    assert second.split()[1:] == ["unknown", "(walking)", "0.90", "presence", "0.12"]
    assert "unknown" not in first + third
    (record,) = records(capsys, unknown(0, "walking"))
    assert (record["label"], record["unknown"], record["presence"]) == ("unknown", True, 0.1235)
    assert [s["label"] for s in record["top"]] == ["walking", "other"]
    text = drawn(unknown(0, "walking"), [])
    assert "unknown (walking)" in text and "other" in text


def test_the_live_view_is_a_function_of_its_state() -> None:
    text = drawn(moment(100, "walking"), ["1:05.0  walking"])
    assert "unknown" not in text and "since" not in text
    assert "sim   1:05.0   52.0 Hz" in text and "0.31" in text and "0.82" in text
    assert text.index("walking") < text.index("other")


def test_the_live_view_tells_what_is_said_and_since_when() -> None:
    """The window ends at 1:05 of the stream and at 105 s of the clock: the event began at 0:50."""
    lasting = Event(2, 90.0, 105.0, "sitting", 0.7, False)
    lines = drawn(moment(100, "walking", "sitting", lasting), []).splitlines()
    assert lines[1].split() == ["sitting", "0.70", "since", "0:50.0"]
    assert lines[4].startswith("walking")
    assert "45% of the window is missing" in drawn(moment(0, None, "sitting"), [])


def test_the_live_table_draws_each_window(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "table", moment(0, "walking"), moment(1, "sitting"))
    assert any("sitting" in line for line in lines)


def test_clock() -> None:
    assert clock(5) == "0:05.0" and clock(754.25) == "12:34.2"
