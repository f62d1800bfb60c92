"""The baselines have the shapes, sizes and known defects of what they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.baselines.aura_mfm import AuraMfm
from training.baselines.imagebind_imu import ImageBindImu
from training.baselines.imu2clip import Imu2Clip
from training.baselines.st_gcn import JOINTS, StGcn, adjacency


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def embed(model: nn.Module, *shape: int) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        out: Tensor = model.eval()(torch.randn(shape))
    assert torch.isfinite(out).all()
    return out


@pytest.mark.parametrize(
    ("model", "window", "dim", "parameters"),
    [
        (Imu2Clip(mend_axes=False), (6, 1000), 512, 838_656 + 12_160 + 76),
        (AuraMfm("SS", residual=True), (6, 1000), 512, 1_912_000),
        (AuraMfm("S", residual=True), (6, 1000), 512, 14_459_000),
        (ImageBindImu(), (6, 2000), 1024, 19_600_000),
        (StGcn(), (3, 200, 22), 512, 5_180_000),
    ],
)
def test_shapes_and_sizes(
    model: nn.Module, window: tuple[int, ...], dim: int, parameters: int
) -> None:
    assert embed(model, 2, *window).shape == (2, dim)
    assert n_parameters(model) == pytest.approx(parameters, rel=2e-3)


def test_imu2clip_as_published_steps_through_the_channels() -> None:
    """1000 samples leave 32 steps of 32 channels, so the exchanged axes go unnoticed."""
    published, mended = Imu2Clip(mend_axes=False), Imu2Clip(mend_axes=True)
    mended.load_state_dict(published.state_dict())
    assert not torch.allclose(embed(published, 2, 6, 1000), embed(mended, 2, 6, 1000), atol=1e-3)
    with pytest.raises(RuntimeError):
        embed(published, 2, 6, 500)
    assert embed(mended, 2, 6, 500).shape == (2, 512)


def test_aura_mfm_without_skip_connections_has_only_what_a_block_puts_out() -> None:
    """The same weights give another embedding; and where a block puts out nothing, the window is
    lost without skip connections and passes with them."""
    released, mended = AuraMfm("SS", residual=False), AuraMfm("SS", residual=True)
    mended.load_state_dict(released.state_dict())
    assert not torch.allclose(embed(released, 2, 6, 1000), embed(mended, 2, 6, 1000), atol=1e-3)
    for model in (released, mended):
        for name, parameter in model.blocks[2].named_parameters():
            if name.startswith(("mlp.2", "attention.out")):
                torch.nn.init.zeros_(parameter)
    lost, passed = embed(released, 2, 6, 1000), embed(mended, 2, 6, 1000)
    torch.testing.assert_close(lost[0], lost[1])
    assert not torch.allclose(passed[0], passed[1], atol=1e-3)


def test_st_gcn_mixes_each_joint_with_its_neighbours_only() -> None:
    graph = adjacency()
    torch.testing.assert_close(graph.sum(dim=(0, 1)), torch.ones(JOINTS))
    assert int((graph > 0).sum()) == JOINTS + 2 * (JOINTS - 1)
    assert graph[1, 1, 0] == graph[1, 5, 0] == graph[1, 9, 0] == 0.25  # root: itself, 3 children


def test_st_gcn_sees_a_single_sensor() -> None:
    """One worn joint, all others zero: how UniMTS is used with one device."""
    torch.manual_seed(0)
    model = StGcn().eval()
    acc = torch.zeros(1, 3, 200, 22)
    with torch.no_grad():
        nothing = model(acc)
        acc[:, :, :, 20] = torch.randn(1, 3, 200)
        assert not torch.allclose(model(acc), nothing)
