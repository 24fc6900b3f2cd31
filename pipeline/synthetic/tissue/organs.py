"""What tissue looks like: colors and textures of organs, and which of them meet in one scene."""

from __future__ import annotations

from dataclasses import dataclass

from cliprl.pipeline.synthetic.classes import BACKGROUND, COVERED_KIDNEY, INTESTINE, KIDNEY

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Organ:
    """A kind of tissue. `dark` and `light` (RGB) span its colors; the other figures are strengths, 0 (none) to about 1.

    mottle: blotches of color; fold: wrinkles; lobule: rounded lumps; fibre: streaks; vessel: drawn vessels;
    gloss: wet highlights. `shapes` are those it is laid out in (see `tissue`).
    """

    phrase: str
    dark: Rgb
    light: Rgb
    label: int = BACKGROUND
    mottle: float = 0.4
    fold: float = 0.4
    lobule: float = 0.0
    fibre: float = 0.1
    vessel: float = 0.3
    gloss: float = 0.6
    shapes: tuple[str, ...] = ("blob", "side")


ORGANS: dict[str, Organ] = {
    "peritoneum": Organ("pink peritoneum", (195, 125, 115), (240, 185, 170), fold=0.7, vessel=0.9, shapes=("side",)),
    "liver": Organ("dark red liver", (70, 18, 20), (140, 52, 45), mottle=0.25, fold=0.15, vessel=0.05, gloss=0.8),
    "fat": Organ("yellow fat", (205, 125, 45), (248, 205, 120), lobule=1.0, fold=0.6, vessel=0.5),
    "pale fat": Organ("pale fat", (215, 180, 120), (245, 222, 175), lobule=0.8, fold=0.5, vessel=0.3),
    "kidney": Organ("a kidney", (120, 42, 34), (190, 88, 66), KIDNEY, 0.4, 0.2, 0.05, 0.05, 0.25, 0.9, ("blob",)),
    "covered kidney": Organ(
        "a covered kidney", (180, 105, 75), (228, 170, 115), COVERED_KIDNEY, 0.9, 0.4, 0.45, 0.25, 0.6, 0.6, ("blob",)
    ),
    "intestine": Organ(
        "small intestine", (200, 115, 100), (240, 172, 150), INTESTINE, 0.3, 0.35, 0.0, 0.05, 0.7, 0.8, ("coil",)
    ),
    "muscle": Organ("red muscle", (125, 30, 30), (195, 75, 65), fibre=1.0, fold=0.4),
    "connective": Organ("whitish connective tissue", (205, 175, 160), (248, 228, 215), fibre=0.8, fold=0.6, vessel=0.4),
    "gallbladder": Organ(
        "a gallbladder", (165, 140, 100), (225, 190, 140), mottle=0.2, fold=0.1, vessel=0.8, shapes=("blob", "tube")
    ),
    "spleen": Organ("purple spleen", (82, 34, 58), (145, 80, 112), mottle=0.3, fold=0.15, vessel=0.1, gloss=0.9),
    "gray": Organ("gray tissue", (112, 98, 88), (182, 165, 150), fold=0.3, vessel=0.05, gloss=0.3),
    "beige": Organ("beige tissue", (185, 145, 110), (232, 200, 165), mottle=0.3, fold=0.6, vessel=0.15, gloss=0.8),
    "brown": Organ("brown tissue", (95, 58, 38), (165, 112, 78), fold=0.5, lobule=0.2),
    "mucosa": Organ("pink mucosa", (205, 85, 68), (242, 150, 122), mottle=0.3, fold=0.2, fibre=0.2, vessel=0.8),
    "uterus": Organ(
        "a deep pink organ", (180, 55, 80), (235, 120, 140), mottle=0.3, fold=0.15, shapes=("blob", "side")
    ),
    "duct": Organ("a duct", (170, 150, 110), (235, 215, 185), fold=0.1, vessel=0.4, shapes=("tube",)),
    "vein": Organ("a large vein", (70, 50, 85), (130, 95, 135), mottle=0.2, fold=0.1, vessel=0.0, shapes=("tube",)),
    "artery": Organ("a vessel", (165, 60, 55), (220, 125, 110), mottle=0.2, fold=0.1, vessel=0.2, shapes=("tube",)),
    "gauze": Organ(
        "white gauze", (190, 185, 180), (240, 238, 235), mottle=0.1, fold=0.9, vessel=0.0, gloss=0.05, shapes=("blob",)
    ),
    "blood": Organ(
        "a pool of blood", (75, 6, 8), (150, 16, 18), mottle=0.3, fold=0.05, vessel=0.0, gloss=1.0, shapes=("pool",)
    ),
    "char": Organ(
        "charred tissue", (35, 24, 20), (105, 72, 45), mottle=0.9, fold=0.7, lobule=0.3, vessel=0.0, shapes=("pool",)
    ),
    "cavity": Organ(
        "a dark cavity", (10, 4, 4), (40, 16, 14), mottle=0.3, fold=0.3, vessel=0.0, gloss=0.3, shapes=("blob", "pool")
    ),
}

# Organs that meet, the first ones likelier as the ground that the others lie on.
THEMES: tuple[tuple[str, ...], ...] = (
    ("peritoneum", "fat", "connective", "liver", "intestine", "uterus", "vein", "artery"),
    ("liver", "fat", "gallbladder", "peritoneum", "duct", "connective"),
    ("fat", "pale fat", "intestine", "connective", "vein", "spleen", "brown"),
    ("beige", "brown", "connective", "beige", "gray", "duct", "kidney"),
    ("fat", "covered kidney", "kidney", "muscle", "vein", "artery", "peritoneum"),
    ("peritoneum", "kidney", "covered kidney", "fat", "intestine", "artery"),
    ("muscle", "fat", "connective", "uterus", "brown", "artery"),
    ("mucosa", "gray", "connective", "mucosa", "beige"),
    ("spleen", "peritoneum", "fat", "uterus", "vein", "liver"),
    ("connective", "peritoneum", "fat", "duct", "artery", "gallbladder"),
    ("mucosa", "gray", "beige", "brown", "gauze"),
    ("brown", "muscle", "liver", "pale fat", "char"),
    ("intestine", "fat", "peritoneum", "pale fat", "intestine"),
)
