"""What an encoder makes of windows of all kinds: by it a label's usual similarity is known.

See `edge.decision.Footing`. The embeddings ride along in the checkpoint, for an export has no
training corpora at hand.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.batches import HostWindows, Sampler, Targets, TrainingData

SIZE = 512
"""Half a megabyte as float16; enough for a mean and a standard deviation of each label."""

_CHUNK = 128


def reference_embeddings(encoder: nn.Module, data: TrainingData, targets: Targets) -> Tensor:
    """Embed windows as training draws them, no corpus and no activity drowning the others, but
    undisturbed: (512, D) float16.

    Args:
        encoder: in eval mode, on the CPU.
        data: what it was trained on.
        targets: the captions of at least the activities of `data`.
    """
    drawn = Sampler(data, targets).draw(SIZE, torch.Generator().manual_seed(0)).window
    windows = HostWindows(data, torch.device("cpu"))
    with torch.inference_mode():
        parts = [encoder(windows.fetch(numbers)) for numbers in torch.split(drawn, _CHUNK)]
    return torch.cat(parts).half()
