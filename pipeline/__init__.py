"""Real-time segmentation overlays on video: sources, segmenter, overlay, sinks and the streams that run them.

The public names are those of `public.py`. The first use of one imports them all, so that `cliprl-stream`, which imports modules
of the package, can load the networks meanwhile.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import cliprl.engines  # noqa: F401 - before all libraries

if TYPE_CHECKING:
    from cliprl.pipeline.public import *


def __getattr__(name: str) -> Any:
    if name == "__all__" or not name.startswith("_"):
        public = import_module(f"{__name__}.public")
        globals().update({each: getattr(public, each) for each in ("__all__", *public.__all__)})
        if name in globals():  # modules of the package too, which this has imported
            return globals()[name]
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module(f"{__name__}.public").__all__})
