"""The frames that are labelled: images of folders, single images, and frames of videos, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.image_mask_dataset import natural_order
from cliprl.models.data.io import IMAGE_SUFFIXES, read_image
from cliprl.models.data.sample import Image
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.sinks.frame_image import FrameConverter
from cliprl.pipeline.sources import open_source


@dataclass(frozen=True, slots=True)
class LabelFrame:
    """A frame to label: `name` of its files without a suffix, as in "SEQUENCE/NAME", and `read`, which returns it as RGB.

    `file` is its image file, None for a frame of a video. `starts` marks the first frame of a video, and every image of a folder:
    no frame before it belongs to the same scene. `read` of a video's frame works until the next frame is asked for, and raises
    CliprlError for an image that can't be read.
    """

    name: str
    file: Path | None
    starts: bool
    read: Callable[[], Image]


def check_sources(sources: Sequence[Path]) -> int:
    """Return the number of images of the sources, videos left out.

    Raises UsageError for a source that is missing, a folder without images, and two frames of one name.
    """
    names: dict[str, Path] = {}
    for source in sources:
        if not source.exists():
            raise UsageError(f"'{source}' does not exist: give a folder of images, images or videos")
        images = _images_of(source)
        if source.is_dir() and not images:
            raise UsageError(f"'{source}' holds no images: it must hold {', '.join(IMAGE_SUFFIXES)} files")
        for name, place in images.items() or {source.stem: source}.items():
            if name in names:
                raise UsageError(f"'{names[name]}' and '{place}' would have one name, {name}: rename one")
            names[name] = place
    return sum(len(_images_of(source)) for source in sources)


def iterate_frames(sources: Sequence[Path], done: Callable[[str], bool], every: int = 1) -> Iterator[LabelFrame]:
    """Yield the frames of the sources that are not `done` by their name; of videos each `every`-th.

    One video frame is in memory at a time. A video that can't be read is one frame of its name, whose `read` raises CliprlError.
    """
    for source in sources:
        images = _images_of(source)
        for name, path in images.items():
            if not done(name):
                yield LabelFrame(name, path, True, partial(read_image, path))
        if not images:
            try:
                yield from _video_frames(source, done, every)
            except CliprlError as error:
                if not done(source.stem):
                    yield LabelFrame(source.stem, None, True, partial(_fail, error))


def _images_of(source: Path) -> dict[str, Path]:
    """Return the images of a source by name; those of a sub-folder are named FOLDER/NAME. Empty for a video."""
    if not source.is_dir():
        return {source.stem: source} if source.suffix.lower() in IMAGE_SUFFIXES else {}
    folders = [source, *sorted((path for path in source.iterdir() if path.is_dir()), key=natural_order)]
    found: dict[str, Path] = {}
    for folder in folders:
        prefix = "" if folder == source else f"{folder.name}/"
        for path in sorted(folder.iterdir(), key=natural_order):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                name = f"{prefix}{path.stem}"
                if name in found:
                    raise UsageError(f"'{found[name]}' and '{path}' would have one name, {name}: rename one")
                found[name] = path
    return found


def _video_frames(video: Path, done: Callable[[str], bool], every: int) -> Iterator[LabelFrame]:
    converter, starts = FrameConverter(), True
    with open_source(video) as source:
        for frame in source:
            name = f"{video.stem}/frame_{frame.index:06d}"
            if frame.index % every or done(name):
                starts = starts or not frame.index % every
                continue
            yield LabelFrame(name, None, starts, partial(_rgb_of, converter, frame))
            starts = False


def _fail(error: CliprlError) -> Image:
    raise error


def _rgb_of(converter: FrameConverter, frame: Frame) -> Image:
    height, width = upright_size(frame)
    image = converter.convert(frame, (frame.luma, frame.chroma), width, height)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
