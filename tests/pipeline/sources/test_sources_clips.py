"""Real surgical clips come out as PyAV decodes them: every frame, every time, every sample."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from media import assert_same

from cliprl.pipeline.core.frame import allocate_planes
from cliprl.pipeline.sources import open_source

CLIPS = (
    pytest.param("sinus_1080p30", marks=pytest.mark.slow),
    "laparoscopy_720p25",
    "ophthalmic_1080p30",
    "davinci_1080p10",
)


@pytest.mark.parametrize("name", CLIPS)
def test_real_clips_come_out_whole_and_bit_identical(data_dir: Path, name: str) -> None:
    path = data_dir / "clips" / f"{name}.mp4"
    count = 0
    with open_source(path) as source, av.open(str(path)) as container:
        planes = allocate_planes(source.info.height, source.info.width)
        container.streams.video[0].thread_type = "AUTO"
        for image in container.decode(video=0):
            frame = source.read(lambda height, width: planes)
            assert frame is not None
            assert frame.luma is planes[0]
            assert_same(frame, image)
            count += 1
        assert source.read() is None
    assert count == source.info.frames
    assert (source.damaged, source.info.notes) == (0, ())
