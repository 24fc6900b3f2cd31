"""Everything that takes finished frames: video files, masks, annotations, events."""

from cliprl.pipeline.sinks.coco import CocoSink
from cliprl.pipeline.sinks.events import EventSink
from cliprl.pipeline.sinks.group import NullSink, SinkGroup
from cliprl.pipeline.sinks.masks import MaskSink
from cliprl.pipeline.sinks.network import NetworkSink
from cliprl.pipeline.sinks.opening import open_sink
from cliprl.pipeline.sinks.video import VideoSink

__all__ = ["CocoSink", "EventSink", "MaskSink", "NetworkSink", "NullSink", "SinkGroup", "VideoSink", "open_sink"]
