"""Data sets by name: `endovis2015:/data/endovis2015`, `endovis2017-types:/data/endovis2017`, `folder:/data/mine`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from cliprl.engines import UsageError
from cliprl.models.data.cholecseg8k import CholecSeg8k
from cliprl.models.data.cutouts import Cutouts
from cliprl.models.data.davinci import DavinciFrame
from cliprl.models.data.endovis2015 import EndoVis2015
from cliprl.models.data.endovis2017 import EndoVis2017
from cliprl.models.data.endovis2018 import EndoVis2018
from cliprl.models.data.folder import FolderSet
from cliprl.models.data.paired import Labelled
from cliprl.models.data.rendered_test import RenderedTest
from cliprl.models.data.vocalfolds import VocalFolds

CATALOG: Mapping[str, Callable[[Path], Labelled]] = {
    "endovis2018": EndoVis2018,
    "endovis2017": EndoVis2017,
    "endovis2017-binary": partial(EndoVis2017, task="binary"),
    "endovis2017-types": partial(EndoVis2017, task="types"),
    "cholecseg8k": CholecSeg8k,
    "endovis2015": EndoVis2015,
    "vocalfolds": VocalFolds,
    "cutouts": Cutouts,
    "davinci_frame": DavinciFrame,
    "rendered": RenderedTest,
    "folder": FolderSet,
}


def open_dataset(name: str) -> Labelled:
    """Open KIND:FOLDER. Raises UsageError for an unknown kind or a folder that is none, CliprlError for one with bad data."""
    kind, colon, place = name.partition(":")
    if not colon or kind not in CATALOG:
        raise UsageError(f"no data set '{name}': give KIND:FOLDER, where KIND is one of {', '.join(CATALOG)}")
    folder = Path(place)
    if not folder.is_dir():
        raise UsageError(f"'{place}' is no folder: give the folder of the {kind} set")
    return CATALOG[kind](folder)
