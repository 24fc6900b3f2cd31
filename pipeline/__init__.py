"""A frame's way: decode, see, refine, overlay, encode. Each stage is usable alone."""

from cliprl.pipeline.address_space import check_address_space

check_address_space()  # before the libraries that the next lines load

from cliprl.pipeline.color import Color
from cliprl.pipeline.device import Device, open_device
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.measure import ClassMeasure, measure
from cliprl.pipeline.overlay import Overlay, Style
from cliprl.pipeline.palette import overlay_classes
from cliprl.pipeline.prompts import with_prompts
from cliprl.pipeline.protocols import Scene, Sink, Source, StreamInfo
from cliprl.pipeline.refine import Refined, Refiner
from cliprl.pipeline.ring import FrameRing
from cliprl.pipeline.segmentation import Segmentation
from cliprl.pipeline.segmenter import Encoded, Segmenter
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sources import open_source
from cliprl.pipeline.stream import Stream
from cliprl.pipeline.summary import Latency, Summary
from cliprl.pipeline.upsample import labels_at_frame
from cliprl.pipeline.view import View

__all__ = [
    "ClassMeasure",
    "Color",
    "Device",
    "Encoded",
    "Frame",
    "FrameRing",
    "Latency",
    "Overlay",
    "Refined",
    "Refiner",
    "Scene",
    "Segmentation",
    "Segmenter",
    "Sink",
    "Source",
    "Stream",
    "StreamInfo",
    "Style",
    "Summary",
    "View",
    "labels_at_frame",
    "measure",
    "open_device",
    "open_sink",
    "open_source",
    "overlay_classes",
    "with_prompts",
]
