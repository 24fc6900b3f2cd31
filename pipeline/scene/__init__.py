"""Procedural surgical scenes, with exact labels: the `demo:` source's picture, and training data."""

from cliprl.pipeline.scene.classes import SCENE_CLASSES
from cliprl.pipeline.scene.renderer import SceneRenderer

__all__ = ["SCENE_CLASSES", "SceneRenderer"]
