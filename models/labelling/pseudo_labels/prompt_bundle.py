"""The classes of a bundle as prompts see them: each prompt competes with what means something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, ClassSpec
from cliprl.pipeline.segment.prompts import with_prompts

# A class of the bundle means the same as a prompt from this cosine of their embeddings on: it does not compete with the prompt.
SYNONYM = 0.7
UNPROMPTED = ClassSpec("background", (0, 0, 0), "background", ("background tissue in a surgical video",))


@dataclass(frozen=True, slots=True)
class PromptBundle:
    """A bundle whose last classes are the prompts, from row `first` on, and the classes of the labels: background, prompts."""

    bundle: Bundle
    first: int
    classes: tuple[ClassSpec, ...]

    @classmethod
    def of(cls, bundle: Bundle, prompts: Sequence[str]) -> PromptBundle:
        """Name the prompts, and leave out the bundle's classes that mean the same. Raises what `with_prompts` raises."""
        named = with_prompts(bundle, prompts)
        specs, embeddings = named.manifest.classes, named.embeddings
        before = {spec.name: spec for spec in bundle.manifest.classes}
        asked = [i for i, spec in enumerate(specs) if before.get(spec.name) != spec]
        others = [i for i in range(len(specs)) if i not in asked]
        kept = [i for i in others if not asked or (embeddings[asked] @ embeddings[i]).max() < SYNONYM]
        # Prompted, so that the presence test applies to them.
        classes = (*(specs[i] for i in kept), *(replace(specs[i], kind="prompted") for i in asked))
        labelled = (UNPROMPTED, *(replace(specs[i], kind=kind_of(embeddings[i], bundle)) for i in asked))
        manifest = replace(named.manifest, classes=classes)
        return cls(replace(named, manifest=manifest, embeddings=embeddings[[*kept, *asked]]), len(kept), labelled)


def kind_of(embedding: NDArray[np.float32], bundle: Bundle) -> str:
    """Return "instrument" or "tissue": the kind of the bundle's class, other than the background, nearest to a text (E,)."""
    near = np.argsort(-(bundle.embeddings @ embedding))
    kinds = [bundle.manifest.classes[i].kind for i in near]
    return next((kind for kind in kinds if kind in ("instrument", "tissue")), "instrument")
