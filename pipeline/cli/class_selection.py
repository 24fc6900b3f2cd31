"""The bundle of a run: its input size, the classes that prompts and exemplars add, and those that `--classes` selects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from cliprl.engines import Bundle, ClassSpec, UsageError, open_bundle, with_input_size
from cliprl.engines.bundle.input_size import AUTO_SIZE
from cliprl.engines.bundle.manifest import UNSURE_PART
from cliprl.pipeline.core.interfaces import Source
from cliprl.pipeline.segment.prompts import with_prompts


def open_with_classes(
    name: str, prompts: Sequence[str], exemplars: Sequence[str], input_size: str | None = None
) -> Bundle:
    """Open a bundle at an input size, and add or change classes: see `with_prompts`, then `with_exemplars`.

    `input_size` "auto" is chosen later (see `fit_input_size`). Raises what these raise.
    """
    size = None if input_size == AUTO_SIZE else input_size
    bundle = with_prompts(with_input_size(open_bundle(name), size), prompts)
    if not exemplars:
        return bundle
    # Loaded here, for few runs need them.
    from cliprl.pipeline.segment.exemplars import with_exemplars
    from cliprl.pipeline.sources.factory import read_first_frame

    return with_exemplars(bundle, exemplars, read_first_frame)


def fit_to_source(
    bundle: Bundle,
    input_size: str | None,
    source: Source | None,
    settings: Mapping[str, Any],
    log: Callable[[str], None],
) -> Bundle:
    """Return the bundle at the input size that "auto" leaves to this machine and the frame rate of `source`.

    `settings`: device, precision and threads of the engines. Another `input_size` leaves the bundle as it is.
    """
    if input_size != AUTO_SIZE:
        return bundle
    from cliprl.pipeline.segment.auto_input_size import fit_input_size

    return fit_input_size(bundle, None if source is None else source.info, log=log, **settings)


def select_classes(words: Sequence[str], classes: Sequence[ClassSpec]) -> tuple[str, ...]:
    """The names of the classes that `words` name, in the order of `classes`, without the background.

    A word is a class, the beginning of several before a hyphen ("instrument": instrument-shaft, instrument-wrist, and the class
    of unsure parts), or several words with commas between them. Raises UsageError, with the nearest names, for a word that is
    none of these.
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
        return same + group if sought == UNSURE_PART else same or group
    groups = {name.rsplit("-", i)[0] for name in names for i in range(1, name.count("-") + 1)}
    near = get_close_matches(sought, [*names, *sorted(groups - set(names))], 3, 0.5)
    hint = f"did you mean {' or '.join(near)}? The classes are" if near else "one of"
    raise UsageError(f"unknown class '{word}': {hint} {', '.join(names)}")
