"""Inputs of the GPU measurement: a bundle with the networks of a recipe, and a clip of a rendered scene."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from cliprl.bench.cuda.runs import CAMERA_RATE, Nv12Planes, packed
from cliprl.bench.fixtures import timecode
from cliprl.engines import Bundle, CliprlError, Manifest, open_bundle, seal_bundle

GRID_STRIDE, MOTION_STEPS = 4, 3


def find_bundle(name: str, size: tuple[int, int], folder: Path, log: Callable[[str], None]) -> Bundle:
    """Open a bundle by name or folder. If there is none, generate the recipe's networks with random weights for images of `size`
    (height, width), which are as fast as trained ones; if that fails, open `small`. `log` receives the choice."""
    try:
        return open_bundle(name)
    except CliprlError as error:
        reason = error
    try:
        made = random_bundle(name, size, folder)
    except (ImportError, CliprlError, RuntimeError) as error:
        log(f"`small` is measured in place of `{name}`: {reason}; {' '.join(str(error).split())}")
        return open_bundle()
    log(f"`{name}` has random weights: speed does not depend on them, its masks mean nothing")
    return made


def random_bundle(recipe: str, size: tuple[int, int], folder: Path) -> Bundle:
    """Write the untrained networks of a recipe as a bundle in `folder`. Raises ImportError without the training packages."""
    import torch
    from torch.nn import functional

    from cliprl.models.config.config import ReinforcementConfig
    from cliprl.models.config.load import load_recipe
    from cliprl.models.export.onnx_export import write_networks
    from cliprl.models.network.network import ClipSegmenter
    from cliprl.models.network.refiner import RefinerNetwork

    height, width = size
    config = replace(load_recipe(recipe).network, weights="", height=height, width=width)
    classes = open_bundle().manifest.classes
    torch.manual_seed(0)
    network = ClipSegmenter(config).eval()
    text = functional.normalize(torch.randn(len(classes), network.channels[1]))
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        refiner = RefinerNetwork.beside(network, config.policy, len(classes), ReinforcementConfig()).eval()
        write_networks(network, refiner, text, folder)
    manifest = Manifest(
        recipe, classes, height, width, GRID_STRIDE, MOTION_STEPS, training={"weights": "random, never trained"}
    )
    return seal_bundle(folder, manifest, text.numpy())


def make_video(path: Path, images: Sequence[Nv12Planes], frames: int) -> str:
    """Write frames in turn, each with its number as a time code, as H.264. Raises ImportError without PyAV."""
    import av

    height, width = images[0][0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=CAMERA_RATE, options={"preset": "ultrafast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = os.cpu_count() or 1
        # BT.709 and limited range, by their numbers in H.264.
        stream.codec_context.colorspace = stream.codec_context.color_range = 1
        for index in range(frames):
            image = av.VideoFrame.from_ndarray(packed(_coded(images[index % len(images)], index)), "nv12")
            image.pts, image.time_base = index, Fraction(1) / CAMERA_RATE
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return str(path)


def _coded(image: Nv12Planes, number: int) -> Nv12Planes:
    luma = np.array(image[0])
    timecode.draw_number(luma, number)
    return luma, image[1]
