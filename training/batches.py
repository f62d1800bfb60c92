"""Windows and captions -> batches: what is drawn how often, and where it lies meanwhile.

Kept windows are numbered through, corpus by corpus; `Sampler` draws numbers, and `windows_on` says
where the windows behind them are read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge.spec import SIGNAL
from firmware_bridge.errors import InputError
from training.captions import SENTENCE, Activity, compatibility
from training.data import WindowSet
from training.hardware import Hardware

_DEVICE_SHARE = 0.6
"""Of the free memory of a GPU, for windows; the rest is for training."""

_CHUNK = 4096
"""Windows copied to a GPU at once: 49 MB."""

_SENTENCES_COUNT_AS = 100
"""Activities that a corpus' free sentences count as, when it is decided what is drawn how often:
every sentence is an activity of its own, and tens of thousands would drown all that has labels."""


@dataclass(frozen=True)
class TrainingData:
    """The windows of some corpora, and which of them may be drawn."""

    sets: tuple[WindowSet, ...]
    keep: tuple[NDArray[np.bool_], ...]
    """Of each set, (len(set),)."""

    @classmethod
    def of(cls, sets: Sequence[WindowSet]) -> TrainingData:
        """All windows but those that are label noise."""
        return cls(tuple(sets), tuple(s.without_still_noise() for s in sets))

    def activities(self) -> tuple[Activity, ...]:
        """The activities of the kept windows, by name, each once.

        A free sentence that says no more than a label is that label, with all of its captions.
        """
        found: dict[str, Activity] = {}
        for windows, keep in zip(self.sets, self.keep, strict=True):
            for label in np.unique(windows.label[keep]):
                activity = windows.activities[label]
                if activity.name not in found or found[activity.name].group == SENTENCE:
                    found[activity.name] = activity
        return tuple(found[name] for name in sorted(found))

    def placements(self) -> tuple[str, ...]:
        """Where the devices of the kept windows were worn, in order, each once."""
        found = [s.placement[keep] for s, keep in zip(self.sets, self.keep, strict=True)]
        return tuple(np.unique(np.concatenate(found)).tolist()) if found else ()

    def __len__(self) -> int:
        return sum(int(keep.sum()) for keep in self.keep)


@dataclass(frozen=True)
class Targets:
    """Activities and the embedded captions that their windows are trained towards.

    Captions come in groups: column 0 those of the activity as such, column 1 + p those that also
    mention placement p.
    """

    activities: tuple[Activity, ...]
    vectors: Tensor
    """(M, 512) centred unit vectors of all captions."""

    first: Tensor
    """(activities, columns) row of a group's first caption."""

    count: Tensor
    """(activities, columns) captions in a group; in column 0 at least one."""

    unsure_row: Tensor
    """(activities,) row of `unsure_pair`; 0 for activities that are never unsure."""

    unsure_pair: Tensor
    """Whether a window of one activity may show the other as well, as a composite's does."""

    placements: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        activities: tuple[Activity, ...],
        vectors: Tensor,
        counts: Sequence[Sequence[int]],
        placements: tuple[str, ...] = (),
    ) -> Targets:
        """Targets from vectors in the order of the groups: by activity, then by column."""
        count = torch.tensor(counts, dtype=torch.int64).reshape(len(activities), -1)
        first = (count.flatten().cumsum(0) - count.flatten()).reshape(count.shape)
        return cls(activities, vectors, first, count, *_unsure(activities), placements)

    def group(self, activity: int, column: int = 0) -> Tensor:
        """(n, 512) the captions of one group."""
        start = int(self.first[activity, column])
        return self.vectors[start : start + int(self.count[activity, column])]

    def sample(
        self, activity: Tensor, column: Tensor, placed: float, generator: torch.Generator
    ) -> Tensor:
        """One caption of each activity.

        Args:
            activity: (B,) rows of the targets.
            column: (B,) groups of captions that mention a placement.
            placed: fraction taken from these; the others, and those of empty groups, from column 0.
            generator: on the CPU.

        Returns:
            (B, 512)
        """
        mention = torch.rand(len(activity), generator=generator) < placed
        column = torch.where(mention & (self.count[activity, column] > 0), column, 0)
        count = self.count[activity, column]
        pick = (torch.rand(len(activity), generator=generator) * count).long()
        # Rounding can make `pick` equal to `count` where there are millions of captions.
        rows = self.first[activity, column] + torch.minimum(pick, count - 1)
        return self.vectors[rows.to(self.vectors.device)]

    def unsure(self, activity: Tensor) -> Tensor:
        """(B,) -> (B, B) whether two activities differ and yet one window may show both."""
        row = self.unsure_row[activity].to(self.unsure_pair.device)
        return self.unsure_pair[row[:, None], row[None, :]]

    def to(self, device: torch.device) -> Targets:
        """The same with what batches are made of on another device."""
        vectors, pair = self.vectors.to(device), self.unsure_pair.to(device)
        return replace(self, vectors=vectors, unsure_pair=pair)


