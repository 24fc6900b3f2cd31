"""Classes named at run time: `--prompt "grasper"` adds one, or rewords one that the bundle has."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cliprl.engines import MAX_CLASSES, Bundle, ClassSpec, TextEngine, UsageError

Color = tuple[int, int, int]

_COLOR = re.compile(r"\s*#([0-9a-fA-F]{6})\s*$")
# Colors for classes that come without one: what differs most from all others is taken.
_HUES = [colorsys.hsv_to_rgb(step / 24, s, v) for step in range(24) for s, v in ((1, 1), (0.5, 1), (1, 0.6))]
PALETTE: tuple[Color, ...] = tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in _HUES)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One class as asked for: its name, the phrases that mean it, and its color (None: the program's choice)."""

    name: str
    phrases: tuple[str, ...]
    color: Color | None


def parse_prompt(text: str) -> Prompt:
    """Read "[NAME=]PHRASE[, PHRASE…] [#RRGGBB]". Without a name, the first phrase is it, with hyphens for spaces.

    Raises UsageError for an empty name or phrase, a color that is none, and bytes that are no text.
    """
    found = _COLOR.search(text)
    if text.encode("utf-8", "replace").decode() != text:
        raise UsageError(f"prompt {text!r} is not UTF-8: give it in the encoding of this terminal")
    if not found and "#" in text:
        raise UsageError(
            f"prompt '{text}' has a '#' without a color: end it with six hexadecimal digits, as in #FF8800"
        )
    color = _rgb(found[1]) if found else None
    words = text[: found.start()] if found else text
    name, equals, rest = words.partition("=")
    phrases = tuple(" ".join(phrase.split()) for phrase in (rest if equals else words).split(","))
    name = " ".join(name.split()) if equals else "-".join(phrases[0].lower().split())
    if not name or not all(phrases):
        raise UsageError(f"prompt '{text}' leaves a name or a phrase empty: give [NAME=]PHRASE[, PHRASE] [#RRGGBB]")
    return Prompt(name, phrases, color)


def _rgb(digits: str) -> Color:
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def with_prompts(bundle: Bundle, prompts: Sequence[str]) -> Bundle:
    """The bundle with classes added, or reworded where the name is one it has; nothing else of it changes.

    Raises UsageError for a bundle without a text network, a prompt that can't be read, a name given twice, and more
    classes than the networks take.
    """
    if not prompts:
        return bundle
    engine = TextEngine(bundle)
    classes, embeddings = list(bundle.manifest.classes), list(bundle.embeddings)
    if isinstance(prompts, str):
        raise UsageError(f"prompts '{prompts}' is one text: give a list, as in ['grasper']")
    asked = [parse_prompt(text) for text in prompts]
    _check_names([prompt.name for prompt in asked])
    for prompt in asked:
        names = [spec.name for spec in classes]
        place = names.index(prompt.name) if prompt.name in names else len(classes)
        spec = _spec(prompt, classes, place)
        for phrase in prompt.phrases:
            engine.check(phrase)
        classes[place : place + 1] = [spec]
        embeddings[place : place + 1] = [engine.embed_class(spec)]
    if len(classes) > MAX_CLASSES:
        raise UsageError(
            f"{len(classes)} classes are more than the {MAX_CLASSES} that the networks take: leave some out"
        )
    manifest = replace(bundle.manifest, classes=tuple(classes))
    return replace(bundle, manifest=manifest, embeddings=np.stack(embeddings), confidence=None)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"prompts name the class '{name}' twice: join their phrases, as {name}=ONE, OTHER")


def _spec(prompt: Prompt, classes: Sequence[ClassSpec], place: int) -> ClassSpec:
    if place < len(classes):
        old = classes[place]
        return replace(old, prompts=prompt.phrases, color=prompt.color or old.color)
    color = prompt.color or unlike([spec.color for spec in classes])
    return ClassSpec(prompt.name, color, "prompted", prompt.phrases)


def unlike(taken: Sequence[Color]) -> Color:
    """The palette's color that is farthest from all that are taken."""
    return max(PALETTE, key=lambda color: min(np.abs(np.subtract(color, other)).sum() for other in taken))
