"""Data-parallel training: each process takes a share of the batch, and gradients are averaged over the processes.

torchrun starts the processes; Lightning Fabric connects them (gloo on CPUs, nccl on GPUs) and assigns the devices. The batch of a
recipe is divided among all processes, so that a recipe learns the same on any number of them. A loss that is not a mean over
samples gathers its parts from all processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.overrides import TorchFunctionMode

from cliprl.engines import UsageError, available_cpus
from cliprl.engines.backends.registry import backend_of

DEVICE_CHOICES = ("auto", "cpu", "cuda")
TRAINING_PRECISIONS = ("f32", "bf16")


def launch(device: str = "auto") -> torch.device:
    """Connect to the other processes of torchrun, if there are any, and return the device of this process.

    Raises UsageError for an unknown or unavailable device.
    """
    if device not in DEVICE_CHOICES:
        raise UsageError(f"no device '{device}': one of {', '.join(DEVICE_CHOICES)}")
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UsageError("device 'cuda' can't be used: torch sees no GPU; choose cpu")
    kind = "cuda" if there and device != "cpu" else "cpu"
    world, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if world == 1:
        return torch.device(kind)
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=kind, devices=local, num_nodes=world // local, strategy="ddp")
    fabric.launch()
    return fabric.device


def process_rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_cpus() -> int:
    """Return the number of processors for this process: the machine's, divided among its torchrun processes."""
    return max(1, available_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def batch_share(batch: int) -> range:
    """Return the sample numbers of a batch for this process. Raises UsageError if the batch cannot be divided evenly."""
    part, rest = divmod(batch, world_size())
    if rest or not part:
        raise UsageError(
            f"the batch is {batch}, which {world_size()} processes can't share evenly: make it a multiple of that"
        )
    return range(part * process_rank(), part * (process_rank() + 1))


def gather_rows(x: Tensor) -> Tensor:
    """Return the rows (B, ...) of all processes in order; x itself for a single process.

    Gradients are scaled so that their mean over processes (`mean_gradients`) is that of the whole batch.
    """
    if world_size() == 1:
        return x
    rows = [torch.empty_like(x) for _ in range(world_size())]
    distributed.all_gather(rows, x.detach().contiguous())
    rows[process_rank()] = world_size() * x - (world_size() - 1) * x.detach()
    return torch.cat(rows)


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum over processes of a tensor of any shape, with gradients scaled as in `gather_rows`."""
    return gather_rows(x[None]).sum(0) if world_size() > 1 else x


def mean_gradients(module: nn.Module) -> None:
    """Replace the gradients of a module by their means over the processes, in one message."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view(gradient.shape))


@contextmanager
def first_process_first() -> Iterator[None]:
    """Run the body in process 0 first, then in the other processes, which reuse its files."""
    if world_size() > 1 and process_rank():
        distributed.barrier()
    yield
    if world_size() > 1 and not process_rank():
        distributed.barrier()


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return a context for mixed precision: "bf16", or "f32" for none. Raises UsageError for another name.

    On a CPU without instructions for bf16, f32 is used: torch emulates bf16 there, and a step takes about ten times as long.
    """
    if precision not in TRAINING_PRECISIONS:
        raise UsageError(f"no precision '{precision}': one of {', '.join(TRAINING_PRECISIONS)}")
    mixes = precision == "bf16" and (device.type != "cpu" or cpu_has_bf16())
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=mixes)
    return _both(mixed, _GroupsInFull()) if mixes and device.type == "cpu" else mixed


@lru_cache
def cpu_has_bf16() -> bool:
    """Return whether this processor has instructions for bf16."""
    return not backend_of("openvino").lacks("bf16", ())


@contextmanager
def _both(outer: AbstractContextManager[object], inner: AbstractContextManager[object]) -> Iterator[None]:
    with outer, inner:
        yield


class _GroupsInFull(TorchFunctionMode):
    """Runs trained grouped convolutions in f32: on CPUs their bf16 gradient takes five times as long."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is torch.conv2d and _grouped(*args) and args[1].requires_grad and torch.is_grad_enabled():
            with torch.autocast("cpu", enabled=False):
                return func(args[0].float(), *args[1:], **named)
        return func(*args, **named)


def _grouped(*arguments: Any) -> bool:
    """Check the arguments that torch.nn.Conv2d gives to conv2d; the seventh is `groups`."""
    return len(arguments) == 7 and arguments[6] != 1


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's parameters."""
    return next(module.parameters()).device
