"""Ray-traced scenes that `python -m cliprl.models.data.raytraced` has rendered."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cliprl.engines import UsageError
from cliprl.models.data.augmentation.copy_paste import CopyPasteDataset
from cliprl.models.data.dataset_spec import parse_seeds
from cliprl.models.data.image_mask_dataset import Subset, sequence_names
from cliprl.models.data.label_mapping import with_partial_labels
from cliprl.models.data.protocol import shipped_protocol
from cliprl.models.data.registry import DatasetContext, register_dataset
from cliprl.models.data.sets.no_instrument import NoInstrumentStills

if TYPE_CHECKING:
    from cliprl.models.data.raytraced import RaytracedScenes

_OPTIONS = {"seeds": "FIRST-LAST (default all)", "suction": "whole for one class (default), or parts"}
_SOURCE = {
    "name": "ray-traced scenes (cliprl.models.data.raytraced)",
    "licence": "Apache-2.0; pictures and meshes that they were made from have their own",
}


@register_dataset("raytraced", "ray-traced scenes of a folder", options=_OPTIONS, named_by_path=True, source=_SOURCE)
def open_raytraced(path: Path, options: Mapping[str, str], context: DatasetContext) -> RaytracedScenes:
    """Open the finished scenes of the folder `path`, or those of them that the options name."""
    from cliprl.models.data.raytraced import RaytracedScenes

    seeds, suction = parse_seeds(options["seeds"]) if "seeds" in options else None, options.get("suction", "whole")
    if "seeds" in options and seeds is None:
        raise UsageError(f"ray-traced scenes of seeds '{options['seeds']}': give seeds=FIRST-LAST")
    if suction not in ("whole", "parts"):
        raise UsageError(
            f"suction is '{suction}': give suction=whole for one class, or suction=parts for shaft, wrist and clasper"
        )
    return RaytracedScenes(path, seeds, suction == "whole")


@register_dataset(
    "composed",
    "the instruments of ray-traced scenes on real tissue",
    options={
        **_OPTIONS,
        "tissue": "a folder of images without instruments, in the folder that holds the data sets",
        "parts": "its sequences, such as part1,part2 (default all that the protocol of scores does not list)",
    },
    source=_SOURCE,
)
def open_composed(path: Path, options: Mapping[str, str], context: DatasetContext) -> CopyPasteDataset:
    """Open the finished scenes of the folder `path`, composed with the images of the folder that `tissue` names.

    Without `parts`, sequences of the tissue that the evaluation protocol lists are left out: scores are of them.
    """
    scenes = open_raytraced(path, options, context)
    if "tissue" not in options:
        raise UsageError(f"composed scenes of '{path}' have no tissue: give tissue=FOLDER, a folder of images")
    folder = context.root / options["tissue"]
    if not folder.is_dir():
        raise UsageError(f"tissue is '{folder}', which is no folder: give the folder of images without instruments")
    stills = NoInstrumentStills(folder)
    listed = partial(shipped_protocol().use_of, f"stills:{folder.resolve()}")
    parts = [name for name in sequence_names(stills) if not listed((name,))]
    if "parts" in options:
        parts = options["parts"].split(",")
    if not parts:
        raise UsageError(
            f"tissue is '{folder}', of which the evaluation protocol lists every sequence: give parts=NAME"
        )
    return CopyPasteDataset(with_partial_labels(Subset(stills, parts), scenes.classes), scenes, 0)
