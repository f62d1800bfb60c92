"""A tiny run: a made-up corpus and a text encoder that needs no packages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import training.train
from tests.conftest import write_corpus
from training.augment_config import OFF
from training.model import EncoderConfig
from training.train import TrainConfig


class HashedText:
    """Each caption near one of two opposite directions, by whether it speaks of feet or walking,
    with a random part of its own that is the same in every process."""

    name = "hashed"
    centre = np.zeros(512, np.float32)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in texts]
        rows = np.stack([np.random.default_rng(s).normal(size=512) for s in seeds])
        about = np.random.default_rng(0).normal(size=512)
        rows += [2 * about if "walk" in t or "foot" in t else -2 * about for t in texts]
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def hashed_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.train, "load_text_encoder", lambda name: HashedText())


@pytest.fixture
def tiny_config(tmp_path: Path, hashed_text: None) -> TrainConfig:
    return TrainConfig(
        corpora=(str(write_corpus(tmp_path / "mini")),),
        text_encoder="hashed",
        steps=40,
        batch=16,
        warmup_steps=5,
        encoder=EncoderConfig(patch_samples=100, width=32, heads=2, blocks=1),
        augment=OFF,  # 40 steps are too few to learn from disturbed windows
    )
