"""What the kernels in `prepare.cu`, `strips.cu` and `code.cu` do, by torch's own operators: see there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliprl.pipeline.cuda.kernels.kernel_arguments import CodeRead, CodeWrite, EndsOf, Levels, Narrow, Prepare, Strips
from cliprl.pipeline.cuda.torch_memory import Memory, stands_for, wide


@stands_for(Prepare)
def _prepare(a: Any, memory: Memory) -> None:
    left, top = a.crop_left, a.crop_top
    luma = memory.view(a.luma, (a.luma_height, a.luma_width), strides=(a.luma_pitch, 1))[top:, left:].float()
    half = ((a.luma_height + 1) // 2, (a.luma_width + 1) // 2, 2)
    chroma = memory.view(a.chroma, half, strides=(a.chroma_pitch, 2, 1))[top // 2 :, left // 2 :].float()
    size = (a.placed_height, a.placed_width)
    y = _fine(_shrunk(memory, luma, a.luma_y, a.luma_x, size))
    cb, cr = (_fine(_shrunk(memory, chroma[..., i], a.chroma_y, a.chroma_x, size)) for i in range(2))
    rgb = torch.stack([_converted(a, c, y, cb, cr) for c in range(3)], dim=-1)
    picture = memory.view(a.picture, (a.height, a.width, 3))
    inside = memory.inside(a.spans, a.height, a.width)
    assert inside is not None
    area = (slice(a.placed_top, a.placed_top + size[0]), slice(a.placed_left, a.placed_left + size[1]))
    picture.zero_()
    picture[area] = torch.where(inside[area][..., None], rgb, torch.zeros_like(rgb))


def _shrunk(memory: Memory, plane: Tensor, down: Any, across: Any, size: tuple[int, int]) -> Tensor:
    """A plane through the filters of both axes: float32, of `size`."""
    rows, columns = (
        _filter(memory, axis, count, length)
        for axis, count, length in ((down, size[0], plane.shape[0]), (across, size[1], plane.shape[1]))
    )
    shrunk: Tensor = rows @ (plane @ columns.T)
    return shrunk


def _filter(memory: Memory, axis: Any, count: int, length: int) -> Tensor:
    """An axis' taps as a matrix (count, length). Taps of no weight may lie beyond the end."""
    first, weight = memory.view(axis.first, (count,), "i4"), memory.view(axis.weight, (count, axis.taps), "f4")
    places = (first[:, None].long() + memory.range(axis.taps)).clamp(max=length - 1)
    taps: Tensor = torch.zeros((count, length), device=memory.device).scatter_add_(1, places, weight)
    return taps


def _fine(plane: Tensor) -> Tensor:
    return (plane * 256).round()


def _converted(a: Any, c: int, y: Tensor, cb: Tensor, cr: Tensor) -> Tensor:
    row = a.matrix[3 * c : 3 * c + 3]
    value = row[0] * y + row[1] * cb + row[2] * cr + a.offset[c] * 256
    rounded: Tensor = (value.round().clamp(0, 65535) * (1 / 256)).round().clamp(0, 255).to(torch.uint8)
    return rounded


@stands_for(Narrow)
def _narrow(a: Any, memory: Memory) -> None:
    source = memory.view(a.source, (a.height, a.width), "i2", (a.source_pitch, 2))
    target = memory.view(a.target, (a.height, a.width), strides=(a.target_pitch, 1))
    target.copy_(((wide(source) >> 6).float() * 0.25).round().clamp(0, 255))