def _unsure(activities: tuple[Activity, ...]) -> tuple[Tensor, Tensor]:
    """`unsure_row` and `unsure_pair` of `Targets`: a table of composites and their parts alone."""
    # Sentences are left out: they differ from all others, and a table of all would be too large.
    labels = np.array([i for i, a in enumerate(activities) if a.group != SENTENCE], np.int64)
    both = compatibility([activities[i] for i in labels])
    np.fill_diagonal(both, False)
    involved = np.flatnonzero(both.any(1))
    row = np.zeros(len(activities), np.int64)
    row[labels[involved]] = 1 + np.arange(len(involved))
    pair = np.pad(both[np.ix_(involved, involved)], ((1, 0), (1, 0)))
    return torch.from_numpy(row), torch.from_numpy(pair)


class Draw(NamedTuple):
    """A joint batch, by number."""

    window: Tensor
    """(B,) numbers of kept windows."""

    activity: Tensor
    """(B,) what they show, as a row of the targets."""

    column: Tensor
    """(B,) the group of captions that fits their placement; 0 if the targets have none."""


class Sampler:
    """Draws windows so that no corpus and no activity drowns the others.

    A window's chance is proportional to (windows of its corpus and activity) ** -0.5. Windows with
    a free sentence share that of `_SENTENCES_COUNT_AS` activities.
    """

    def __init__(self, data: TrainingData, targets: Targets) -> None:
        if not len(data):
            raise InputError("no window is left to train on")
        index = {a.name: i for i, a in enumerate(targets.activities)}
        column_of = {placement: 1 + p for p, placement in enumerate(targets.placements)}
        sentence = np.array([a.group == SENTENCE for a in targets.activities], bool)
        activity, column, weight = [], [], []
        for windows, keep in zip(data.sets, data.keep, strict=True):
            # Only kept windows need a target: their labels may be fewer than the corpus'.
            of_label = np.array([index.get(a.name, -1) for a in windows.activities])
            own = of_label[windows.label[keep]]
            if (own < 0).any():
                raise ValueError(f"the targets lack activities of {windows.corpus}")
            activity.append(own)
            names, inverse = np.unique(windows.placement[keep], return_inverse=True)
            column.append(np.array([column_of.get(str(n), 0) for n in names], np.int64)[inverse])
            count = np.bincount(own, minlength=len(index)).astype(float)
            count[sentence] = max(1.0, count[sentence].sum() / _SENTENCES_COUNT_AS)
            weight.append(count[own] ** -0.5)
        self._activity = torch.from_numpy(np.concatenate(activity))
        self._column = torch.from_numpy(np.concatenate(column))
        self._cumulative = torch.from_numpy(np.concatenate(weight)).cumsum(0)

    def draw(self, batch: int, generator: torch.Generator) -> Draw:
        """Numbers of B windows, with replacement, and what they are."""
        at = torch.rand(batch, dtype=torch.float64, generator=generator) * self._cumulative[-1]
        window = torch.searchsorted(self._cumulative, at, right=True)
        window = window.clamp(max=len(self._cumulative) - 1)
        return Draw(window, self._activity[window], self._column[window])


class Windows(Protocol):
    """Kept windows by number."""

    def fetch(self, numbers: Tensor) -> Tensor:
        """(B,) numbers -> (B, 6, 1000) float32 on the training device, NaN where missing."""
        ...


class HostWindows:
    """Windows that stay in their memory-mapped files and are read batch by batch."""

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        self._device = device
        self._sets = data.sets
        self._rows = [np.flatnonzero(keep) for keep in data.keep]
        self._start = np.cumsum([0, *map(len, self._rows)])

    def fetch(self, numbers: Tensor) -> Tensor:
        """Read a batch and send it to the device."""
        flat = numbers.numpy()
        owner = np.searchsorted(self._start, flat, side="right") - 1
        out = torch.empty(
            (len(flat), len(SIGNAL.channels), SIGNAL.window_samples),
            dtype=torch.float16,
            # From pinned memory a GPU copies while the processor goes on.
            pin_memory=self._device.type == "cuda",
        )
        for s in np.unique(owner):
            here = np.flatnonzero(owner == s)
            rows = self._rows[s][flat[here] - self._start[s]]
            out[torch.from_numpy(here)] = torch.from_numpy(self._sets[s].imu[rows])
        return out.to(self._device, non_blocking=True).float()


class DeviceWindows:
    """All kept windows on the training device, as float16."""

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        shape = (len(data), len(SIGNAL.channels), SIGNAL.window_samples)
        self._imu = torch.empty(shape, dtype=torch.float16, device=device)
        at = 0
        for windows, keep in zip(data.sets, data.keep, strict=True):
            rows = np.flatnonzero(keep)
            for part in np.split(rows, range(_CHUNK, len(rows), _CHUNK)):
                self._imu[at : at + len(part)] = torch.from_numpy(windows.imu[part])
                at += len(part)

    def fetch(self, numbers: Tensor) -> Tensor:
        """Pick a batch out."""
        return self._imu[numbers.to(self._imu.device)].float()


def windows_on(hardware: Hardware, data: TrainingData) -> Windows:
    """The kept windows on the GPU if they fit there, else where they are."""
    if hardware.device.type == "cuda":
        size = len(data) * len(SIGNAL.channels) * SIGNAL.window_samples * 2
        free, _ = torch.cuda.mem_get_info(hardware.device)
        if size <= _DEVICE_SHARE * free:
            return DeviceWindows(data, hardware.device)
    return HostWindows(data, hardware.device)
