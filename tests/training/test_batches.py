"""What is drawn, how often, and that it is the same wherever the windows lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from firmware_bridge.errors import InputError
from training.batches import DeviceWindows, HostWindows, Sampler, Targets, TrainingData, windows_on
from training.captions import activity_of, sentence
from training.data import LABEL, WindowSet
from training.hardware import Hardware

CPU = torch.device("cpu")


def window_set(corpus: str, labels: str, placement: str = "waist") -> WindowSet:
    """A window of each one-letter label; its number is in all of its samples."""
    names = tuple(sorted(set(labels)))
    imu = np.ones((len(labels), 6, 1000), np.float16)
    imu *= np.arange(len(labels), dtype=np.float16)[:, None, None]
    imu[:, 3:] = np.nan
    return WindowSet(
        corpus,
        imu,
        label=np.array([names.index(c) for c in labels], np.int32),
        labels=names,
        kinds=(LABEL,) * len(names),
        subject=np.full(len(labels), "s0"),
        placement=np.full(len(labels), placement),
        recording=np.zeros(len(labels), np.int32),
    )


def mask(text: str) -> NDArray[np.bool_]:
    return np.array([c == "x" for c in text])


DATA = TrainingData(
    (window_set("one", "aabc"), window_set("two", "bbbbcd", "left wrist")),
    (mask("xx.x"), mask("xxxx.x")),
)
"""Kept: a a c of the first corpus, b b b b d of the second."""


def targets_of(data: TrainingData) -> Targets:
    """Three captions of each activity, and one that mentions the wrist, but not of "b"."""
    activities = data.activities()
    counts = [[3, 0 if a.name == "b" else 1] for a in activities]
    vectors = torch.arange(float(sum(map(sum, counts))))[:, None].expand(-1, 512)
    return Targets.of(activities, vectors, counts, ("left wrist",))


def test_activities_and_placements_are_those_of_kept_windows() -> None:
    assert [a.name for a in DATA.activities()] == ["a", "b", "c", "d"]
    assert DATA.placements() == ("left wrist", "waist")
    first = TrainingData(DATA.sets[:1], DATA.keep[:1])
    assert [a.name for a in first.activities()] == ["a", "c"] and len(first) == 3


def test_a_rare_activity_is_drawn_as_often_as_its_share_s_root() -> None:
    sampler = Sampler(DATA, targets_of(DATA))
    drawn = sampler.draw(40_000, torch.Generator().manual_seed(0))
    expected = torch.tensor([2**-0.5] * 2 + [1] + [4**-0.5] * 4 + [1])
    share = torch.bincount(drawn.window, minlength=8) / 40_000
    torch.testing.assert_close(share, expected / expected.sum(), atol=0.01, rtol=0)
    assert drawn.activity[drawn.window == 2].unique().tolist() == [2]  # c
    assert drawn.activity[drawn.window == 7].unique().tolist() == [3]  # d
    assert drawn.column[drawn.window < 3].unique().tolist() == [0]  # no captions say "waist"
    assert drawn.column[drawn.window >= 3].unique().tolist() == [1]


def test_captions_are_drawn_from_the_activity_s_own() -> None:
    targets = targets_of(DATA)
    activity = torch.tensor([0, 1, 2, 3]).repeat(200)
    generator = torch.Generator().manual_seed(0)
    plain = targets.sample(activity, torch.ones(800, dtype=torch.int64), 0.0, generator)
    groups = {0: {0, 1, 2}, 1: {4, 5, 6}, 2: {7, 8, 9}, 3: {11, 12, 13}}
    for a, rows in groups.items():
        assert set(plain[activity == a, 0].tolist()) == rows
        assert set(targets.group(a)[:, 0].tolist()) == rows
    placed = targets.sample(activity, torch.ones(800, dtype=torch.int64), 1.0, generator)
    for a, rows in {0: {3}, 1: {4, 5, 6}, 2: {10}, 3: {14}}.items():  # "b" has none of its own
        assert set(placed[activity == a, 0].tolist()) == rows
    half = targets.sample(activity, torch.ones(800, dtype=torch.int64), 0.5, generator)
    assert 70 < int((half[activity == 0, 0] == 3).sum()) < 130
    elsewhere = targets.sample(activity, torch.zeros(800, dtype=torch.int64), 1.0, generator)
    assert set(elsewhere[activity == 0, 0].tolist()) == {0, 1, 2}


def test_only_composites_and_their_parts_are_unsure() -> None:
    names = ["walking", "running or cycling", "cycling", "running"]
    activities = tuple(activity_of(name) for name in names)
    targets = Targets.of((*activities, sentence("he cycles")), torch.zeros(5, 512), [[1]] * 5)
    unsure = targets.unsure(torch.tensor([0, 1, 2, 3, 4, 1]))
    pairs = {(1, 2), (1, 3), (2, 5), (3, 5)}
    assert {tuple(sorted(p)) for p in unsure.nonzero().tolist()} == pairs
    assert torch.equal(unsure, unsure.T)


def with_sentences(windows: WindowSet, *sentences: str) -> WindowSet:
    """The same windows, each with a sentence in the place of its label."""
    number = np.arange(len(sentences), dtype=np.int32)
    kinds = ("narration",) * len(sentences)
    return replace(windows, labels=sentences, kinds=kinds, label=number)


def test_free_sentences_do_not_drown_labels() -> None:
    """400 sentences count as 100 activities of 4 windows each."""
    told = with_sentences(window_set("two", "a" * 400), *(f"she waves {i}" for i in range(400)))
    data = TrainingData((window_set("one", "aabc"), told), (mask("xxxx"), np.ones(400, bool)))
    activities = data.activities()
    sampler = Sampler(data, Targets.of(activities, torch.zeros(403, 512), [[1]] * 403))
    drawn = sampler.draw(40_000, torch.Generator().manual_seed(0)).window
    of_labels = 2 * 2**-0.5 + 2
    expected = of_labels / (of_labels + 400 * 4**-0.5)
    assert (drawn < 4).float().mean().item() == pytest.approx(expected, abs=0.005)


def test_a_sentence_that_is_a_label_is_that_label() -> None:
    told = with_sentences(window_set("two", "zz"), "cycling", "she waves")
    labelled = window_set("one", "aa")
    labelled = replace(labelled, labels=("cycling",), label=np.zeros(2, np.int32))
    for sets in ((labelled, told), (told, labelled)):
        data = TrainingData(sets, (mask("xx"), mask("xx")))
        assert data.activities() == (activity_of("cycling"), sentence("she waves"))


def test_windows_are_the_same_on_the_device_and_in_their_files() -> None:
    numbers = torch.tensor([7, 0, 3, 2, 2])
    host, device = (w(DATA, CPU).fetch(numbers) for w in (HostWindows, DeviceWindows))
    assert host.dtype == torch.float32 and host.shape == (5, 6, 1000)
    assert host[:, 0, 0].tolist() == [5, 0, 0, 3, 3]
    torch.testing.assert_close(host, device, equal_nan=True)
    assert isinstance(windows_on(Hardware.alone("cpu"), DATA), HostWindows)


def test_nothing_to_draw_and_missing_targets_are_errors() -> None:
    nothing = TrainingData(DATA.sets[:1], (mask("...."),))
    with pytest.raises(InputError, match="no window is left"):
        Sampler(nothing, targets_of(DATA))
    without_b = Targets.of((activity_of("a"),), torch.zeros(1, 512), [[1]])
    with pytest.raises(ValueError, match="lack activities of one"):
        Sampler(DATA, without_b)
