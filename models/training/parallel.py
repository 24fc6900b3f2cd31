"""One process or many, on the CPU or on GPUs: what each draws of a batch, and how their gradients become one.

Many are started by torchrun; Lightning Fabric joins them (gloo on CPUs, nccl on GPUs) and says which device is whose. A recipe's
batch is that of all processes together, so that the same recipe learns the same on any number of them: each draws its share
of the batch's samples, and where a loss is not a mean over samples its parts are gathered from all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.overrides import TorchFunctionMode

from cliprl.engines import UsageError, available_cpus

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("f32", "bf16")


def launch(device: str = "auto") -> torch.device:
    """Join the processes that torchrun started, if it did; returns this one's device.

    Raises UsageError for a device that is unknown or not there.
    """
    if device not in DEVICES:
        raise UsageError(f"no device '{device}': one of {', '.join(DEVICES)}")
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


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_cpus() -> int:
    """How many of this machine's processors are this process's, where they are shared with those that torchrun started."""
    return max(1, available_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def batch_share(batch: int, name: str = "the batch") -> range:
    """The numbers of a batch's samples that this process draws. Raises UsageError where processes can't share it evenly."""
    part, rest = divmod(batch, world_size())
    if rest or not part:
        raise UsageError(
            f"{name} is {batch}, which {world_size()} processes can't share evenly: make it a multiple of that"
        )
    return range(part * rank(), part * (rank() + 1))


def gather_rows(x: Tensor) -> Tensor:
    """The rows (B, ...) of all processes in their order; x itself where there is one process.

    The gradient of a process's own rows is scaled so that the mean over processes (`mean_gradients`) is that of the whole.
    """
    if world_size() == 1:
        return x
    rows = [torch.empty_like(x) for _ in range(world_size())]
    distributed.all_gather(rows, x.detach().contiguous())
    rows[rank()] = world_size() * x - (world_size() - 1) * x.detach()
    return torch.cat(rows)


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum over processes of a tensor of any shape, with a gradient as above."""
    return gather_rows(x[None]).sum(0) if world_size() > 1 else x


def mean_gradients(module: nn.Module) -> None:
    """Replace the gradients of a module's parameters by their means over the processes, in one message."""
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
    """The body runs in process 0, and then in the others, which find what it made."""
    if world_size() > 1 and rank():
        distributed.barrier()
    yield
    if world_size() > 1 and not rank():
        distributed.barrier()


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision for a forward pass: "bf16", or "f32" for none. Raises UsageError for another."""
    if precision not in PRECISIONS:
        raise UsageError(f"no precision '{precision}': one of {', '.join(PRECISIONS)}")
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    return _both(mixed, _GroupsInFull()) if precision == "bf16" and device.type == "cpu" else mixed


@contextmanager
def _both(outer: AbstractContextManager[object], inner: AbstractContextManager[object]) -> Iterator[None]:
    with outer, inner:
        yield


class _GroupsInFull(TorchFunctionMode):
    """Convolutions in groups that learn stay in f32: on CPUs their gradient takes five times as long in bf16, so that a step
    of a tower with many of them would cost as much as in f32."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is torch.conv2d and _grouped(*args) and args[1].requires_grad and torch.is_grad_enabled():
            with torch.autocast("cpu", enabled=False):
                return func(args[0].float(), *args[1:], **named)
        return func(*args, **named)


def _grouped(*arguments: Any) -> bool:
    """Of conv2d's arguments as torch.nn.Conv2d gives them: input, weight, bias, stride, padding, dilation, groups."""
    return len(arguments) == 7 and arguments[6] != 1


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters lie."""
    return next(module.parameters()).device
