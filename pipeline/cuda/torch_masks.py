"""What the kernels in `memory.cu`, `labels.cu` and `blend.cu` do, by torch's own operators: see there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cliprl.pipeline.cuda.kernels.kernel_arguments import (
    Advance,
    Begin,
    Blend,
    Classify,
    Count,
    CutRows,
    Recall,
    Stamp,
    Total,
    TraceContours,
    Upsample,
)
from cliprl.pipeline.cuda.torch_memory import Memory, stands_for, wide


@stands_for(CutRows)
def _cut_rows(a: Any, memory: Memory) -> None:
    line = 3 * a.picture_width
    now = memory.view(a.picture, (a.width, a.columns, 3), strides=(a.stride * line, 3 * a.stride, 1))
    thumb = memory.view(a.thumb, (a.width, a.columns, 3))
    memory.view(a.sums, (a.width,), "i4").copy_((now.int() - thumb.int()).abs().sum((1, 2)))
    thumb.copy_(now)


@stands_for(Begin)
def _begin(a: Any, memory: Memory) -> None:
    fresh, cut = (memory.view(address, (1,), "i4") for address in (a.fresh, a.cut))
    total = memory.view(a.sums, (a.rows,), "i4").sum(dtype=torch.float32)
    cut.copy_((fresh != 0) | (total > a.most))
    fresh.zero_()
    memory.view(a.present, (a.classes,)).zero_()


@stands_for(Recall)
def _recall(a: Any, memory: Memory) -> None:
    shape = (a.height // a.lines, a.lines, a.width)
    base, last, prior = (memory.view(address, shape, "f4") for address in (a.base, a.last, a.prior))
    warp, cut = memory.view(a.warp, (4,), "f4"), memory.view(a.cut, (1,), "i4")
    u, v = warp[0] * memory.range(a.width) + warp[1], warp[2] * memory.range(a.lines) + warp[3]
    left, top = u.floor(), v.floor()
    columns = [(left + i).long().clamp(0, a.width - 1) for i in range(2)]
    upper, lower = (last[:, (top + i).long().clamp(0, a.lines - 1)] for i in range(2))
    rows = [_between(line[..., columns[0]], line[..., columns[1]], u - left) for line in (upper, lower)]
    prior.copy_(torch.where(cut != 0, base, _between(rows[0], rows[1], (v - top)[:, None])))


def _between(low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    return low * (1 - weight) + high * weight


@stands_for(Advance)
def _advance(a: Any, memory: Memory) -> None:
    before, after = (memory.view(address, (4,), "i4") for address in (a.before, a.after))
    moved_before, moved_after = (memory.view(address, (1,), "f4") for address in (a.before, a.after))
    refined, logits = (memory.view(address, (a.width,), "f4") for address in (a.refined, a.logits))
    moved, settled = memory.view(a.moved, (1,), "f4"), before[2:3] != 0
    logits.copy_(torch.where(settled, logits, refined))
    after[1:2] = before[1:2] + ~settled
    after[2:3] = settled | (moved < a.settled)
    after[3:4] = before[3:4]
    moved_after.copy_(torch.where(settled, moved_before, moved))


@stands_for(Classify)
def _classify(a: Any, memory: Memory) -> None:
    size = (a.height, a.width)
    logits = memory.view(a.logits, (a.classes, *size), "f4")
    powers = (logits - logits.amax(dim=0)).exp()
    total = powers.sum(dim=0)
    memory.view(a.probabilities, (a.classes, *size), "f4").copy_(powers / total)
    inside = memory.inside(a.spans, *size)
    assert inside is not None
    memory.view(a.confidence, size, "f4").copy_(torch.where(inside, 1 / total, 0))
    labels = memory.view(a.labels, size)
    labels.copy_(torch.where(inside, logits.argmax(dim=0), 0))
    x0, y0, x1, y1 = memory.view(a.spans + 8 * a.height, (4,), "i4").unbind()
    x, y = memory.range(a.width), memory.range(a.height)[:, None]
    touched = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    wins = (labels == memory.range(a.classes)[:, None, None]) & touched
    present = memory.view(a.present, (a.classes,))
    present.copy_(present | wins.any(dim=2).any(dim=1))


@stands_for(Count)
def _count_lines(a: Any, memory: Memory) -> None:
    lines = memory.view(a.lines, (a.height, a.width), "f4")
    labels = memory.view(a.labels, (a.height, a.columns))
    lines[:, :-1] = (labels[:, None] == memory.range(a.width - 1)[:, None]).sum(dim=2).float()
    lines[:, -1] = memory.view(a.confidence, (a.height, a.columns), "f4").sum(dim=1)


@stands_for(Total)
def _total(a: Any, memory: Memory) -> None:
    memory.view(a.totals, (a.width,), "f4").copy_(memory.view(a.lines, (a.count, a.width), "f4").sum(dim=0))


@stands_for(Upsample)
def _upsample(a: Any, memory: Memory) -> None:
    grid = memory.view(a.probabilities, (a.classes, a.rows, a.columns), "f4")
    cells = grid[:, a.cells_top : a.cells_top + a.cells_high, a.cells_left : a.cells_left + a.cells_wide]
    cells = (cells * 65535).round()
    x = _taps(memory, a.target_wide, a.part_left, a.step_x, a.cells_wide)
    y = _taps(memory, a.target_high, a.part_top, a.step_y, a.cells_high)
    over, under = (_between(line[..., x[0]], line[..., x[1]], x[2]) for line in (cells[:, y[0]], cells[:, y[1]]))
    values = _between(over, under, y[2][:, None]).round()
    present = memory.view(a.present, (a.classes,)) != 0
    best = torch.where(present[:, None, None], values, -1).argmax(dim=0)
    labels = memory.view(a.labels, (a.height, a.width))
    area = (
        slice(a.target_top, a.target_top + a.target_high),
        slice(a.target_left, a.target_left + a.target_wide),
    )
    inside = memory.inside(a.spans, a.height, a.width)
    labels.zero_()
    labels[area] = (best if inside is None else torch.where(inside[area], best, 0)).to(torch.uint8)


def _taps(memory: Memory, count: int, first: int, step: float, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """The lower and the upper cell that each pixel lies between, and the upper's weight."""
    place = ((memory.range(count).double() + (first + 0.5)) * step - 0.5).float()
    low = place.floor()
    weight = torch.where((low < 0) | (low >= cells - 1), 0, place - low)
    lower = low.long().clamp(0, cells - 1)
    return lower, torch.where(low < 0, 0, (lower + 1).clamp(max=cells - 1)), weight


