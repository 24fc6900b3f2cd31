"""The twelve classes of the EndoVis 2018 scene challenge, which every rendered scene is labelled with."""

from __future__ import annotations

from cliprl.engines import ClassSpec

BACKGROUND, SHAFT, CLASPER, WRIST, KIDNEY, COVERED_KIDNEY = 0, 1, 2, 3, 4, 5
THREAD, CLAMPS, NEEDLE, SUCTION, INTESTINE, PROBE = 6, 7, 8, 9, 10, 11

SCENE_CLASSES: tuple[ClassSpec, ...] = (
    ClassSpec(
        "background-tissue",
        (0, 0, 0),
        "background",
        (
            "background tissue in a surgical video",
            "organs, fat and peritoneum in a laparoscopic view",
            "the tissue behind the surgical instruments",
            "the dark surround of an endoscope's image",
        ),
    ),
    ClassSpec(
        "instrument-shaft",
        (0, 255, 0),
        "instrument",
        (
            "the shaft of a surgical instrument",
            "a long straight instrument tube",
            "a black or steel laparoscopic instrument shaft",
            "the rod of a robotic surgical tool",
        ),
    ),
    ClassSpec(
        "instrument-clasper",
        (0, 255, 255),
        "instrument",
        (
            "the clasper of a surgical instrument",
            "the metal jaws of a grasper",
            "the tip of a surgical tool",
            "scissor blades or a hook at the end of an instrument",
        ),
    ),
    ClassSpec(
        "instrument-wrist",
        (125, 255, 12),
        "instrument",
        (
            "the wrist of a robotic surgical instrument",
            "the metal joint between the shaft and the jaws",
            "an articulated instrument joint",
        ),
    ),
    ClassSpec(
        "kidney-parenchyma",
        (255, 55, 0),
        "tissue",
        (
            "kidney parenchyma",
            "the bare reddish brown surface of a kidney",
            "an exposed kidney in surgery",
        ),
    ),
    ClassSpec(
        "covered-kidney",
        (24, 55, 125),
        "tissue",
        (
            "a kidney covered by fat and fascia",
            "covered kidney",
            "a kidney beneath a thin fatty membrane",
        ),
    ),
    ClassSpec(
        "thread",
        (187, 155, 25),
        "instrument",
        ("a surgical thread", "suture material", "a thin colored suturing thread"),
    ),
    ClassSpec(
        "clamps",
        (0, 255, 125),
        "instrument",
        ("surgical clamps", "a bulldog clamp on a vessel", "a surgical clip holding tissue"),
    ),
    ClassSpec(
        "suturing-needle",
        (255, 255, 125),
        "instrument",
        ("a suturing needle", "a curved steel needle", "a surgical needle held by a needle driver"),
    ),
    ClassSpec(
        "suction-instrument",
        (123, 15, 175),
        "instrument",
        ("a suction instrument", "a suction and irrigation tube", "a surgical sucker with holes at its tip"),
    ),
    ClassSpec(
        "small-intestine",
        (124, 155, 5),
        "tissue",
        ("small intestine", "loops of small bowel", "a pink tubular intestine"),
    ),
    ClassSpec(
        "ultrasound-probe",
        (12, 255, 141),
        "instrument",
        ("an ultrasound probe", "a laparoscopic ultrasound transducer", "a drop-in ultrasound probe on an organ"),
    ),
)
