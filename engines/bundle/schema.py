"""The schema of a manifest file. Import it only where `manifest_file` leaves one to it: pydantic takes a tenth of a start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cliprl.engines.bundle.validation import MAX_CLASSES, MAX_CONTEXT, MAX_SIDE, MAX_STEPS, MAX_TEMPLATES, MAX_TEXT
from cliprl.engines.errors import BundleError, UsageError, first_fault

# Printable text on one line; a template holds {} once and no other brace; a file name is a plain one in the bundle's folder.
PlainText = Annotated[str, Field(min_length=1, max_length=MAX_TEXT, pattern=r"^(?: |[^\p{C}\p{Z}])+$")]
Template = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT, pattern=r"^(?: |[^\p{C}\p{Z}{}])*\{\}(?: |[^\p{C}\p{Z}{}])*$")
]
FileName = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT, pattern=r"^(?: |[^\p{C}\p{Z}./\\])(?: |[^\p{C}\p{Z}/\\])*$")
]
Byte = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Class(_Strict):
    name: PlainText
    color: tuple[Byte, Byte, Byte]
    kind: Literal["background", "tissue", "instrument", "prompted"]
    prompts: Annotated[tuple[PlainText, ...], Field(max_length=MAX_TEMPLATES)] = ()
    shown: bool = True


class _Input(_Strict):
    height: Side
    width: Side
    stride: Literal[1, 2, 4, 8, 16, 32]


class _Text(_Strict):
    context: int = Field(ge=3, le=MAX_CONTEXT)
    templates: Annotated[tuple[Template, ...], Field(min_length=1, max_length=MAX_TEMPLATES)]


class _Restoration(_Strict):
    noise: float = Field(gt=0, le=1)
    strength: float = Field(ge=0, le=10)
    light: float = Field(ge=0, le=255)
    haze: float = Field(ge=0, le=255)
    clearing: float = Field(ge=0, lt=1)
    least: float = Field(ge=0, lt=1)
    note: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    dark: float = Field(default=0.0, ge=0, le=255)
    patch: int = Field(default=5, ge=3, le=15)
    search: int = Field(default=9, ge=3, le=35)
    uneven: bool = False
    memory: float = Field(default=0.0, ge=0, lt=1)


class _Regions(_Strict):
    threshold: float = Field(gt=0, lt=1)
    share: float = Field(ge=0, lt=1)
    zoomed: float = Field(default=0.0, ge=0, lt=1)


class ManifestSchema(_Strict):
    """The fields of a manifest file, each with its type and bounds; other fields are ignored."""

    name: PlainText
    classes: Annotated[tuple[_Class, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    input: _Input
    steps: int = Field(ge=0, le=MAX_STEPS)
    hashes: dict[FileName, str]
    training: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    text: _Text | None = None
    restoration: _Restoration | None = None
    part_share: Annotated[float, Field(gt=0, le=1)] | None = None
    regions: _Regions | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> ManifestSchema:
        if self.input.height % self.input.stride or self.input.width % self.input.stride:
            raise ValueError("input: height and width must be multiples of stride")
        if len({each.name for each in self.classes}) < len(self.classes):
            raise ValueError("classes: two have the same name")
        return self


def check_manifest(data: Mapping[str, Any]) -> None:
    """Raise UsageError, with the first wrong field, for the JSON values of a manifest with which no bundle can be sealed."""
    try:
        ManifestSchema.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise UsageError(
            f"a bundle can't hold this name, size or class: {first_fault(error)}; change it in the recipe or the data set"
        ) from error


def validated(data: Mapping[str, Any], file: str) -> ManifestSchema:
    """Check the JSON values of a manifest. Raises BundleError that names the first wrong field, the rule and the value."""
    try:
        return ManifestSchema.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise BundleError(f"{file}: {first_fault(error)}; write the bundle again") from error
