"""Free text over a log: what is found are bouts, and only what compares is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.log import query as logquery
from edge.log.read import Hit, LoggedEvent, LogReader
from edge.log.store import Where
from firmware_bridge.errors import InputError
from tests.edge.made_log import Act, utc, write_session

START = utc(2026, 7, 1, 8)


def hit(start_s: float, similarity: float) -> Hit:
    return Hit(1, start_s, start_s + 5, 1e9 + start_s, similarity, "walking", 0.5, "walking", 0.5)


def test_an_extent_ends_at_a_pause_on_either_side() -> None:
    spans = [(0, 5), (36, 41), (60, 65), (61, 66), (95, 100), (130.1, 135.1), (140, 145)]
    alike = np.array(spans, float)
    assert logquery._extent(hit(61, 0.9), alike) == (36, 100), "pauses of 31 s and 30.1 s end it"
    assert logquery._extent(hit(0, 0.9), alike) == (0, 5)
    assert logquery._extent(hit(140, 0.9), alike) == (130.1, 145)
    assert logquery._extent(hit(300, 0.9), np.empty((0, 2))) == (300, 305)


@pytest.fixture
def log(tmp_path: Path, bundle: Bundle) -> LogReader:
    path = tmp_path / "log.db"
    night = Act("lying", 2400)
    acts = [night, Act("walking", 60), Act("sitting", 60), Act("walking", 30), Act("sitting", 60)]
    write_session(path, bundle, [*acts, Act("climbing stairs", 20), Act("sitting", 60)], START)
    write_session(path, bundle, [Act("walking", 40)], START + 9000, bundle_id="another")
    return LogReader(path)


def test_a_text_finds_its_bouts_nearest_first(log: LogReader, bundle: Bundle) -> None:
    vector = logquery.vector_of("Climbing Stairs", bundle)
    with log:
        found = logquery.search(log, vector, Where(), 3, bundle.id)
        assert len(found) == 3
        best = found[0]
        assert (best.start_s, best.end_s, best.label) == (
            START + 2610,
            START + 2634,
            "climbing stairs",
        )
        assert best.similarity > 0.9 > found[1].similarity
        assert [h.similarity for h in found] == sorted((h.similarity for h in found), reverse=True)


def test_a_bout_is_what_is_about_as_near(log: LogReader, bundle: Bundle) -> None:
    """The two walks are 60 s apart; sitting between them is less than `ALIKE` as near."""
    vector = logquery.vector_of("walking", bundle)
    with log:
        first, second = logquery.search(log, vector, Where(), 2, bundle.id)
        spans = sorted((h.start_s - START, h.end_s - START) for h in (first, second))
        assert spans == [(2400, 2464), (2520, 2554)]
        assert first.utc_s == first.start_s, "the source's clock is that of the day"
        until = Where(until_utc_s=START + 2430)
        (part, *_) = logquery.search(log, vector, until, 1, bundle.id)
        assert (part.start_s - START, part.end_s - START) == (2400, 2434)


def test_bouts_enough_are_found_behind_a_long_one(log: LogReader, bundle: Bundle) -> None:
    """2400 windows of one night are nearer than all others: more are asked for."""
    vector = logquery.vector_of("lying", bundle)
    with log:
        found = logquery.search(log, vector, Where(), 2, bundle.id)
        assert len(found) == 2, "though the first 1000 windows are all of the night"
        assert (found[0].start_s, found[0].end_s) == (START, START + 2404)


def test_windows_of_another_bundle_do_not_compare(log: LogReader, bundle: Bundle) -> None:
    vector = logquery.vector_of("walking", bundle)
    with log:
        found = logquery.search(log, vector, Where(), 50, bundle.id)
        assert {h.session for h in found} == {1}
        other = logquery.search(log, vector, Where(), 50, "another")
        assert [(h.session, h.end_s - h.start_s) for h in other] == [(2, 44)]


def test_what_lies_beside_is_left_out(log: LogReader, bundle: Bundle) -> None:
    vector = logquery.vector_of("climbing stairs", bundle)
    with log:
        (own,) = logquery.search(log, vector, Where(), 1, bundle.id)
        others = logquery.search(log, vector, Where(), 5, bundle.id, beside=own)
        assert others
        for one in others:
            assert one.end_s + 30 <= own.start_s or own.end_s + 30 <= one.start_s


def test_a_text_that_nothing_knows_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise InputError("no text encoder is installed")

    monkeypatch.setattr("edge.labels.load_compact_text_encoder", absent)
    np.testing.assert_array_equal(
        logquery.vector_of("walking", bundle), bundle.prototypes[bundle.bank["walking"]]
    )
    with pytest.raises(InputError, match=r"wlaking.*closest in the bank: walking"):
        logquery.vector_of("wlaking", bundle)


def test_events_called_the_same_in_other_words(bundle: Bundle) -> None:
    labels = ("climbing stairs", "walking upstairs", "walking", "my own walk")
    events = [LoggedEvent(1, i, 0, 5, 1e9, label, 0.5, True) for i, label in enumerate(labels)]
    assert bundle.bank["climbing stairs"] == bundle.bank["walking upstairs"]
    assert [e.number for e in logquery.called("Walking_Upstairs", events, bundle)] == [0, 1]
    assert [e.number for e in logquery.called("My own walk", events, bundle)] == [3]
    assert logquery.called("swimming", events, bundle) == []
