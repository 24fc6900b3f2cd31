"""RTSP from a camera in this process."""

from __future__ import annotations

from fractions import Fraction

import av
from media import moving, video_frame
from rtsp_camera import RtspCamera

from cliprl.pipeline.sources import open_source

LOST = 15


def coded(frames: int) -> list[bytes]:
    """Frames of H.264 with start codes; the first alone is a key frame."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 160, 120, "yuv420p"
    context.time_base, context.framerate, context.gop_size = Fraction(1, 25), Fraction(25), 250
    context.options = {"preset": "ultrafast", "bf": "0", "x264-params": "scenecut=0"}
    packets = []
    for index in range(frames):
        image = video_frame(moving(index, 120, 160))
        image.pts, image.time_base = index, context.time_base
        packets += context.encode(image)
    return [bytes(packet) for packet in [*packets, *context.encode()]]


def test_the_first_key_frame_of_a_camera_is_shown() -> None:
    """Waiting for the next one would take ten seconds with many cameras."""
    camera = RtspCamera(coded(40), lost=[LOST])
    try:
        with open_source(camera.url) as source:
            frames = [frame for frame, _ in zip(source, range(30), strict=False)]
            assert [note for note in source.info.notes if "leap" not in note] == []
    finally:
        camera.close()
    assert frames[0].seconds == 0
    assert [frame.damaged for frame in frames] == [frame.seconds > LOST / 25 for frame in frames]
    assert any(frame.damaged for frame in frames)
