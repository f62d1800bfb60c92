"""A graph network of the size of UniMTS's motion encoder.

Zhang et al. 2024, "UniMTS: Unified Pre-training for Motion Time Series" (NeurIPS 2024, arXiv
2410.19818); shapes as in xiyuanzh/UniMTS at 656fcdab, model.py, which follows ST-GCN (Yan et al.
2018, arXiv 1801.07455). 5.18 M parameters for the accelerometer alone; the published 5.19 M count
the batch norms' statistics and the graph as well.

Exact: tree of 22 joints, three spatial partitions with learned edge weights, ten blocks with their
widths and strides, temporal kernel 9, batch norms, mean over time and joints. Approximate: the
axis of several persons is left out (UniMTS has one), and graph and weights are multiplied once when
the block runs instead of joint by joint; neither changes what is computed. UniMTS's text encoder
(63 M) is not part of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PARENTS = (0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 12, 11, 14, 15, 16, 11, 18, 19, 20)
"""Parent of joint 1, 2, ...; joint 0 is the root. Two legs, spine and head, two arms."""

JOINTS = len(PARENTS) + 1
AXES = 3
BLOCKS = (
    (64, 1),
    (64, 1),
    (64, 1),
    (64, 1),
    (128, 2),
    (128, 1),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 1),
)
"""Channels and temporal stride of each block."""

TEMPORAL_KERNEL = 9


def adjacency() -> Tensor:
    """(3, 22, 22): what a joint [second joint axis] takes from itself, its children, its parent;
    each joint's weights add up to 1."""
    graph = torch.zeros(3, JOINTS, JOINTS)
    graph[0] = torch.eye(JOINTS)
    for child, parent in enumerate(PARENTS, start=1):
        graph[1, child, parent] = 1
        graph[2, parent, child] = 1
    return graph / graph.sum(dim=(0, 1))


class Block(nn.Module):
    """Graph convolution, then temporal convolution; (B, C, T, 22) -> (B, C', T / stride, 22)."""

    graph: Tensor

    def __init__(self, channels_in: int, channels: int, stride: int, skip: bool) -> None:
        super().__init__()
        self.register_buffer("graph", adjacency())
        self.edge_weight = nn.Parameter(torch.ones(3, JOINTS, JOINTS))
        self.spatial = nn.Conv2d(channels_in, 3 * channels, 1)
        self.temporal = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(
                channels,
                channels,
                (TEMPORAL_KERNEL, 1),
                (stride, 1),
                (TEMPORAL_KERNEL // 2, 0),
            ),
            nn.BatchNorm2d(channels),
        )
        self.skip: nn.Module | None = None
        if skip and (channels_in != channels or stride != 1):
            self.skip = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, (stride, 1)), nn.BatchNorm2d(channels)
            )
        elif skip:
            self.skip = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        parts = self.spatial(x).chunk(3, dim=1)  # each (B, C', T, 22)
        graph = (self.graph * self.edge_weight).reshape(3 * JOINTS, JOINTS)
        mixed = torch.cat(parts, dim=-1) @ graph
        out: Tensor = self.temporal(mixed)
        return torch.relu(out if self.skip is None else out + self.skip(x))


class StGcn(nn.Module):
    """(B, 3, 200, 22) accelerations by axis, frame and joint (0 where none is worn) -> (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(AXES * JOINTS)
        channels = [AXES, *(width for width, _ in BLOCKS)]
        self.blocks = nn.Sequential(
            *(
                Block(channels[i], width, stride, skip=i > 0)
                for i, (width, stride) in enumerate(BLOCKS)
            )
        )

    def forward(self, acc: Tensor) -> Tensor:
        """Embed windows, not normalised."""
        batch, axes, frames, joints = acc.shape
        flat = acc.permute(0, 3, 1, 2).reshape(batch, joints * axes, frames)
        x = self.norm(flat).reshape(batch, joints, axes, frames).permute(0, 2, 3, 1)
        result: Tensor = self.blocks(x).mean(dim=(2, 3))
        return result