@stands_for(Strips)
def _strip_cells(a: Any, memory: Memory) -> None:
    # Cells down begin in a cell's middle, so that this many lines reach beyond the last one read.
    height, width = a.cell // 2 + a.down * a.cell, a.pitch
    luma = memory.view(a.luma, (height, width), strides=(a.pitch, 1))
    first = memory.view(a.first, (2 * a.strips,), "i4").long()
    lines = first[:, None] + memory.range(a.lines)
    cells = memory.view(a.cells, (2 * a.strips, a.width), "f4")
    across = luma[:, : a.across * a.cell][lines[: a.strips]].to(torch.int32)
    sums = across.reshape(a.strips, a.lines, a.across, a.cell).sum((1, 3)).float()
    cells[: a.strips, : a.across] = (sums * float(np.float32(1) / np.float32(a.lines * a.cell))).round()
    down = luma[a.cell // 2 :: a.cell][: a.down][:, lines[a.strips :]].to(torch.int32)
    cells[a.strips :, : a.down] = (down.sum(-1).float() / a.lines).T


@stands_for(Levels)
def _strip_levels(a: Any, memory: Memory) -> None:
    cells = memory.view(a.cells, (2 * a.strips, a.stride), "f4")
    bright = memory.view(a.bright, (2 * a.strips + 1,), "f4")
    halves = ((0, a.across), (a.strips, a.down))
    for start, count in halves:
        part = cells[start : start + a.strips, :count]
        bright[start : start + a.strips] = part.sort(dim=1).values[:, count * 9 // 10]
    ends = [cells[start : start + a.strips, end] for start, count in halves for end in (0, count - 1)]
    outermost = torch.cat(ends).sort().values
    bright[-1] = outermost[len(outermost) // 5].clamp(a.lowest, a.highest)


@stands_for(EndsOf)
def _strip_ends(a: Any, memory: Memory) -> None:
    cells = memory.view(a.cells, (2 * a.strips, a.stride), "f4")
    bright = memory.view(a.bright, (2 * a.strips + 1,), "f4")
    distances = memory.view(a.distances, (2 * a.strips, 4), "f8")
    for start, count in ((0, a.across), (a.strips, a.down)):
        lines = slice(start, start + a.strips)
        for end, part in enumerate((cells[lines, :count], cells[lines, :count].flip(1))):
            for by_share in range(2):
                rise = ((bright[lines] - bright[-1]) * a.share).double() * by_share
                threshold = bright[-1].double() + rise.clamp(min=a.rise)
                distances[lines, 2 * end + by_share] = _distance(part, threshold, a.cell)


def _distance(cells: Tensor, threshold: Tensor, cell: int) -> Tensor:
    """How far from their beginning lines of cells rise above a threshold for three cells; -1 where they never do."""
    above = cells.double() > threshold[:, None]
    rising = above[:, 2:] & above[:, 1:-1] & above[:, :-2]
    start = rising.int().argmax(dim=1, keepdim=True)
    inside, outside = (cells.gather(1, place)[:, 0] for place in (start, (start - 1).clamp(min=0)))
    step = (inside - outside).clamp(min=1e-3).double()
    crossing = ((threshold - outside.double()) / step).clamp(0, 1)
    start = start[:, 0]
    found = torch.where(start > 0, (start - 0.5 + crossing) * cell, torch.zeros_like(crossing))
    return torch.where(rising.any(dim=1), found, torch.full_like(found, -1))


@stands_for(CodeWrite)
def _code_write(a: Any, memory: Memory) -> None:
    bits = memory.view(a.bits, (a.width // a.block,)).repeat_interleave(a.block, output_size=a.width)
    luma = memory.view(a.luma, (a.height, a.width), strides=(a.pitch, 1))
    luma.copy_(torch.where(bits != 0, a.light, a.dark).expand(a.height, -1))


@stands_for(CodeRead)
def _code_read(a: Any, memory: Memory) -> None:
    margin = a.block // 4
    inner = slice(margin, a.block - margin)
    blocks = memory.view(a.luma, (a.block, a.width, a.block), strides=(a.pitch, a.block, 1))
    sums = blocks[inner, :, inner].to(torch.int32).sum((0, 2))
    memory.view(a.bits, (a.width,)).copy_(sums > a.threshold * (a.block - 2 * margin) ** 2)
