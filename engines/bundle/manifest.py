"""The manifest of a bundle, and the seal that shows whether a byte of it has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cliprl.engines.bundle.validation import MAX_CLASSES as MAX_CLASSES

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SEAL = "seal"
# The class above all instruments, in masks of a bundle with a `part_share`, and its color.
UNSURE_PART, UNSURE_PART_COLOR = "instrument", (0, 128, 128)


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """One class: its name, its color (R, G, B in 0..255), the prompts its embedding was made of, and its kind.

    `kind` is "background" (never painted), "tissue", "instrument", or "prompted": named at run time, of either kind. `shown`
    False: overlays and reports leave it out unless it is named.
    """

    name: str
    color: tuple[int, int, int]
    kind: str
    prompts: tuple[str, ...] = ()
    shown: bool = True


@dataclass(frozen=True, slots=True)
class TextSpec:
    """How a bundle's text network is used: `context` tokens a prompt, and the templates that a class's phrases are put into."""

    context: int
    templates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestorationSpec:
    """When a network input counts as damaged, and how it is restored before it is encoded.

    Only noisy and hazy frames are refined.

    noise: standard deviation of the noise, as a share of the mean brightness, above which an input is denoised. strength: that
    of the denoising filter, in standard deviations of the noise; `patch` and `search` are the sides of the patches that it
    compares and of the area in which it seeks alike ones, in pixels. light: mean brightness (0..255) that a darker noisy input is
    brightened to; one without that noise is too, if its mean brightness is below `dark`. haze: brightness (0..255) of the
    darkest tenth above which an input counts as hazy; `clearing` is the share of it that is subtracted, with `uneven` that of the
    haze around each pixel. least: a class with less probability than this before refinement is not raised by it. memory: the
    share that the last result, moved with the image, has in that of a noisy frame. note: how the values were chosen.
    """

    noise: float
    strength: float
    light: float
    haze: float
    clearing: float
    least: float
    note: str = ""
    dark: float = 0.0
    patch: int = 5
    search: int = 9
    uneven: bool = False
    memory: float = 0.0


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """What counts as instrument in a mask.

    threshold: probability of all instruments together above which a cell is instrument. share: connected regions of such cells
    that are smaller than this share of the network's grid are left out. zoomed: a region of less than this share is segmented
    again, in an enlarged part of the frame, before that; 0: none is.
    """

    threshold: float
    share: float
    zoomed: float = 0.0


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of a bundle. `height` and `width` are the network's input size in pixels, `steps` its default T.

    `text` is None for a bundle whose classes can't be changed. `restoration` is None for a bundle that refines every frame.
    `part_share`: with less than this share of the probability of all instruments, a part is unsure, and a mask has "instrument"
    instead; None: it has the likeliest class everywhere. `regions` is None for a bundle whose cells have their likeliest class.
    """

    name: str
    classes: tuple[ClassSpec, ...]
    height: int
    width: int
    stride: int
    steps: int
    hashes: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    text: TextSpec | None = None
    restoration: RestorationSpec | None = None
    part_share: float | None = None
    regions: RegionSpec | None = None

    @property
    def merged_parts(self) -> tuple[int, ...]:
        """The ids of all instruments, which a mask merges where they are unsure; empty if it never does."""
        parts = tuple(i for i, spec in enumerate(self.classes) if spec.kind == "instrument")
        taken = any(spec.name == UNSURE_PART for spec in self.classes)
        return () if self.part_share is None or taken or len(parts) < 2 else parts

    @property
    def mask_classes(self) -> tuple[ClassSpec, ...]:
        """The classes of a mask: those of the networks and, where parts may be unsure, "instrument" as the last one."""
        shown = any(self.classes[i].shown for i in self.merged_parts)
        merged = (ClassSpec(UNSURE_PART, UNSURE_PART_COLOR, "instrument", shown=shown),)
        return self.classes + (merged if self.merged_parts else ())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of `from_json`."""
        classes = [
            {"name": c.name, "color": list(c.color), "kind": c.kind, "prompts": list(c.prompts)}
            | ({} if c.shown else {"shown": False})
            for c in self.classes
        ]
        return {
            "format_version": self.format_version,
            "name": self.name,
            "classes": classes,
            "input": {
                "height": self.height,
                "width": self.width,
                "stride": self.stride,
                "layout": "NHWC",
                "dtype": "uint8",
                "color": "RGB",
            },
            "steps": self.steps,
            **({"text": {"context": self.text.context, "templates": list(self.text.templates)}} if self.text else {}),
            **({"restoration": asdict(self.restoration)} if self.restoration else {}),
            **({} if self.part_share is None else {"part_share": self.part_share}),
            **({"regions": asdict(self.regions)} if self.regions else {}),
            "hashes": dict(self.hashes),
            "training": dict(self.training),
            "scores": dict(self.scores),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """Read the manifest's JSON. Raises BundleError that names a missing or wrong field."""
        from cliprl.engines.bundle.schema import validated

        found = validated(data, MANIFEST)
        return cls(
            name=found.name,
            classes=tuple(ClassSpec(**each.model_dump()) for each in found.classes),
            **found.input.model_dump(),
            **found.model_dump(include={"steps", "hashes", "training", "scores", "part_share"}),
            text=TextSpec(**found.text.model_dump()) if found.text else None,
            restoration=RestorationSpec(**found.restoration.model_dump()) if found.restoration else None,
            regions=RegionSpec(**found.regions.model_dump()) if found.regions else None,
        )


def sealed_text(data: Mapping[str, Any]) -> str:
    """The text of a manifest file: `data` as JSON, with the SHA-256 of that JSON as its last field, "seal"."""
    bare = {key: value for key, value in data.items() if key != SEAL}
    digest = hashlib.sha256(_text(bare).encode()).hexdigest()
    return _text(bare | {SEAL: digest})


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def is_sealed(text: str) -> bool:
    """Whether a text ends as `sealed_text` does, with the seal of what stands before it."""
    content, _, seal = text.rpartition(f',\n  "{SEAL}": "')
    return seal == hashlib.sha256(f"{content}\n}}\n".encode()).hexdigest() + '"\n}\n'
