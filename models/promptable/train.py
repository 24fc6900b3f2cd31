"""Train the promptable head of a bundle and add it: `python -m cliprl.models.promptable.train BUNDLE --data LINE --data LINE`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import Bundle, UsageError, open_bundle, seal_bundle
from cliprl.engines.bundle.bundle import PROMPT_HEAD
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.cli.console import error_console
from cliprl.engines.promptable.head import held_mask, hold_clicks
from cliprl.engines.promptable.hints import cell_descriptors, hint_maps
from cliprl.engines.promptable.prompt_maps import prompt_maps
from cliprl.models.data.batch_loader import Mixture
from cliprl.models.data.registry import DatasetContext
from cliprl.models.data.sample import IGNORE, instrument_classes
from cliprl.models.export.onnx_export import write_prompt_head
from cliprl.models.promptable.annotator import next_click
from cliprl.models.promptable.network import PromptHead, repeat_head
from cliprl.models.promptable.samples import PromptSample, draw_object, draw_view
from cliprl.models.training.run_datasets import TrainingDataset
from cliprl.models.training.stages.gradient_stage import cosine_rate
from cliprl.pipeline.segment.segmenter import Segmenter

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
# The most clicks of an object in training, the share of objects that begin with a box, and that of these without a mask.
TRAINED_CLICKS, BOX_SHARE, BOX_ALONE = 8, 0.25, 0.7
RATE = 1.5e-3
LOG_EVERY = 25


def open_mixture(lines: Sequence[str], bundle: Bundle, context: DatasetContext) -> Mixture:
    """Open data set lines with the options of a training line, relabelled with the classes of the bundle."""
    if not lines:
        raise UsageError("no data to train on: give --data LINE with a share above 0")
    sets = TrainingDataset.open(lines, context)
    return Mixture([one.learned(bundle.manifest.classes) for one in sets], [one.share for one in sets])


class HeadTraining:
    """The training loop. `head` is trained in place by `step`, which returns the loss of a batch.

    Each of `batch` places of a batch holds an object, drawn by `draw`, that a simulated annotator corrects: one click a step.
    """

    def __init__(self, head: PromptHead, draw: Callable[[Generator], PromptSample], batch: int, steps: int) -> None:
        self.head, self._draw, self._batch = head, draw, batch
        self._optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=1e-3)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: cosine_rate(step, steps))
        self._places: list[_CorrectedSample] = []

    def step(self, index: int) -> float:
        """Train on one batch: the head corrects its own last mask of each object after one more click."""
        inputs = self.inputs(index)
        truth = torch.from_numpy(np.stack([one.truth for one in self._places]))
        self.head.train()
        predicted = self.head(*inputs)
        loss = mask_loss(_upsampled(predicted, truth), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        self.update()
        for one, mask in zip(self._places, predicted.detach()[:, 0].numpy(), strict=True):
            one.answer(mask)
        return loss.item()

    def inputs(self, index: int) -> list[Tensor]:
        """Return the inputs of a batch: new objects take the places of those that are done."""
        rng = np.random.default_rng((1, index))
        self._places = [one for one in self._places if one.goes_on]
        while len(self._places) < self._batch:
            self._places.append(_CorrectedSample(self._draw(rng), rng))
        return [
            torch.from_numpy(np.stack(arrays)) for arrays in zip(*(one.inputs() for one in self._places), strict=True)
        ]

    def update(self) -> None:
        """Make a step along the gradients."""
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 2.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)


class _CorrectedSample:
    """An object that is being corrected: its clicks so far, its box and its present mask."""

    def __init__(self, sample: PromptSample, rng: Generator) -> None:
        self.truth, self._sample, self._logits = sample.truth, sample, sample.logits
        self._grid = self._logits.shape
        self._scale = self._grid[1] / self.truth.shape[1]
        self._cells = cell_descriptors(sample.features[None], sample.image[None])
        self._points, self._labels = np.zeros((0, 2)), np.zeros(0, np.int64)
        rows, columns = np.nonzero(self.truth == 1)
        self._waits = rng.random() < BOX_SHARE and len(rows) > 0  # a box stands alone at first
        self._boxes, self._held = np.zeros((0, 4)), np.zeros(self._grid, bool)
        if self._waits:
            if rng.random() < BOX_ALONE:
                self._logits = np.zeros_like(self._logits)
            corners = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
            self._boxes = (corners + rng.normal(0, 0.02, 4) * self.truth.shape[1])[None] * self._scale
        self._rounds = int(rng.integers(1, TRAINED_CLICKS + 1))
        self._click()

    @property
    def goes_on(self) -> bool:
        return self._rounds > 0

    def inputs(self) -> tuple[NDArray[Any], ...]:
        """Return the inputs of the head: those of `PromptHead.forward`."""
        newest = not self._waits and len(self._points) > 0
        present, self._held = held_mask(self._logits, self._points, self._labels, newest=newest)
        maps = prompt_maps(self._points, self._labels, self._boxes, (self._grid[0], self._grid[1]))
        hints = hint_maps(self._cells, present, self._held, self._points, self._labels, self._boxes, newest=newest)
        return self._sample.features, self._sample.image, maps, present[None], hints

    def answer(self, mask: NDArray[np.float32]) -> None:
        """Take the head's answer, and click on its largest error if there are rounds left."""
        hold_clicks(mask, self._held, self._points, self._labels)
        self._logits, self._waits = mask, False
        self._rounds -= 1
        if self.goes_on:
            self._click()

    def _click(self) -> None:
        if not self._waits:
            shown = cv2.resize(self._logits, self.truth.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0
            if (click := next_click(shown, self.truth)) is None:
                self._rounds = 0
            else:
                self._points = np.vstack([self._points, [click.x * self._scale, click.y * self._scale]])
                self._labels = np.append(self._labels, int(click.positive))


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return cross-entropy plus soft Jaccard loss of logits (B, H, W) against truth uint8 of 1, 0 and IGNORE."""
    known, object_ = (truth != IGNORE).float(), (truth == 1).float()
    crossed = F.binary_cross_entropy_with_logits(logits, object_, reduction="none") * known
    p = logits.sigmoid() * known
    both = (p * object_).sum((1, 2))
    union = p.sum((1, 2)) + object_.sum((1, 2)) - both
    jaccard = 1 - (both + 1) / (union + 1)
    return (2 * crossed.sum((1, 2)) / known.sum((1, 2)).clamp(min=1) + jaccard).mean()


def _upsampled(logits: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(logits, like.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


@app.command()
def train_head(
    bundle: Annotated[str, typer.Argument(metavar="FOLDER", help="The bundle, which the head is added to.")],
    data: Annotated[list[str], typer.Option(help="Data to train on: KIND:FOLDER?OPTION=VALUE; may be repeated.")],
    root: Annotated[Path, typer.Option(help="Folder that holds the folders of the data sets.")] = Path(),
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1500,
    batch: Annotated[int, typer.Option(min=2, help="Images of a step.")] = 12,
    views: Annotated[int, typer.Option(min=1, help="Views of the data that are drawn and encoded at first.")] = 2000,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the training.")] = 1,
    precision: Annotated[str, typer.Option(help="Arithmetic of the bundle's networks.")] = "auto",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Train the promptable head on the features of a bundle, write it into the bundle's folder, and seal the bundle again.

    The head learns to correct masks of corrupted images by the clicks and boxes of a simulated annotator.
    """
    console, opened = error_console(quiet=quiet), open_bundle(bundle)
    manifest = opened.manifest
    try:
        # Tried now, since the head is finished only after the training.
        tempfile.TemporaryDirectory(prefix=".", dir=opened.path).cleanup()
    except OSError as error:
        raise UsageError(f"'{opened.path}' can't be written ({error.strerror}): copy the bundle elsewhere") from error
    mixture = open_mixture(data, opened, DatasetContext(root, "--root"))
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    segmenter, start = Segmenter(opened, precision=precision, threads=threads), time.monotonic()
    drawn = [draw_view(opened, mixture, segmenter, np.random.default_rng((2, n))) for n in range(views)]
    console.print(f"drew and encoded {views} views in {time.monotonic() - start:.0f} s")
    first, instrument = drawn[0], instrument_classes(manifest.classes)

    def draw(rng: Generator) -> PromptSample:
        return draw_object(drawn[int(rng.integers(views))], instrument, rng)

    head = PromptHead(len(first.features), manifest.stride).to(memory_format=torch.channels_last)
    training = HeadTraining(head, draw, batch, steps)
    if PROMPT_HEAD in manifest.hashes:
        repeat_head(head, opened.path / PROMPT_HEAD, training.inputs(0))
    losses: list[float] = []
    for index in range(steps):
        losses.append(training.step(index))
        if (index + 1) % LOG_EVERY == 0 or index + 1 == steps:
            mean, took = np.mean(losses[-LOG_EVERY:]), time.monotonic() - start
            console.print(f"step {index + 1} of {steps}: loss {mean:.3f}, {took:.0f} s")
    with tempfile.TemporaryDirectory(prefix="cliprl-head-") as folder:
        write_prompt_head(head, first.features.astype(np.float32), first.image, Path(folder))
        graph = Path(folder, PROMPT_HEAD).read_bytes()
    seal_bundle(opened.path, manifest, opened.embeddings, {PROMPT_HEAD: graph})
    console.print(f"wrote {opened.path / PROMPT_HEAD}")


if __name__ == "__main__":
    raise SystemExit(run_app(app, "python -m cliprl.models.promptable.train"))
