"""Windows per second and their limit, by a clock that the tests turn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import training.throughput
from training.hardware import Hardware
from training.throughput import AUGMENT, COMPUTE, DRAW, Meter


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(training.throughput, "time", clock)
    return clock


def step(meter: Meter, clock: Clock, draw_s: float, augment_s: float, compute_s: float) -> None:
    for phase, seconds in ((DRAW, draw_s), (AUGMENT, augment_s), (COMPUTE, compute_s)):
        with meter.phase(phase):
            clock.now += seconds
    meter.step_done()


def test_the_first_lap_and_what_happens_between_laps_do_not_count(clock: Clock) -> None:
    meter = Meter(100, Hardware.alone("cpu"))
    step(meter, clock, 1, 1, 60)  # compilation
    meter.end_lap()
    clock.now += 1000  # a checkpoint
    meter.start_lap()
    step(meter, clock, 1, 5, 2)
    step(meter, clock, 3, 7, 2)
    lap = meter.end_lap()
    assert meter.windows_per_s(lap) == pytest.approx(200 / 20)
    assert [lap.mean_s(phase) for phase in (DRAW, AUGMENT, COMPUTE)] == [2, 6, 2]
    assert meter.summary() == (
        "10 windows/s, limited by augmentation; time of a step: drawing windows 20%, "
        "augmentation 60%, forward and backward 20%"
    )


def test_a_run_of_a_single_lap_has_a_summary_too(clock: Clock) -> None:
    meter = Meter(8, Hardware.alone("cpu"))
    step(meter, clock, 0, 0, 2)
    meter.end_lap()
    assert meter.summary().startswith("4 windows/s, limited by forward and backward")


def test_on_a_gpu_only_the_first_step_of_a_lap_is_timed_by_phase(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []
    monkeypatch.setattr(Hardware, "synchronize", lambda self: waits.append(clock.now))
    meter = Meter(10, replace(Hardware.alone("cpu"), device=torch.device("cuda", 0)))
    step(meter, clock, 1, 1, 2)
    assert len(waits) == 6
    step(meter, clock, 50, 50, 50)
    assert len(waits) == 6
    lap = meter.end_lap()
    assert lap.mean_s(DRAW) == 1 and lap.mean_s(COMPUTE) == 2
    assert meter.windows_per_s(lap) == pytest.approx(20 / 154)