@stands_for(TraceContours)
def _trace(a: Any, memory: Memory) -> None:
    labels = memory.view(a.labels, (a.height, a.width))
    target = memory.view(a.map, (a.height, a.width))
    if a.core <= 0:
        target.copy_(labels)
        return
    # An octagon is a cross and a square in turn; another label is near where the largest or the least is not one's own.
    own = labels.float()[None, None]
    high, low, lift = own, -own, torch.zeros_like(own)
    for ring in range(a.soft):
        high, low = (_grown(each, square=ring % 2 == 1) for each in (high, low))
        if ring + 1 >= a.core:
            lift += (high != own) | (-low != own)
    inside = memory.inside(a.spans, a.height, a.width)
    lift = lift[0, 0] if inside is None else lift[0, 0] * inside
    target.copy_(labels + a.level * lift)


def _grown(plane: Tensor, *, square: bool) -> Tensor:
    """The largest of each place's neighbours, those along the diagonals included in a square."""
    if square:
        return functional.max_pool2d(plane, 3, 1, 1)
    rows = functional.max_pool2d(plane, (1, 3), 1, (0, 1))
    return torch.maximum(rows, functional.max_pool2d(plane, (3, 1), 1, (1, 0)))


@stands_for(Blend)
def _blend(a: Any, memory: Memory) -> None:
    size = (a.height, a.width)
    places = memory.view(a.map, size).long()
    keep, *add = wide(memory.view(a.inks, (4, 256), "i2"))[:, places]
    luma = memory.view(a.luma, (a.luma_height, a.luma_width), strides=(a.luma_pitch, 1))
    around = [
        functional.pad(plane.float()[None, None], (1, 1, 1, 1), mode="replicate")[0, 0] for plane in (keep, add[0])
    ]
    for q in range(4):
        part = luma[q // 2 :: 2, q % 2 :: 2]
        shown = [_smoothed(plane, q)[: part.shape[0], : part.shape[1]] for plane in around]
        part.copy_(_mixed(part, *shown))
    chroma = memory.view(a.chroma, (*size, 2), strides=(a.chroma_pitch, 2, 1))
    for i in range(2):
        chroma[..., i] = _mixed(chroma[..., i], keep, add[1 + i])


def _smoothed(padded: Tensor, q: int) -> Tensor:
    """Values halfway to those of the neighbours on the side of luma pixel `q` of four."""
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    beside, above = (2 if q % 2 else 0), (2 if q // 2 else 0)
    here, right, up, across = (
        padded[y : y + height, x : x + width] for y, x in ((1, 1), (1, beside), (above, 1), (above, beside))
    )
    return ((9 * here + 3 * right + 3 * up + across) * 0.0625).round().int()


def _mixed(values: Tensor, keep: Tensor, add: Tensor) -> Tensor:
    return ((values.int() * keep + add).clamp(max=65535) >> 8).to(torch.uint8)


@stands_for(Stamp)
def _stamp(a: Any, memory: Memory) -> None:
    size = (a.height, a.width)
    plane = memory.view(a.plane, size, strides=(a.pitch, 1))
    keep, add = (wide(memory.view(address, size, "i2")) for address in (a.keep, a.add))
    plane.copy_(_mixed(plane, keep, add))
