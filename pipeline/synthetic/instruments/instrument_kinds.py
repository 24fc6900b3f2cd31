"""Kinds of instruments: of what parts each is made, of what stuff, and how often it is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cliprl.pipeline.synthetic.classes import CLASPER, NEEDLE, PROBE, SHAFT, SUCTION, WRIST
from cliprl.pipeline.synthetic.instruments.part_shapes import (
    blade,
    clevis,
    hook,
    jaw,
    needle,
    round_end,
    sleeve,
    ultrasound_probe,
)
from cliprl.pipeline.synthetic.instruments.sprites import Outline

Rng = np.random.Generator


@dataclass(slots=True)
class PartPlan:
    """One part: its class, outline and stuff; the part it hangs on (-1: the shaft), and by how it may turn there.

    mirrored: the lower one of a pair of jaws. opens: it turns with the jaws' angle. swing: its own turning, radians.
    """

    label: int
    outline: Outline
    stuff: str
    parent: int = -1
    mirrored: bool = False
    opens: bool = False
    swing: float = 0.0
    at: tuple[float, float] | None = None  # where on the parent it hangs; None: at its far end


@dataclass(slots=True)
class InstrumentPlan:
    """An instrument: what a caption calls it, its shaft's class, stuff and relative thickness, and its parts."""

    phrase: str
    shaft_label: int
    shaft_stuff: str
    parts: list[PartPlan]
    gape: float = 0.5  # the jaws' widest opening, radians
    shaft_width: float = 1.0


_SHAFTS = (
    ["carbon"] * 8 + ["dark gray"] * 5 + ["steel"] * 5 + ["dull steel"] * 5 + ["white"] * 3 + ["blue", "beige", "green"]
)
_TIPS = ["steel"] * 6 + ["dull steel"] * 3 + ["dark gray", "gold", "carbon"]


def _pick(rng: Rng, stuffs: list[str]) -> str:
    return stuffs[int(rng.integers(len(stuffs)))]


def _pair(rng: Rng, style: str, parent: int, stuff: str) -> list[PartPlan]:
    """Two jaws; those of scissors and clips are alike, others may differ a little."""
    upper = jaw(rng, style)
    return [PartPlan(CLASPER, upper, stuff, parent, mirrored, True) for mirrored in (False, True)]


def _robotic(style: str, phrase: str) -> Callable[[Rng], InstrumentPlan]:
    def build(rng: Rng) -> InstrumentPlan:
        stuff = _pick(rng, _TIPS)
        joint = stuff if rng.random() < 0.7 else _pick(rng, ["gold", "beige", "steel", "dark gray"])
        # A metal collar belongs to the shaft, as in EndoVis 2017 and 2018: the wrist begins where it can turn.
        parts = [PartPlan(SHAFT, sleeve(rng), stuff), PartPlan(WRIST, clevis(rng), joint, 0, swing=0.5)]
        if rng.random() < 0.5:
            parts.append(PartPlan(WRIST, clevis(rng), joint, 1, swing=0.3))
        shaft = "carbon" if rng.random() < 0.5 else _pick(rng, _SHAFTS)
        jaws = _pair(rng, style, len(parts) - 1, stuff)
        held = []
        if style == "needle driver" and rng.random() < 0.7:
            held = [PartPlan(NEEDLE, needle(rng), "steel", len(parts), at=(rng.uniform(0.6, 1.2), 0.0))]
        return InstrumentPlan(phrase, SHAFT, shaft, [*parts, *jaws, *held], rng.uniform(0.1, 0.9))

    return build


def _straight(style: str, phrase: str) -> Callable[[Rng], InstrumentPlan]:
    def build(rng: Rng) -> InstrumentPlan:
        stuff = _pick(rng, _TIPS)
        parts = [PartPlan(SHAFT, sleeve(rng), stuff)] if rng.random() < 0.8 else []
        return InstrumentPlan(
            phrase, SHAFT, _pick(rng, _SHAFTS), parts + _pair(rng, style, len(parts) - 1, stuff), rng.uniform(0.05, 0.9)
        )

    return build


def _hook(rng: Rng) -> InstrumentPlan:
    collar = PartPlan(SHAFT, sleeve(rng), _pick(rng, ["white", "beige", "carbon", "steel"]))
    parts = [collar, PartPlan(CLASPER, hook(rng), _pick(rng, _TIPS), 0)]
    return InstrumentPlan("a hook", SHAFT, _pick(rng, _SHAFTS), parts)


def _blade(rng: Rng) -> InstrumentPlan:
    parts = [PartPlan(CLASPER, blade(rng), _pick(rng, [*_TIPS, "white"]))]
    return InstrumentPlan("a spatula", SHAFT, _pick(rng, _SHAFTS), parts)


def _rod(rng: Rng) -> InstrumentPlan:
    stuff = _pick(rng, _SHAFTS)
    return InstrumentPlan("a blunt rod", SHAFT, stuff, [PartPlan(SHAFT, round_end(rng, False), stuff)])


def _suction(rng: Rng) -> InstrumentPlan:
    stuff = _pick(rng, ["steel", "dull steel", "steel", "dark gray", "carbon", "white"])
    tip = PartPlan(SUCTION, round_end(rng, True), stuff if rng.random() < 0.6 else "steel")
    return InstrumentPlan("a suction tube", SUCTION, stuff, [tip])


def _ultrasound(rng: Rng) -> InstrumentPlan:
    body = PartPlan(
        PROBE, ultrasound_probe(rng), _pick(rng, ["blue", "white", "beige", "dark gray", "dull steel"]), swing=0.3
    )
    return InstrumentPlan(
        "an ultrasound probe",
        PROBE,
        _pick(rng, ["carbon", "white", "beige", "dark gray"]),
        [body],
        0.5,
        rng.uniform(0.3, 0.9),
    )


WEIGHTED_KINDS: tuple[tuple[float, Callable[[Rng], InstrumentPlan]], ...] = (
    (3.0, _robotic("fenestrated", "a robotic grasper")),
    (2.0, _robotic("grasper", "a robotic grasper")),
    (1.5, _robotic("maryland", "a bipolar forceps")),
    (2.5, _robotic("needle driver", "a needle driver")),
    (1.5, _robotic("scissors", "robotic scissors")),
    (1.0, _robotic("clip applier", "a clip applier")),
    (2.0, _straight("grasper", "a grasper")),
    (1.5, _straight("fenestrated", "a fenestrated grasper")),
    (1.0, _straight("maryland", "a dissector")),
    (1.0, _straight("scissors", "scissors")),
    (2.0, _straight("sealer", "a vessel sealer")),
    (0.7, _straight("clip applier", "a clip applier")),
    (0.7, _straight("stapler", "a stapler")),
    (1.5, _hook),
    (1.2, _blade),
    (1.2, _rod),
    (2.0, _suction),
    (1.8, _ultrasound),
)


def plan_instrument(rng: Rng) -> InstrumentPlan:
    """Draw one kind of instrument, with its proportions."""
    weights = np.array([weight for weight, _ in WEIGHTED_KINDS])
    return WEIGHTED_KINDS[int(rng.choice(len(WEIGHTED_KINDS), p=weights / weights.sum()))][1](rng)
