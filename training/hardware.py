"""What a run computes on: one CPU, one GPU, or many processes that `torchrun` started.

Everything that differs between them is here; the rest of training asks a `Hardware`.

Many processes train as one: each embeds its share of the joint batch, the embeddings are gathered
with their gradients, and every process computes the loss of the joint batch, all negatives
included.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from firmware_bridge.errors import AuraError, InputError

T = TypeVar("T")

DEVICES = ("auto", "cpu", "cuda")

_PATIENCE = timedelta(days=1)
"""How long processes wait for the first one, which may have to cut every window beforehand."""


@dataclass(frozen=True)
class Hardware:
    """What this process computes on, and its place among the processes that train together."""

    device: torch.device
    bf16: bool
    """Forward passes in bfloat16 where that is safe (autocast)."""

    compiled: bool
    fused: bool
    """One kernel for the whole optimizer step."""

    rank: int = 0
    processes: int = 1
    _group: dist.ProcessGroup | None = None
    """For Python objects: on the CPU, and with more patience than the one for gradients."""

    @classmethod
    def alone(cls, device: str) -> Hardware:
        """This process alone, on "cpu", "cuda" or whichever is there ("auto").

        Raises:
            InputError: there is no such device.
        """
        if device not in DEVICES:
            raise InputError(f"unknown device {device!r}; accepted: {', '.join(DEVICES)}")
        there = torch.cuda.is_available()
        if device == "cuda" and not there:
            raise InputError("no CUDA device was found; train on the CPU with --device cpu")
        if device == "cpu" or not there:
            return cls(torch.device("cpu"), bf16=_has_matrix_unit(), compiled=False, fused=False)
        index = int(os.environ.get("LOCAL_RANK", "0"))
        if index >= torch.cuda.device_count():
            raise InputError(
                f"process {index} of this machine has no GPU of its own, there are "
                f"{torch.cuda.device_count()}; start fewer (torchrun --nproc_per_node)"
            )
        torch.cuda.set_device(index)
        torch.set_float32_matmul_precision("high")  # TF32 where bfloat16 is not used
        return cls(torch.device("cuda", index), bf16=True, compiled=True, fused=True)

    @classmethod
    @contextmanager
    def joined(cls, device: str) -> Iterator[Hardware]:
        """This process among those that `torchrun` started; without torchrun, alone.

        Raises:
            InputError: there is no such device.
        """
        own = cls.alone(device)
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield own
            return
        dist.init_process_group("nccl" if own.device.type == "cuda" else "gloo")
        try:
            # Only processes outside a group are handed something else; all of ours are in it.
            group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_PATIENCE))
            rank, processes = dist.get_rank(), dist.get_world_size()
            yield cls(own.device, own.bf16, own.compiled, own.fused, rank, processes, group)
        finally:
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and talks."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """The rows of a joint batch that this process embeds.

        Raises:
            InputError: the batch cannot be split evenly.
        """
        if batch % self.processes:
            raise InputError(
                f"a batch of {batch} windows cannot be split evenly between {self.processes} "
                f"processes; --batch has to be a multiple of {self.processes}"
            )
        size = batch // self.processes
        return slice(self.rank * size, (self.rank + 1) * size)

    def from_leader(self, make: Callable[[], T]) -> T:
        """What the first process makes, in every process.

        Raises:
            AuraError: what `make` raised; the other processes exit without a word.
        """
        if self.processes == 1:
            return make()
        box: list[Any] = [None]
        if self.leads:
            try:
                box[0] = make()
            except AuraError as error:
                box[0] = error
        dist.broadcast_object_list(box, src=0, group=self._group)
        if isinstance(box[0], AuraError):
            raise box[0] if self.leads else SystemExit(box[0].exit_code)
        return cast(T, box[0])

    def leader_first(self, make: Callable[[], T]) -> T:
        """What each process makes for itself, after the first one did: it fills caches.

        Raises:
            AuraError: what `make` raised in the first process.
        """
        made: list[T] = []
        self.from_leader(lambda: made.append(make()))
        return made[0] if made else make()

    def to_leader(self, value: T) -> list[T]:
        """The values of all processes in the order of their ranks; empty except in the first."""
        if self.processes == 1:
            return [value]
        values: list[Any] | None = [None] * self.processes if self.leads else None
        dist.gather_object(value, values, dst=0, group=self._group)
        return values or []

    def gather(self, own: Tensor) -> Tensor:
        """(B / processes, D) rows of this process -> (B, D) of all, with gradients."""
        if self.processes == 1:
            return own
        gathered: Tensor = _Gather.apply(own)
        return gathered

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over the processes."""
        if self.processes == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, devices, broadcast_buffers=False)

    def autocast(self) -> torch.autocast:
        """Within it, matrix products are computed in bfloat16 if this hardware does so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def synchronize(self) -> None:
        """Wait until the device has done what it was told: a GPU works on its own meanwhile."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def random_state(self) -> list[Tensor]:
        """The state of torch's own random numbers, which drive dropout."""
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        return states

    def set_random_state(self, states: list[Tensor]) -> None:
        """Go on from a state that `random_state` gave on a device of this kind."""
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)


def _has_matrix_unit() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (Intel AMX)."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux: nobody says
        return False


class _Gather(torch.autograd.Function):
    """Rows of all processes to every process.

    Every process computes the same loss of the same rows, so what reaches a process' own rows is
    already their whole gradient, and nothing has to be sent back. DistributedDataParallel averages
    the gradients of the weights over the processes where the joint batch sums them: hence the
    factor.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        """(B / processes, D) -> (B, D)."""
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """(B, D) -> (B / processes, D)."""
        rank, processes = dist.get_rank(), dist.get_world_size()
        return gradients[0].chunk(processes)[rank] * processes
