"""Ray-traced scenes that `python -m cliprl.models.data.raytraced` has rendered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cliprl.engines import UsageError
from cliprl.models.data.dataset_spec import parse_seeds
from cliprl.models.data.raytraced import RaytracedScenes
from cliprl.models.data.registry import DatasetContext, register_dataset


@register_dataset(
    "raytraced",
    "ray-traced scenes of a folder",
    options={"seeds": "FIRST-LAST (default all)", "suction": "whole for one class (default), or parts"},
    source={
        "name": "ray-traced scenes (cliprl.models.data.raytraced)",
        "licence": "Apache-2.0; pictures and meshes that they were made from have their own",
    },
)
def open_raytraced(path: Path, options: Mapping[str, str], context: DatasetContext) -> RaytracedScenes:
    """Open the finished scenes of the folder `path`, or those of them that the options name."""
    seeds, suction = parse_seeds(options["seeds"]) if "seeds" in options else None, options.get("suction", "whole")
    if "seeds" in options and seeds is None:
        raise UsageError(f"ray-traced scenes of seeds '{options['seeds']}': give seeds=FIRST-LAST")
    if suction not in ("whole", "parts"):
        raise UsageError(
            f"suction is '{suction}': give suction=whole for one class, or suction=parts for shaft, wrist and clasper"
        )
    return RaytracedScenes(path, seeds, suction == "whole")
