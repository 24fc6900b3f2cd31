"""A sentence on what is in an image, written from its labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cliprl.pipeline.synthetic.raster import Image

_SEEN = 0.04  # the share of the image from which on tissue is worth a word
_NOTICED = 0.0015  # the same for an instrument


def tissues(regions: Image, phrases: Sequence[str], limit: int = 3) -> list[str]:
    """The phrases of the regions that fill most of the image; `regions` (h, w), 255 where none is seen."""
    areas: dict[str, int] = {}
    for index, area in enumerate(np.bincount(regions.ravel(), minlength=256)[: len(phrases)]):
        areas[phrases[index]] = areas.get(phrases[index], 0) + int(area)
    seen = [phrase for phrase in areas if areas[phrase] > _SEEN * regions.size]
    return sorted(seen, key=lambda phrase: -areas[phrase])[:limit]


def _where(mask: Image) -> str:
    """ "on the left", "in the upper right", …, by the middle of a mask."""
    rows, columns = np.nonzero(mask)
    x, y = columns.mean() / mask.shape[1], rows.mean() / mask.shape[0]
    across = "left" if x < 0.4 else "right" if x > 0.6 else ""
    down = "upper" if y < 0.35 else "lower" if y > 0.65 else ""
    if across and down:
        return f"in the {down} {across}"
    if across:
        return f"on the {across}"
    return f"in the {down} middle" if down else "in the middle"


def _sized(phrase: str, share: float) -> str:
    """The phrase with a word for a very small or very large thing."""
    word = "small" if share < 0.015 else "large" if share > 0.12 else ""
    if not word:
        return phrase
    bare = phrase.removeprefix("an ").removeprefix("a ")
    return f"a {word} {bare}" if bare != phrase else f"{word} {bare}"


def things(owner: Image, phrases: Sequence[str]) -> list[str]:
    """Each visible instrument, with its size and place; `owner` (h, w) holds their numbers, from 1."""
    seen = []
    for number, phrase in enumerate(phrases, 1):
        mask = np.asarray(owner == number, np.uint8)
        share = float(mask.mean())
        if share > _NOTICED:
            seen.append(f"{_sized(phrase, share)} {_where(mask)}")
    return seen


def sentence(tissue: Sequence[str], instruments: Sequence[str], remarks: Sequence[str]) -> str:
    """The caption of a view."""
    ground = " and ".join(tissue) if tissue else "tissue"
    text = f"a laparoscopic view of {ground}"
    if instruments:
        text += " with " + " and ".join(instruments)
    return ", ".join([text, *remarks])
