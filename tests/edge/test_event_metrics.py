"""The categories of Ward et al. 2011, on timelines small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge.event_metrics import Agreement, compare, runs


def of(truth: str, said: str) -> Agreement:
    """Compare two timelines, a character a frame; "." is no label."""
    rows = [np.array([".abc".index(c) - 1 for c in line], np.intp) for line in (truth, said)]
    return compare(*rows)


def test_runs() -> None:
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 4), (6, 7)]
    assert runs(np.zeros(3, bool)) == [] and runs(np.ones(2, bool)) == [(0, 2)]


@pytest.mark.parametrize(
    ("truth", "said", "events", "frames"),
    [
        # Only label a is ever said or true: each case shows one category.
        ("..aaaa..", "..aaaa..", {"correct": 1}, {}),
        ("..aaaa..", "........", {"deleted": 1}, {"deletion": 4}),
        ("........", "..aaaa..", {"inserted": 1}, {"insertion": 4}),
        ("..aaaa..", ".aaaaaa.", {"correct": 1}, {"overfill": 2}),
        ("..aaaa..", "....a...", {"correct": 1}, {"underfill": 3}),
        ("..aaaa..", "...aaaa.", {"correct": 1}, {"underfill": 1, "overfill": 1}),
        ("aaaaaaaa", "aa..a.aa", {"fragmented": 1}, {"fragmentation": 3}),
        ("aa.aa...", "aaaaa...", {"merged": 2}, {"merge": 1}),
        # The first true event is cut in two, the second part of which runs on into the next one.
        (
            "aaaa.aa.",
            "a.aaaaa.",
            {"fragmented and merged": 1, "merged": 1},
            {"fragmentation": 1, "merge": 1},
        ),
        # A fragment at an event's end is not what is between fragments.
        (
            "aaaaaa..",
            ".a.a....",
            {"fragmented": 1},
            {"fragmentation": 1, "underfill": 3},
        ),
    ],
)
def test_each_category(
    truth: str, said: str, events: dict[str, int], frames: dict[str, int]
) -> None:
    agreement = of(truth, said)
    assert dict(+agreement.events) == events
    assert dict(+agreement.frames) == frames


def test_a_substitution_counts_for_both_labels() -> None:
    """b is said amid a: for a a fragmentation of two frames, for b an insertion of two."""
    agreement = of("aaaaaa", "aabbaa")
    assert dict(+agreement.events) == {"fragmented": 1, "inserted": 1}
    assert dict(+agreement.frames) == {"fragmentation": 2, "insertion": 2}


def test_wrong_frames_add_up() -> None:
    """Each wrong frame with a true and a said label counts once for either."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        truth, said = (np.repeat(rng.integers(3, size=12), rng.integers(1, 5, 12)) for _ in "ab")
        n = min(len(truth), len(said))
        agreement = compare(truth[:n], said[:n])
        assert sum(agreement.frames.values()) == 2 * (truth[:n] != said[:n]).sum()
        n_true = sum(len(runs(truth[:n] == label)) for label in range(3))
        assert agreement.events.total() - agreement.events["inserted"] == n_true
