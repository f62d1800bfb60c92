"""The window cutter: schedules, gaps, ends of streams."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from edge.resample import GridBlock
from edge.window import Window, WindowCutter, every_hop


def ramp(start: int, stop: int, channels: int = 6) -> GridBlock:
    """Grid values that equal their own index."""
    values = np.repeat(np.arange(start, stop, dtype=np.float32)[:, None], channels, axis=1)
    return GridBlock(start, values)


def cut(blocks: list[GridBlock], spans: list[tuple[int, int]] | None = None) -> list[Window]:
    cutter = WindowCutter(every_hop(1.0) if spans is None else iter(spans))
    windows = [w for b in blocks for w in cutter.push(b)]
    return windows + list(cutter.finish())


def test_windows_hold_their_own_samples() -> None:
    windows = cut([ramp(0, 1500)])
    assert [(w.start, w.stop) for w in windows] == [(0, 1000), (200, 1200), (400, 1400)]
    for w in windows:
        np.testing.assert_array_equal(w.imu, np.tile(np.arange(w.start, w.stop), (6, 1)))


def test_block_boundaries_do_not_matter() -> None:
    whole = cut([ramp(0, 2600)])
    edges = [0, 1, 2, 999, 1000, 1001, 1777, 2600]
    pieces = cut([ramp(a, b) for a, b in pairwise(edges)])
    assert len(whole) == len(pieces) == 9
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(a.imu, b.imu)


def test_a_gap_is_nan_and_too_much_of_it_makes_a_window_not_valid() -> None:
    windows = cut([ramp(0, 1000), ramp(1300, 2400)])
    by_start = {w.start: w for w in windows}
    assert by_start[0].missing == 0 and by_start[0].valid
    assert by_start[200].missing == pytest.approx(0.2) and by_start[200].valid
    assert by_start[400].missing == pytest.approx(0.3) and not by_start[400].valid
    assert np.isnan(by_start[400].imu[:, 600:900]).all()
    np.testing.assert_array_equal(by_start[400].imu[0, 900:], np.arange(1300, 1400))


def test_windows_wholly_in_a_long_gap_are_reported() -> None:
    windows = cut([ramp(0, 1000), ramp(10_000, 11_000)])
    assert [w.start for w in windows] == list(range(0, 10_001, 200))
    assert windows[20].missing == 1 and not windows[20].valid
    assert windows[-1].missing == 0


def test_a_missing_gyroscope_is_nan() -> None:
    (window,) = cut([ramp(0, 1000, channels=3)])
    assert window.valid and np.isnan(window.imu[3:]).all() and not np.isnan(window.imu[:3]).any()


def test_a_stream_that_ends_a_sample_early_still_gives_its_last_window() -> None:
    assert len(cut([ramp(0, 1197)])) == 2  # 50 Hz for 6 s: the last sample is at 5.98 s
    assert len(cut([ramp(0, 1150)])) == 1


def test_a_short_stream_gives_one_padded_window_and_a_shorter_one_none() -> None:
    (window,) = cut([ramp(0, 300)])
    assert (window.start, window.stop) == (0, 300)
    assert window.valid and np.isnan(window.imu[:, 300:]).all()
    assert cut([ramp(0, 150)]) == []


def test_spans_of_segments() -> None:
    windows = cut([ramp(0, 3000)], [(100, 1100), (600, 1600), (1700, 2100), (2100, 3010)])
    assert [(w.start, w.stop) for w in windows] == [
        (100, 1100), (600, 1600), (1700, 2100), (2100, 3010)
    ]  # fmt: skip
    np.testing.assert_array_equal(windows[2].imu[0, :400], np.arange(1700, 2100))
    assert np.isnan(windows[2].imu[:, 400:]).all() and windows[2].missing == 0


def test_a_hop_off_the_grid_does_not_drift() -> None:
    starts = [start for start, _ in islice(every_hop(0.333), 1001)]
    assert starts[1000] == 66_600
