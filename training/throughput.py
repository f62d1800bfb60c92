"""How many windows a second training handles, and what limits it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from training.hardware import Hardware

DRAW, AUGMENT, COMPUTE = PHASES = ("drawing windows", "augmentation", "forward and backward")


@dataclass
class Lap:
    """The steps between two looks at the clock."""

    steps: int = 0
    elapsed_s: float = 0.0
    timed_steps: int = 0
    """Steps whose phases were timed one by one."""

    phase_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    """Phase -> seconds in all timed steps."""

    def mean_s(self, phase: str) -> float:
        """Seconds that a step spends in a phase."""
        return self.phase_s[phase] / max(1, self.timed_steps)


class Meter:
    """A stopwatch over steps and their phases; what happens between two laps is not counted."""

    def __init__(self, batch: int, hardware: Hardware) -> None:
        self._batch = batch
        """Windows of the joint batch."""

        self._hardware = hardware
        self._laps: list[Lap] = []
        self.start_lap()

    def start_lap(self) -> None:
        """Count from here on."""
        self._lap = Lap()
        self._started = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase of a step.

        On a GPU only those of a lap's first step: timing them means waiting for the device, which
        otherwise works on while the next windows are drawn.
        """
        if self._hardware.device.type == "cuda" and self._lap.steps > 0:
            yield
            return
        self._hardware.synchronize()
        start = time.perf_counter()
        yield
        self._hardware.synchronize()
        self._lap.phase_s[name] += time.perf_counter() - start

    def step_done(self) -> None:
        """Count a step."""
        self._lap.timed_steps += self._hardware.device.type != "cuda" or self._lap.steps == 0
        self._lap.steps += 1

    def end_lap(self) -> Lap:
        """The lap that ends here."""
        self._hardware.synchronize()
        self._lap.elapsed_s = time.perf_counter() - self._started
        self._laps.append(self._lap)
        return self._lap

    def windows_per_s(self, lap: Lap) -> float:
        """Windows of the joint batch per second of a lap, by wall clock."""
        return self._batch * lap.steps / max(lap.elapsed_s, 1e-9)

    def summary(self) -> str:
        """Windows per second and what limits them, over all laps.

        The first lap is left out where there are others: compilation and cold files are in it.
        """
        whole = Lap()
        for lap in self._laps[1:] or self._laps:
            whole.steps += lap.steps
            whole.elapsed_s += lap.elapsed_s
            for phase in PHASES:
                whole.phase_s[phase] += lap.phase_s[phase]
        in_phases = max(sum(whole.phase_s.values()), 1e-9)
        shares = ", ".join(f"{p} {whole.phase_s[p] / in_phases:.0%}" for p in PHASES)
        slowest = max(PHASES, key=lambda phase: whole.phase_s[phase])
        return (
            f"{self.windows_per_s(whole):,.0f} windows/s, limited by {slowest}; "
            f"time of a step: {shares}"
        )
