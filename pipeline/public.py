"""The public names of `cliprl.pipeline`, which imports this module when the first of them is asked for."""

from cliprl.pipeline.core.buffers import FrameRing
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame, FrameContext, Stage
from cliprl.pipeline.core.interfaces import BaseSink, OutputSpec, Sink, Source, StreamInfo, VideoStream
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.statistics import Latency, Summary
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.devices.device import Device, open_device
from cliprl.pipeline.overlay.class_statistics import ClassStatistics, class_statistics
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.palette import overlay_classes
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.segment.prompts import with_prompts
from cliprl.pipeline.segment.refinement import RefinementLoop, RefinementResult
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sinks.frame_image import image_of_frame
from cliprl.pipeline.sources import open_source
from cliprl.pipeline.sources.images.array_frame import frame_of_image
from cliprl.pipeline.stream.stream import Stream

__all__ = [
    "BaseSink",
    "ClassStatistics",
    "ColorSpace",
    "Device",
    "Frame",
    "FrameContext",
    "FrameRing",
    "Latency",
    "OutputSpec",
    "Overlay",
    "RefinementLoop",
    "RefinementResult",
    "Segmentation",
    "Segmenter",
    "Sink",
    "Source",
    "Stage",
    "Stream",
    "StreamInfo",
    "Style",
    "Summary",
    "VideoStream",
    "Viewport",
    "class_statistics",
    "frame_of_image",
    "image_of_frame",
    "labels_at_frame",
    "open_device",
    "open_sink",
    "open_source",
    "overlay_classes",
    "with_prompts",
]
