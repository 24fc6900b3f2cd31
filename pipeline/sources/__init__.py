"""Sources of frames: files, cameras, network streams, images, and a rendered demo."""

from cliprl.pipeline.sources.base import FrameSource
from cliprl.pipeline.sources.factory import open_source
from cliprl.pipeline.sources.images.image_list import ImageSource
from cliprl.pipeline.sources.registry import SourceOptions, register_source
from cliprl.pipeline.sources.video import VideoSource

__all__ = ["FrameSource", "ImageSource", "SourceOptions", "VideoSource", "open_source", "register_source"]
