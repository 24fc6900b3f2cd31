"""The classes of a run: those that prompts and exemplars add to the bundle, and those that `--classes` selects."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from cliprl.engines import Bundle, ClassSpec, UsageError, open_bundle
from cliprl.pipeline.segment.prompts import with_prompts


def open_with_classes(name: str, prompts: Sequence[str], exemplars: Sequence[str]) -> Bundle:
    """Open a bundle, and add or change classes: see `with_prompts`, then `with_exemplars`. Raises what these raise."""
    bundle = with_prompts(open_bundle(name), prompts)
    if not exemplars:
        return bundle
    # Loaded here, for few runs need them.
    from cliprl.pipeline.segment.exemplars import with_exemplars
    from cliprl.pipeline.sources.factory import read_first_frame

    return with_exemplars(bundle, exemplars, read_first_frame)


def select_classes(words: Sequence[str], classes: Sequence[ClassSpec]) -> tuple[str, ...]:
    """The names of the classes that `words` name, in the order of `classes`, without the background.

    A word is a class, the beginning of several before a hyphen ("instrument": instrument-shaft, instrument-wrist), or several
    words with commas between them. Raises UsageError, with the nearest names, for a word that is none of these.
    """
    names = [spec.name for spec in classes if spec.kind != "background"]
    found: set[str] = set()
    for word in words:
        parts = [word] if word in names else [part.strip() for part in word.split(",") if part.strip()]
        for part in parts or [word]:
            found.update(_matching(part, names))
    return tuple(name for name in names if name in found)


def _matching(word: str, names: Sequence[str]) -> list[str]:
    sought = word.casefold()
    same = [name for name in names if name.casefold() == sought]
    group = [name for name in names if sought and name.casefold().startswith(f"{sought}-")]
    if same or group:
        return same or group
    groups = {name.rsplit("-", i)[0] for name in names for i in range(1, name.count("-") + 1)}
    near = get_close_matches(sought, [*names, *sorted(groups - set(names))], 3, 0.5)
    hint = f"did you mean {' or '.join(near)}? The classes are" if near else "one of"
    raise UsageError(f"unknown class '{word}': {hint} {', '.join(names)}")
