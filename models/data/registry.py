"""Data sets in a line each: KIND:FOLDER?OPTION=VALUE&OPTION=VALUE.

endovis2018:/data/endovis2018?split=A        the side of a published split (A, B) that is asked for
endovis2017:/data/endovis2017?fold=0&task=parts            task: binary, parts or types
endovis2015:/data/endovis2015?sequences=D1,OP1             sequences by name
cholecseg8k:/data/cholecseg8k?split=videos
vocalfolds:/data/vocalfolds?split=without-seq5
folder:/data/mine                            anyone's data (see `folder`)
rendered:seeds=0-299&frames=6                scenes that this program draws itself
raytraced:/data/raytraced?seeds=0-4999       scenes that `python -m cliprl.models.data.raytraced` has rendered; suction=parts
empty:/data/clip.mp4?every=5                 a video in which no instrument is seen
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cliprl.engines import UsageError
from cliprl.models.data.dataset_spec import Description
from cliprl.models.data.image_mask_dataset import Labelled, Subset
from cliprl.models.data.raytraced import RaytracedScenes
from cliprl.models.data.sets.cholecseg8k import CholecSeg8k
from cliprl.models.data.sets.cutouts import Cutouts
from cliprl.models.data.sets.davinci import DavinciFrame
from cliprl.models.data.sets.endovis2015 import EndoVis2015
from cliprl.models.data.sets.endovis2017 import EndoVis2017
from cliprl.models.data.sets.endovis2018 import EndoVis2018
from cliprl.models.data.sets.folder import FolderSet
from cliprl.models.data.sets.no_instrument_video import NoInstrumentVideo
from cliprl.models.data.sets.rendered import RenderedScenes, SceneSet
from cliprl.models.data.sets.vocalfolds import VocalFolds
from cliprl.models.data.splits import choose

# What every kind can be asked for: some of its sequences, in one of three ways.
PARTS = ("sequences", "split", "fold")
# Scenes to score on: seeds far from those of any recipe.
UNSEEN = "900000-900023"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What sets need besides their line: where folders that are not absolute lie, and how scenes are drawn and kept."""

    root: Path = Path()
    scenes: Path | None = None
    height: int = 384
    width: int = 480
    workers: int = 0
    drawing: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True, slots=True)
class Kind:
    """How sets of a kind are opened, from their place and options; which options; and whether they are a file or a folder."""

    make: Callable[[Path, Mapping[str, str], Surroundings], Labelled]
    options: tuple[str, ...] = ()
    place: str = "folder"


def _plain(make: Callable[[Path], Labelled]) -> Kind:
    return Kind(lambda place, options, around: make(place))


def _rendered(place: Path, options: Mapping[str, str], around: Surroundings) -> Labelled:
    seeds, frames = _seeds(options.get("seeds", UNSEEN)), options.get("frames", "10")
    if seeds is None or not frames.isdecimal() or not int(frames):
        raise UsageError(
            f"rendered scenes of seeds '{options.get('seeds')}', frames '{frames}': give seeds=FIRST-LAST and frames=N"
        )
    which = SceneSet(seeds.start, len(seeds), int(frames), around.height, around.width)
    return RenderedScenes(which, place, around.workers, around.drawing)


def _raytraced(place: Path, options: Mapping[str, str], around: Surroundings) -> Labelled:
    seeds, suction = _seeds(options["seeds"]) if "seeds" in options else None, options.get("suction", "whole")
    if "seeds" in options and seeds is None:
        raise UsageError(f"ray-traced scenes of seeds '{options['seeds']}': give seeds=FIRST-LAST")
    if suction not in ("whole", "parts"):
        raise UsageError(
            f"suction is '{suction}': give suction=whole for one class, or suction=parts for shaft, wrist and clasper"
        )
    return RaytracedScenes(place, seeds, suction == "whole")


def _seeds(text: str) -> range | None:
    """The seeds that FIRST-LAST or FIRST names; None for another text, or where the last comes before the first."""
    first, _, last = text.partition("-")
    if not (first + (last or first)).isdecimal() or not first or int(last or first) < int(first):
        return None
    return range(int(first), int(last or first) + 1)


def _empty(place: Path, options: Mapping[str, str], around: Surroundings) -> Labelled:
    every = options.get("every", "1")
    if not every.isdecimal() or not int(every):
        raise UsageError(f"every is '{every}': give every=N to take each N-th frame")
    return NoInstrumentVideo(place, int(every))


CATALOG: Mapping[str, Kind] = {
    "endovis2018": _plain(EndoVis2018),
    "endovis2017": Kind(lambda place, options, around: EndoVis2017(place, **options), ("task",)),
    "cholecseg8k": _plain(CholecSeg8k),
    "endovis2015": _plain(EndoVis2015),
    "vocalfolds": _plain(VocalFolds),
    "cutouts": _plain(Cutouts),
    "davinci_frame": _plain(DavinciFrame),
    "folder": _plain(FolderSet),
    "rendered": Kind(_rendered, ("seeds", "frames"), "cache"),
    "raytraced": Kind(_raytraced, ("seeds", "suction")),
    "empty": Kind(_empty, ("every",), "file"),
}
_NOWHERE = Surroundings()


def open_dataset(
    text: str, side: str = "test", around: Surroundings = _NOWHERE, further: tuple[str, ...] = ()
) -> Labelled:
    """Open the set that a line describes; of a split, the `side` "train" or "test". Options named in `further` are the caller's.

    Raises UsageError for an unknown kind or option, a folder that is none, a split or sequence that is not there, and
    CliprlError for a set with bad data.
    """
    line = Description.parse(text)
    kind = CATALOG.get(line.kind)
    if kind is None:
        raise UsageError(f"no data set '{text}': give KIND:FOLDER, where KIND is one of {', '.join(CATALOG)}")
    known = (*kind.options, *PARTS, *further)
    for option in line.options:
        if option not in known:
            raise UsageError(f"data set '{text}' has no option '{option}': one of {', '.join(known)}")
    place = _place(line, kind, around)
    data = kind.make(place, {key: value for key, value in line.options.items() if key in kind.options}, around)
    return _part(data, line, side)


def _place(line: Description, kind: Kind, around: Surroundings) -> Path:
    if kind.place == "cache":
        if not line.place and around.scenes is None:
            raise UsageError(
                f"data set '{line.what()}' has no folder to keep its scenes in: give {line.kind}:FOLDER?seeds=0-9"
            )
        return around.root / line.place if line.place or around.scenes is None else around.scenes
    place = around.root / line.place
    there = place.is_dir() if kind.place == "folder" else place.is_file()
    if not line.place or not there:
        raise UsageError(f"'{place}' is no {kind.place}: give the {kind.place} of the {line.kind} set")
    return place


def _part(data: Labelled, line: Description, side: str) -> Labelled:
    """What is left of a set by its line's sequences, split or fold."""
    asked = [key for key in PARTS if key in line.options]
    if len(asked) > 1:
        raise UsageError(f"data set '{line.what()}' has {' and '.join(asked)}: give one of them")
    if "sequences" in line.options:
        return Subset(data, line.names("sequences"))
    if "fold" in line.options:
        return choose(data, f"fold{line.options['fold']}:{side}")
    if "split" in line.options:
        return choose(data, f"{line.options['split']}:{side}")
    return data
