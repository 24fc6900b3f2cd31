"""Ray-traced training scenes: a generator (extra `render`) and the data set that reads what it has rendered.

`layout` draws a scene from its seed; `render` traces it with Mitsuba 3; `effects` makes video frames of it; `cache` keeps
them; `dataset` reads them. Only `render` needs Mitsuba, and `mesh_folder` trimesh, both when they are used.
"""

from cliprl.models.data.raytraced.dataset import RaytracedScenes

__all__ = ["RaytracedScenes"]
