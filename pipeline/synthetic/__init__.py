"""Procedural surgical scenes, with exact labels: the `demo:` source's image, and training data."""

from cliprl.pipeline.synthetic.classes import SCENE_CLASSES
from cliprl.pipeline.synthetic.renderer import SceneRenderer

__all__ = ["SCENE_CLASSES", "SceneRenderer"]
