"""Options that protocols share. Without torch: `--help` has to answer at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge.text import COMPACT_NAME
from training.arguments import fraction, positive, whole
from training.augment_config import add_arguments, config_from

if TYPE_CHECKING:
    from training.run import TrainConfig

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DEEP_MODELS = ("aura-edge", "imu2clip", "imu2clip-mended", "aura-mfm", "aura-mfm-residual")
"""`training.models.MODELS`, without importing it."""

RANDOM_INIT = "random-init"
"""aura-edge as it is before training."""

FORESTS = ("random-forest", "gradient-boosting")
"""`training.baselines.forest.FOREST_MODELS`, without importing it."""

MODELS = (*DEEP_MODELS, RANDOM_INIT, *FORESTS)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where results go, and where windows are cached."""
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of results.json, table.md and all single results; the same command again goes "
        "on where it stopped",
    )
    parser.add_argument(
        "--cache", type=Path, help="folder of cut windows (default: `cache` beside OUT)"
    )


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Random seeds."""
    parser.add_argument(
        "--seeds",
        type=whole,
        nargs="+",
        default=[0, 1, 2],
        metavar="N",
        help="each once (default: 0 1 2)",
    )


def add_models(parser: argparse.ArgumentParser, choices: tuple[str, ...] = MODELS) -> None:
    """Which models are trained."""
    parser.add_argument(
        "--models",
        nargs="+",
        choices=choices,
        default=list(MODELS),
        metavar="NAME",
        help=f"of {', '.join(choices)} (default: all that are trained)",
    )


def add_training(parser: argparse.ArgumentParser, augmentation: bool = True) -> None:
    """How models are trained: as `edge-train fit` does."""
    group = parser.add_argument_group("training", "defaults are those of `edge-train fit`")
    group.add_argument("--steps", type=whole, metavar="N")
    group.add_argument("--batch", type=positive, metavar="N", help="windows in a step")
    group.add_argument("--learning-rate", type=float, metavar="RATE", help="at its peak")
    group.add_argument(
        "--placement-captions",
        type=fraction,
        metavar="FRACTION",
        help="captions that mention where the device is worn",
    )
    group.add_argument(
        "--text-encoder",
        metavar="NAME",
        default=COMPACT_NAME,
        help="what embeds captions and labels (default: %(default)s)",
    )
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    if augmentation:
        add_arguments(parser)


def train_config(args: argparse.Namespace, augmentation: bool = True) -> TrainConfig:
    """The configuration that all trainings of a command share; the model and the seed are set for
    each, and the corpora are told by their names only."""
    from training.run import TrainConfig

    given = {
        name: value
        for name in (
            "steps",
            "batch",
            "learning_rate",
            "placement_captions",
            "text_encoder",
            "device",
        )
        if (value := getattr(args, name)) is not None
    }
    if augmentation:
        given["augment"] = config_from(args)
    return TrainConfig(corpora=(), **given)
