"""Times as people write them, in a zone whose clocks change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest

from edge.log.when import day_of, day_span, duration_text, local_text, moment_of
from firmware_bridge.errors import InputError


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not hasattr(time, "tzset"):
        pytest.skip("the zone of a process cannot be set on this system")
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type,misc]


NOW = utc(2026, 11, 21, 14, 30, 5)
"""15:30:05 in Berlin."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - 7200),
        ("90 min ago", NOW - 5400),
        ("1.5 h", NOW - 5400),
        ("1w", NOW - 7 * 86_400),
        ("today", utc(2026, 11, 20, 23)),
        (" Yesterday", utc(2026, 11, 19, 23)),
        ("8:05", utc(2026, 11, 21, 7, 5)),
        ("14:30:10", utc(2026, 11, 21, 13, 30, 10)),
        ("2026-07-01", utc(2026, 6, 30, 22)),
        ("2026-07-01 08:00", utc(2026, 7, 1, 6)),
        ("2026-07-01T08:00:01", utc(2026, 7, 1, 6, 0, 1)),
        ("2026-07-01T08:00:00+05:30", utc(2026, 7, 1, 2, 30)),
        ("2026-07-01T08:00:00Z", utc(2026, 7, 1, 8)),
    ],
)
def test_what_a_text_means(text: str, expected: float) -> None:
    assert moment_of(text, NOW) == expected


def test_a_day_ends_where_the_next_begins() -> None:
    assert moment_of("yesterday", NOW, at_end=True) == moment_of("today", NOW)
    assert moment_of("2026-07-01", NOW, at_end=True) == utc(2026, 7, 1, 22)
    assert moment_of("14:30", NOW, at_end=True) == moment_of("14:30", NOW), "no day: an instant"


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "2026-02-30", "2026-13-01 10:00", "3 apples"]
)
def test_what_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no time; write"):
        moment_of(text, NOW)


def test_days() -> None:
    assert day_of("today", NOW) == date(2026, 11, 21)
    assert day_of("Yesterday", NOW) == date(2026, 11, 20)
    assert day_of("2026-10-25", NOW) == date(2026, 10, 25)
    for bad in ("14:30", "2026-02-30", "2h"):
        with pytest.raises(InputError, match="is no day"):
            day_of(bad, NOW)


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2026, 10, 25), 25), (date(2026, 3, 29), 23), (date(2026, 11, 21), 24)],
)
def test_a_day_is_as_long_as_its_clock_makes_it(day: date, hours: int) -> None:
    first, after = day_span(day)
    assert after - first == hours * 3600
    assert local_text(first).startswith(f"{day} 00:00:00 ")


def test_local_time_says_its_offset() -> None:
    assert local_text(utc(2026, 7, 1, 6) + 0.9) == "2026-07-01 08:00:00 +02:00"
    assert local_text(utc(2026, 12, 1, 6)) == "2026-12-01 07:00:00 +01:00"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.7, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (27_000, "7 h 30 min"),
        (266_400, "3 d 02 h"),
    ],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
