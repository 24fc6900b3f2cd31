"""Sinks for frames: video files, masks, annotations, streams."""

from cliprl.pipeline.sinks.base import SinkGroup
from cliprl.pipeline.sinks.factory import open_sink
from cliprl.pipeline.sinks.labels.coco import CocoSink
from cliprl.pipeline.sinks.labels.jsonl import EventSink
from cliprl.pipeline.sinks.labels.masks import MaskSink
from cliprl.pipeline.sinks.network.network_sink import NetworkSink
from cliprl.pipeline.sinks.null import NullSink
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink
from cliprl.pipeline.sinks.video.video_file import VideoSink

__all__ = [
    "CocoSink",
    "EncoderSettings",
    "EventSink",
    "MaskSink",
    "NetworkSink",
    "NullSink",
    "SinkGroup",
    "VideoSink",
    "open_sink",
    "register_sink",
]
