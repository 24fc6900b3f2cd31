"""The types of the values of a recipe's settings, with their bounds, which pydantic checks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from cliprl.engines.bundle.validation import MAX_SIDE, MAX_STEPS

Precision = Literal["f32", "bf16"]
DecoderKind = Literal["pyramid", "fused"]
TuningPrecision = Literal["auto", Precision]
Count = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[int, Field(ge=1, strict=True)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)]  # a million times it is a seed of torch too
ImageSide = Annotated[int, Field(ge=32, le=MAX_SIDE, strict=True)]
Number = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
PositiveNumber = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
PartialShare = Annotated[float, Field(ge=0, lt=1, strict=True)]
Severity = Annotated[float, Field(ge=0, le=5, strict=True)]
UnrolledSteps = Annotated[int, Field(ge=1, le=MAX_STEPS, strict=True)]
Variety = Annotated[float, Field(ge=0, le=4, strict=True)]  # OpenCV takes hours to fill views far outside an image
ZoomFactor = Annotated[float, Field(ge=0, le=10, strict=True)]
StrictText = Annotated[str, Field(strict=True)]
Texts = tuple[StrictText, ...]


class SettingsSection:
    """A section of a recipe, which pydantic validates when a file is loaded; an unknown name is an error."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid")
