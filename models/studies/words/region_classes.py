"""The class of a whole instrument: a network looks at each connected region of the instrument mask, and knows classes by words.

The shaft of a suction tube looks like any other, so that its pixels alone don't tell the class; its tip does. As in OVSeg (Liang
et al. 2023) views of the region are compared with the texts of the classes, and the result is evidence for all its cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.config.config import Recipe
from cliprl.models.data.batch_loader import BatchLoader
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, Image, allowed_classes, instrument_classes
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings
from cliprl.models.studies.words.region_views import REGION_VIEWS, VIEW_SIDE, RegionViews, shaded
from cliprl.models.studies.words.word_scores import grid_logits
from cliprl.models.training.losses import partial_cross_entropy
from cliprl.models.training.stages.gradient_stage import GradientStage

# Cells of the smallest region.
_LEAST_CELLS = 6
# Scale of the cosines of views and texts; steps, views a batch and learning rates (pretrained layers, head) of the training.
_SCALE, _STEPS, _BATCH, _RATES = 12.0, 350, 16, (5e-4, 1e-3)
# The probability that a view misleads, and what is added to the logits of left-out classes, which the network hardly finds.
_DOUBT, _RAISED = 0.1, 1.0
# The least share of a region that labels call instrument, or deny, if its class is to be learned.
_LABELLED, _DENIED = 0.5, 0.7


def instrument_regions(logits: NDArray[np.float32], classes: Sequence[ClassSpec]) -> NDArray[np.int32]:
    """Return the number of the instrument region of each cell, int32 (h, w), 0 outside; logits (K, h, w) of the classes."""
    instrument = instrument_classes(classes)
    odds = np.logaddexp.reduce(logits[instrument], 0) - np.logaddexp.reduce(logits[~instrument], 0)
    count, parts, statistics, _ = cv2.connectedComponentsWithStats((odds > 0).astype(np.uint8), connectivity=4)
    kept = np.flatnonzero(statistics[1:, cv2.CC_STAT_AREA] >= _LEAST_CELLS) + 1
    numbers = np.zeros(count, np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return np.asarray(numbers[parts], np.int32)


def region_code(drawn: Image, own: int | None, classes: Sequence[ClassSpec]) -> int:
    """Return the label code of a region by the labels uint8 (n,) that an annotator gave its cells.

    What the labels call an instrument is one of the known, what they deny is of class `own`, which the caption names, or none.
    """
    instrument = np.isin(drawn, np.flatnonzero(instrument_classes(classes)))
    if instrument.mean() > _LABELLED:
        return INSTRUMENT
    if (drawn == 0).mean() > _DENIED:
        return NOT_INSTRUMENT if own is None else own
    return IGNORE


def _varied(image: Image, mask: NDArray[np.bool_], rng: np.random.Generator) -> Image:
    """Return a view turned, mirrored, scaled, moved and in another light."""
    angle, zoom, flip = rng.uniform(-np.pi, np.pi), rng.uniform(0.75, 1.15), rng.choice([-1, 1])
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([flip, 1])
    middle = np.full(2, VIEW_SIDE / 2)
    matrix = np.hstack([turn, (middle + rng.uniform(-6, 6, 2) - turn @ middle)[:, None]])
    size, border = (VIEW_SIDE, VIEW_SIDE), cv2.BORDER_REFLECT_101
    linear, nearest = (kind | cv2.WARP_INVERSE_MAP for kind in (cv2.INTER_LINEAR, cv2.INTER_NEAREST))
    turned = cv2.warpAffine(image, matrix, size, flags=linear, borderMode=border)
    moved = cv2.warpAffine(mask.astype(np.uint8), matrix, size, flags=nearest, borderMode=border)
    light = rng.uniform(0.75, 1.3) * rng.uniform(0.88, 1.12, 3)
    return shaded(np.clip(turned * light + rng.uniform(-15, 15), 0, 255).astype(np.uint8), moved > 0)


class RegionStage(GradientStage):
    """Trains the image encoder on views of regions against the fixed texts of the classes; `left_out` are those without masks.

    The `number` tells networks apart, whose draws differ. A batch has as many views of each code
    as of the others: of each left-out class, of known instruments, of what is none.
    """

    def __init__(
        self,
        network: ClipSegmenter,
        views: RegionViews,
        classes: Sequence[ClassSpec],
        left_out: Sequence[int],
        recipe: Recipe,
        number: int = 0,
    ) -> None:
        self.network, self.views, self.seed, self.name = network, views, (recipe.seed, number), f"regions-{number}"
        with torch.no_grad():
            self.text = class_embeddings(network, classes)
        allowed = allowed_classes(classes)
        allowed[INSTRUMENT, list(left_out)] = False
        self.allowed = torch.from_numpy(allowed)
        codes = (*left_out, INSTRUMENT, NOT_INSTRUMENT)
        missing = [classes[code].name for code in left_out if not (views.codes == code).any()]
        if missing:
            raise UsageError(
                f"no region is likely to be of {', '.join(missing)}: raise data.scenes, or train the network longer"
            )
        self.groups = [group for code in codes if len(group := np.flatnonzero(views.codes == code))]
        tower = {id(parameter) for parameter in network.tower.parameters()}
        trained = [p for p in network.clip.visual.parameters() if p.requires_grad]
        parts = [[p for p in trained if (id(p) in tower) == inside] for inside in (True, False)]
        groups = [{"params": part, "lr": rate} for part, rate in zip(parts, _RATES, strict=True) if part]
        super().__init__("network", network, torch.optim.AdamW(groups, weight_decay=2e-2), _STEPS)
        self.batches = BatchLoader(self._batch, recipe.data.workers)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((*self.seed, step))
        chosen = [int(rng.choice(self.groups[n % len(self.groups)])) for n in range(_BATCH)]
        images = np.stack([_varied(self.views.images[i], self.views.masks[i], rng) for i in chosen])
        return torch.from_numpy(images), torch.from_numpy(self.views.codes[chosen]).long()

    def step(self, index: int) -> Mapping[str, float]:
        """Train one batch."""
        self.network.train()
        images, codes = self.batches(index)
        logits = _SCALE * self.network.encode_image(images) @ self.text.T
        loss = partial_cross_entropy(logits[..., None, None], codes[:, None, None], self.allowed).mean()
        self.update(loss)
        return {"cross-entropy": loss.item()}


class ViewSegmenter:
    """Logits of a segmenting network with the evidence of networks that were trained each on one of REGION_VIEWS of regions."""

    def __init__(
        self,
        network: ClipSegmenter,
        region_networks: Sequence[ClipSegmenter],
        classes: Sequence[ClassSpec],
        left_out: Sequence[str] = (),
        size: tuple[int, int] | None = None,
    ) -> None:
        self.network, self.classes, self.size = network.eval(), tuple(classes), size
        self.region_networks = [region_network.eval() for region_network in region_networks]
        self.left_out = set(left_out)
        self._texts: dict[tuple[ClassSpec, ...], Tensor] = {}

    @torch.no_grad()
    def _text(self, specs: Sequence[ClassSpec]) -> Tensor:
        key = tuple(specs)
        if key not in self._texts:
            self._texts[key] = class_embeddings(self.network, specs)
        return self._texts[key]

    def __call__(self, image: Image, specs: Sequence[ClassSpec]) -> NDArray[np.float32]:
        """Return logits (K, h, w) of an image uint8 (H, W, 3), for any classes."""
        text, own = self._text([*specs, *self.classes]), len(specs)
        logits = grid_logits(self.network, image, text, self.size)
        wanted, known = logits[:own], logits[own:]
        if not self.region_networks:
            return wanted
        numbers = instrument_regions(known, self.classes)
        for number in range(1, int(numbers.max()) + 1):
            cells = numbers == number
            wanted[:, cells] += self._evidence(image, cells, specs, text)[:, None]
        return wanted

    @torch.no_grad()
    def _evidence(
        self, image: Image, cells: NDArray[np.bool_], specs: Sequence[ClassSpec], text: Tensor
    ) -> NDArray[np.float32]:
        """Return the log-probability (K,) of each class for a region; known classes of a kind share theirs."""
        views = [torch.from_numpy(shaded(*view(image, cells))[None]) for view in REGION_VIEWS]
        looks = [one.encode_image(view)[0] for one, view in zip(self.region_networks, cycle(views), strict=False)]
        seen = (_SCALE * torch.stack(looks).mean(0) @ text.T).numpy()
        found, every = seen[: len(specs)].copy(), seen[len(specs) :]
        for instrument in (True, False):
            same = [
                (spec.kind == "instrument") == instrument and spec.name not in self.left_out for spec in self.classes
            ]
            names = {spec.name for spec, one in zip(self.classes, same, strict=True) if one}
            found[[spec.name in names for spec in specs]] = np.logaddexp.reduce(every[same])
        share = np.exp(found - np.logaddexp.reduce(every))
        raised = np.array([_RAISED * (spec.name in self.left_out) for spec in specs])
        return np.asarray(np.log((1 - _DOUBT) * share + _DOUBT / (len(self.left_out) + 2)) + raised, np.float32)
