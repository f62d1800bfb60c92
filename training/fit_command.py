"""`edge-train fit`: train an encoder on corpora."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console

from edge.text import COMPACT_NAME
from training.arguments import fraction, positive, whole
from training.augment_config import add_arguments, config_from
from training.hardware import DEVICES
from training.models import DEFAULT_MODEL, MODELS
from training.train import TrainConfig, train


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `fit` to `edge-train`'s commands."""
    parser = commands.add_parser(
        "fit",
        help="train an encoder on corpora",
        description="Train an encoder on corpora. Under torchrun its processes train together: "
        "torchrun --nproc_per_node GPUS -m training fit ...",
    )
    add = parser.add_argument
    add("corpora", nargs="+", metavar="CORPUS", help="a training corpus' folder")
    add(
        "--out",
        type=Path,
        required=True,
        help="the run's folder: configuration, metrics (also for TensorBoard), curves, checkpoint",
    )
    add("--cache", type=Path, help="folder of cut windows (default: `cache` beside OUT)")
    add(
        "--text-encoder",
        default=COMPACT_NAME,
        metavar="NAME",
        help="what embeds the captions (default: %(default)s)",
    )
    add(
        "--model",
        choices=list(MODELS),
        default=DEFAULT_MODEL,
        help="what is trained (default: %(default)s)",
    )
    add("--steps", type=whole, default=TrainConfig.steps, help="default: %(default)s")
    add(
        "--batch",
        type=positive,
        default=TrainConfig.batch,
        help="windows in a step, of all processes together (default: %(default)s)",
    )
    add(
        "--learning-rate",
        type=float,
        default=TrainConfig.learning_rate,
        help="at its peak (default: %(default)s)",
    )
    add("--seed", type=whole, default=TrainConfig.seed, help="default: %(default)s")
    add(
        "--device",
        choices=DEVICES,
        default=TrainConfig.device,
        help="what to train on; auto: a GPU if there is one (default: %(default)s)",
    )
    add(
        "--placement-captions",
        type=fraction,
        default=TrainConfig.placement_captions,
        metavar="FRACTION",
        help="captions that mention where the device is worn (default: %(default)s)",
    )
    add("--resume", action="store_true", help="go on from OUT's checkpoint")
    add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Train as `args` ask for; returns the exit code.

    Raises:
        InputError: a corpus, the model, the device or the run to resume cannot be used.
    """
    config = TrainConfig(
        corpora=tuple(str(c) for c in args.corpora),
        text_encoder=args.text_encoder,
        model=args.model,
        steps=args.steps,
        batch=args.batch,
        learning_rate=args.learning_rate,
        placement_captions=args.placement_captions,
        seed=args.seed,
        device=args.device,
        augment=config_from(args),
    )
    cache = args.cache or args.out.parent / "cache"
    try:
        checkpoint = train(config, args.out, cache, args.resume, console)
    except KeyboardInterrupt:
        console.print(f"stopped; go on with: edge-train fit ... --out {args.out} --resume")
        return 130
    if os.environ.get("RANK", "0") == "0":  # one of torchrun's processes speaks for all
        print(checkpoint)
    return 0
