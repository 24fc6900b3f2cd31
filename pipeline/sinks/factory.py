"""From the name of an output to the sink that writes it."""

from __future__ import annotations

from pathlib import Path

from cliprl.engines import UsageError
from cliprl.pipeline.core.interfaces import OutputSpec, Sink
from cliprl.pipeline.sinks.group import NullSink
from cliprl.pipeline.sinks.labels.coco import CocoSink
from cliprl.pipeline.sinks.labels.jsonl import EventSink
from cliprl.pipeline.sinks.labels.masks import MaskSink
from cliprl.pipeline.sinks.network.network_sink import NetworkSink, is_network
from cliprl.pipeline.sinks.network.virtual_camera import DEVICES, VirtualCamera
from cliprl.pipeline.sinks.places import check_not_an_input, is_folder
from cliprl.pipeline.sinks.video.video_file import CONTAINERS, VideoSink

NULL = "null:"


def open_sink(
    target: str | Path, scene: OutputSpec, *, crf: float = 23, preset: str = "ultrafast", threads: int = 0
) -> Sink:
    """The sink for an output: `out.mp4`, `.mov`, `.mkv` a video, `masks/` a folder of PNGs, `x.coco.json`, `x.jsonl`, `null:`;
    or a stream: `rtsp://`, `rtmp://`, `srt://`, `udp://`, `live.m3u8`, `/dev/video9` a virtual camera.

    `crf`, `preset` and `threads` are VideoSink's. Raises UsageError where the name says nothing, the place can't be
    written, or the output would replace an input.
    """
    name, path = str(target), Path(target)
    if not name:
        raise UsageError("an output has an empty name: give it one")
    if name == NULL:
        return NullSink()
    if name.startswith(DEVICES):
        return VirtualCamera(path, scene)
    if is_network(name):
        return NetworkSink(name, scene, crf=crf, preset=preset)
    if is_folder(name):
        return MaskSink(path, scene)
    check_not_an_input(path, scene.stream.name)
    if path.suffix.lower() in CONTAINERS:
        return VideoSink(path, scene, crf=crf, preset=preset, threads=threads)
    if path.name.lower().endswith(".coco.json"):
        return CocoSink(path, scene)
    if path.suffix.lower() == ".jsonl":
        return EventSink(path, scene)
    kinds = f"{', '.join(CONTAINERS)}, .coco.json, .jsonl, .m3u8 or / (masks)"
    raise UsageError(f"'{target}' names no kind of output: end it in {kinds}, or give a URL")


def is_video(target: str, scene: OutputSpec) -> bool:
    """Whether an output is a video file. Raises UsageError where it is an input itself."""
    path = Path(target)
    found = path.suffix.lower() in CONTAINERS and not (is_network(target) or is_folder(target))
    if found:
        check_not_an_input(path, scene.stream.name)
    return found
