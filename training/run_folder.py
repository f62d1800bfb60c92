"""The folder that a run writes.

* `config.json`: the configuration, and what it ran on: corpora, git revision, versions, device.
* `metrics.jsonl`: one line every few steps, see `METRICS`.
* `events.out.tfevents.*`: the same figures for TensorBoard (`tensorboard --logdir FOLDER`).
* `curves.png`: the same figures, drawn.
* `checkpoint.pt`: everything that `--resume` and `edge-export` need.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from training.batches import TrainingData
from training.captions import SENTENCE
from training.hardware import Hardware

CHECKPOINT_FILE = "checkpoint.pt"
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
CURVES_FILE = "curves.png"

METRICS = {
    "loss": "loss",
    "learning_rate": "learning rate",
    "logit_scale": "logit scale",
    "windows_per_s": "windows per second",
    "waiting_for_data_s": "seconds a step waits for data",
    "augmentation_s": "seconds a step augments",
    "compute_s": "seconds forward and backward",
}
"""Field of `metrics.jsonl` (beside `step`) -> what it is. Loss and times are means over the steps
since the line before."""

_CURVES = ("loss", "learning_rate", "logit_scale", "windows_per_s")
_REDRAW_S = 30.0
"""Drawing takes half a second, which a GPU needs for hundreds of steps."""


class RunFolder:
    """Writes a run's folder; a context, for TensorBoard's file has to be closed.

    Args:
        path: the folder; made if need be.
        facts: what `config.json` holds of this start.
        step: the step that training goes on from; None for a new run, which replaces what the
            folder held. Lines of later steps are dropped: these steps come again.
    """

    def __init__(self, path: Path, facts: dict[str, Any], step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        import_module("matplotlib.figure")  # where it is missing, say so before training
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._write_facts(facts, step)
        if step is None:
            (path / CURVES_FILE).unlink(missing_ok=True)
        kept = [] if step is None else [r for r in read_metrics(path) if r["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        _replace(path / METRICS_FILE, text)
        # TensorBoard hides what earlier files of the folder say about the purged steps.
        purged = 0 if step is None else step + 1
        self._board = SummaryWriter(str(path), purge_step=purged)
        self._drawn_at = time.monotonic()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._board.close()
        draw_curves(self.path)

    def _write_facts(self, facts: dict[str, Any], step: int | None) -> None:
        file = self.path / CONFIG_FILE
        if step is not None and file.exists():
            first = json.loads(file.read_text(encoding="utf-8"))
            again = {"step": step, **{k: v for k, v in facts.items() if first.get(k) != v}}
            facts = {**first, "resumed": [*first.get("resumed", []), again]}
        _replace(file, json.dumps(facts, indent=2) + "\n")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Add a line to the metrics; the fields are those of `METRICS`."""
        with (self.path / METRICS_FILE).open("a", encoding="utf-8") as out:
            out.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint in one step: a run that is killed leaves the one before it."""
        partial = self.path / f"{CHECKPOINT_FILE}.partial"
        torch.save(state, partial)
        partial.replace(self.path / CHECKPOINT_FILE)
        self._board.flush()
        if time.monotonic() - self._drawn_at > _REDRAW_S:
            draw_curves(self.path)
            self._drawn_at = time.monotonic()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics; a last line that was broken off is left out."""
    file = path / METRICS_FILE
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def draw_curves(path: Path) -> None:
    """Draw the metrics of a run, if there are any yet."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    rows = read_metrics(path)
    if not rows:
        return
    figure = Figure(figsize=(10, 6), layout="constrained")
    step = [row["step"] for row in rows]
    for axes, name in zip(figure.subplots(2, 2).flat, _CURVES, strict=True):
        axes.plot(step, [row[name] for row in rows], linewidth=1)
        axes.set_title(METRICS[name])
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    partial = path / f"{CURVES_FILE}.partial"
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(path / CURVES_FILE)


def facts(config: dict[str, Any], data: TrainingData, hardware: Hardware) -> dict[str, Any]:
    """What a run starts with, for `config.json`."""
    return {
        "config": config,
        "corpora": [
            {"name": s.corpus, "cache": _cache_name(s.imu), "windows": len(s), "kept": int(k.sum())}
            for s, k in zip(data.sets, data.keep, strict=True)
        ],
        "git_revision": git_revision(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": _device_name(hardware.device),
        "processes": hardware.processes,
    }


def provenance(data: TrainingData) -> dict[str, Any]:
    """What an encoder is trained on, for its bundle's manifest: activities by name, free sentences
    by number alone, for they belong to whoever wrote them."""
    activities = data.activities()
    return {
        "corpora": [s.corpus for s in data.sets],
        "windows": sum(map(len, data.sets)),
        "subjects": sum(len(set(s.subject.tolist())) for s in data.sets),
        "activities": [a.name for a in activities if a.group != SENTENCE],
        "sentences": sum(a.group == SENTENCE for a in activities),
        "git_revision": git_revision(),
    }


def git_revision() -> str:
    """The commit that this code is, "-dirty" if it was changed since; "unknown" outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _cache_name(imu: Any) -> str | None:
    """The name of the file that windows are mapped from: corpus and fingerprint."""
    file = getattr(imu, "filename", None)
    return Path(file).stem if file else None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} processor, {os.cpu_count()} cores"


def _replace(file: Path, text: str) -> None:
    """Write a file so that at any time the old one or the new one is there."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
