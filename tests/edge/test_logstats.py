"""Sums over a log: bouts, days, gaps and device health."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from edge.bundle import Bundle
from edge.log.read import LogReader
from edge.log.stats import Bout, bouts, by_day, health, totals
from edge.log.store import Where
from tests.edge.made_log import Act, in_zone, utc, write_session

START = utc(2026, 7, 1, 21, 59)
"""One minute to midnight in the tests' zone."""


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with in_zone(monkeypatch, "CET-1CEST,M3.5.0,M10.5.0/3"):
        yield


def said(found: list[Bout]) -> list[tuple[str, float, float]]:
    """Label, start since `START` and length."""
    return [(s.label, s.start_utc_s - START, s.duration_s) for s in found]


ACTS = [Act("walking", 40), Act("sitting", 50, 0.6), Act("unknown", 10, 0.3), Act("walking", 20)]


@pytest.mark.parametrize("diary", [True, False])
def test_bouts_are_the_same_of_events_and_of_windows(
    tmp_path: Path, bundle: Bundle, diary: bool
) -> None:
    path = tmp_path / "log.db"
    write_session(path, bundle, ACTS, START, diary=diary)
    with LogReader(path) as log:
        found = bouts(log, Where())
        assert said(found) == [
            ("walking", 0, 40),
            ("sitting", 40, 50),
            ("unknown", 90, 10),
            ("walking", 100, 20),
        ]
        assert [s.confidence for s in found] == pytest.approx([0.8, 0.6, 0.3, 0.8], abs=0.01)
        part = Where(since_utc_s=START + 30, until_utc_s=START + 60)
        assert said(bouts(log, part)) == [("walking", 30, 10), ("sitting", 40, 20)]
        assert said(bouts(log, Where(label="Sitting"))) == [("sitting", 40, 50)]
        assert bouts(log, Where(label="lying")) == []


def test_a_label_that_a_diary_never_says_is_not_taken_from_its_windows(
    tmp_path: Path, bundle: Bundle
) -> None:
    path = tmp_path / "log.db"
    write_session(path, bundle, [Act("walking", 20)], START)
    write_session(path, bundle, [Act("sitting", 20)], START + 100, diary=False)
    with LogReader(path) as log:
        assert said(bouts(log, Where(label="sitting"))) == [("sitting", 100, 20)]
        assert len(bouts(log, Where())) == 2


def test_totals_weigh_confidence_by_time(tmp_path: Path, bundle: Bundle) -> None:
    found = [
        Bout(1, 0, 30, "walking", 0.9),
        Bout(1, 30, 40, "walking", 0.5),
        Bout(1, 40, 140, "sitting", 0.7),
    ]
    first, second = totals(found)
    assert (first.label, first.seconds, first.bouts) == ("sitting", 100, 1)
    assert second.confidence == pytest.approx((30 * 0.9 + 10 * 0.5) / 40)
    assert second.bouts == 2


def test_days_are_local_and_cut_at_midnight() -> None:
    found = [Bout(1, START, START + 2 * 86_400, "sitting", 0.7)]
    days = by_day(found)
    assert list(days) == [date(2026, 7, 1), date(2026, 7, 2), date(2026, 7, 3)]
    assert [s.duration_s for of_day in days.values() for s in of_day] == [60, 86_400, 86_340]
    assert by_day([Bout(1, START, START + 60, "sitting", 1)]).keys() == {date(2026, 7, 1)}


def test_health_finds_what_no_classified_window_covers(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "log.db"
    write_session(path, bundle, [Act("walking", 700)], START)
    broken = [Act(None, 10), Act("walking", 600), Act(None, 30), Act("walking", 10), Act(None, 3)]
    write_session(path, bundle, broken, START + 5000, device="Sense")
    with LogReader(path) as log:
        whole, holed = health(log, Where())
        assert (whole.windows, whole.classified, whole.gaps) == (700, 700, ())
        assert whole.missing == pytest.approx(0.02, abs=0.01)
        assert whole.rate_hz == pytest.approx(50, abs=0.2)
        assert whole.end_utc_s - whole.start_utc_s == pytest.approx(704)
        assert (holed.windows, holed.classified) == (653, 610)
        assert holed.missing == pytest.approx((43 * 0.9 + 610 * 0.02) / 653, abs=0.01)
        zero = START + 5000
        # Nothing at first; then 30 windows of which the last before covers 4 s more; and the end.
        gaps = [(start - zero, end - zero) for start, end in holed.gaps]
        assert gaps == [(0, 10), (614, 640), (654, 657)]
        assert holed.gap_s == 39
        assert [h.windows for h in health(log, Where(since_utc_s=START + 4000))] == [653]


def test_health_of_a_session_without_a_classified_window(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "log.db"
    write_session(path, bundle, [Act(None, 10)], START)
    with LogReader(path) as log:
        (only,) = health(log, Where())
    assert only.classified == 0
    assert only.gaps == ((START, START + 14),)
