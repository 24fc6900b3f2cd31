"""A network scored in torch, and its bundle scored on the engines."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cliprl.engines import UsageError
from cliprl.engines.bundle.bundle import REFINER
from cliprl.models.config.config import NetworkConfig, ReinforcementConfig
from cliprl.models.config.value_types import DecoderKind
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.torch_predictor import TorchPredictor
from cliprl.models.export.export import TrainedModel, export_bundle
from cliprl.models.export.onnx_export import write_refiner
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.pipeline.sources.images.array_frame import check_rgb
from cliprl.pipeline.synthetic import SCENE_CLASSES, SceneRenderer


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RefinerNetwork]:
    """A refiner that both networks share: it is exported once. Texts are not asked for: theirs is no export."""
    torch.manual_seed(0)
    refiner = RefinerNetwork(8, 8, 16, len(SCENE_CLASSES), ReinforcementConfig())
    place = tmp_path_factory.mktemp("refiner")

    def write(refiner: RefinerNetwork, *examples: torch.Tensor | Path) -> None:
        *tensors, folder = examples
        if not (place / REFINER).exists():
            write_refiner(refiner, *tensors, place)  # type: ignore[arg-type]
        shutil.copy(place / REFINER, folder)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cliprl.models.export.onnx_export.write_refiner", write)
        patch.setattr("cliprl.models.export.export.add_text_if_possible", lambda bundle, network: bundle)
        yield refiner


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["pyramid", "fused"])
def test_both_get_the_same_labels(once: RefinerNetwork, tmp_path: Path, decoder: DecoderKind) -> None:
    """At the size of the export and at another; statistics of batch normalization belong to the weights."""
    torch.manual_seed(0)
    config = NetworkConfig(
        tower="test_efficientnet",
        weights="",
        decoder=decoder,
        height=64,
        width=96,
        embedding=16,
        pyramid=16,
        features=8,
        text_width=32,
        text_layers=1,
        policy=8,
    )
    network = ClipSegmenter(config)
    network.train()(torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8), torch.randn(3, 16))
    model = TrainedModel(network, once, SCENE_CLASSES, 64, 96, 2)
    bundle = export_bundle(model, tmp_path / "bundle", "tiny", {})
    for size in ((64, 96), (96, 128)):
        eager = TorchPredictor(replace(model, height=size[0], width=size[1]))
        engines = ImageSegmenter(bundle, precision="f32", threads=1, input_size=size)
        renderer = SceneRenderer(1, 128, 160)
        for second in (0.0, 0.1, 0.2):
            image = renderer.render(second)[0]
            a, b = eager.segment(image), engines.segment(image)
            assert a.labels.shape == b.labels.shape == (size[0] // 4, size[1] // 4)
            assert (a.labels == b.labels).mean() >= 0.999
            assert np.abs(a.probabilities - b.probabilities).max() < 1e-3


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        [[0]],
    ],
)
def test_images_of_another_type_or_shape_are_refused(image: object) -> None:
    check_rgb(np.zeros((8, 16, 3), np.uint8)[:, ::2])
    with pytest.raises(UsageError, match=r"give uint8 \(height, width, 3\) in RGB"):
        check_rgb(image)
