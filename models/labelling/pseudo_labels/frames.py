"""The frames that are labelled: images of folders, single images, and frames of videos, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.image_mask_dataset import natural_order
from cliprl.models.data.io import IMAGE_SUFFIXES, files_below, read_image
from cliprl.models.data.sample import Image
from cliprl.models.labelling.pseudo_labels.folder import RECORDS
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.sinks.frame_image import FrameConverter
from cliprl.pipeline.sources import open_source


@dataclass(frozen=True, slots=True)
class LabelFrame:
    """A frame to label: `name` of its files without a suffix, as in "SEQUENCE/NAME", and `read`, which returns it as RGB.

    `source` is its image file or its video, `is_image` which of them. `starts` marks the first frame of a video, and every image
    of a folder: no frame before it belongs to the same scene. `read` of a video's frame works until the next frame is asked for,
    and raises CliprlError for an image that can't be read.
    """

    name: str
    source: Path
    is_image: bool
    starts: bool
    read: Callable[[], Image]


def check_sources(sources: Sequence[Path]) -> int:
    """Return the number of images of the sources, videos left out.

    Raises UsageError for a source that is missing, a folder without images or of pseudo-labels, and two frames of one name.
    """
    names: dict[str, Path] = {}
    for source in sources:
        if not source.exists():
            raise UsageError(f"'{source}' does not exist: give a folder of images, images or videos")
        if (source / RECORDS).is_file():
            raise UsageError(f"'{source}' is a folder of pseudo-labels: give the folder of its frames")
        images = _images_of(source)
        if source.is_dir() and not images:
            raise UsageError(f"'{source}' holds no images: it must hold {', '.join(IMAGE_SUFFIXES)} files")
        for name, place in images.items() or {source.stem: source}.items():
            if name in names:
                raise UsageError(f"'{names[name]}' and '{place}' would have one name, {name}: rename one")
            names[name] = place
    return sum(len(_images_of(source)) for source in sources)


def iterate_frames(sources: Sequence[Path], done: Callable[[str, Path], bool], every: int = 1) -> Iterator[LabelFrame]:
    """Yield the frames of the sources that are not `done`, by name and source; of videos each `every`-th.

    One video frame is in memory at a time. A video that can't be read is one frame of its name, whose `read` raises CliprlError.
    """
    for source in sources:
        images = _images_of(source)
        for name, path in images.items():
            if not done(name, path):
                yield LabelFrame(name, path, True, True, partial(read_image, path))
        if not images:
            try:
                yield from _video_frames(source, done, every)
            except CliprlError as error:
                if not done(source.stem, source):
                    yield LabelFrame(source.stem, source, False, True, partial(_fail, error))


def _images_of(source: Path) -> dict[str, Path]:
    """Return the images of a source by name; those of sub-folders are named FOLDER/NAME. Empty for a video.

    Sub-folders that hold pseudo-labels are left out: with `-o` in the folder of the frames, the run would label its own masks.
    """
    if not source.is_dir():
        return {source.stem: source} if source.suffix.lower() in IMAGE_SUFFIXES else {}
    found: dict[str, Path] = {}
    is_output = cache(lambda folder: folder != source and ((folder / RECORDS).is_file() or is_output(folder.parent)))
    files = (path for path in files_below(source) if not is_output(path.parent))
    for path in sorted(files, key=lambda file: (file.parent != source, natural_order(file))):
        name = path.relative_to(source).with_suffix("").as_posix()
        if name in found:
            raise UsageError(f"'{found[name]}' and '{path}' would have one name, {name}: rename one")
        found[name] = path
    return found


def _video_frames(video: Path, done: Callable[[str, Path], bool], every: int) -> Iterator[LabelFrame]:
    converter, starts = FrameConverter(), True
    with open_source(video) as source:
        for frame in source:
            name = f"{video.stem}/frame_{frame.index:06d}"
            if frame.index % every or done(name, video):
                starts = starts or not frame.index % every
                continue
            yield LabelFrame(name, video, False, starts, partial(_rgb_of, converter, frame))
            starts = False


def _fail(error: CliprlError) -> Image:
    raise error


def _rgb_of(converter: FrameConverter, frame: Frame) -> Image:
    height, width = upright_size(frame)
    image = converter.convert(frame, (frame.luma, frame.chroma), width, height)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
