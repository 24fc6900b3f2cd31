"""Train the promptable head of a bundle and add it: `python -m cliprl.models.promptable.train BUNDLE --data LINE --data LINE`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import Bundle, UsageError, open_bundle, seal_bundle
from cliprl.engines.bundle.bundle import PROMPT_HEAD
from cliprl.engines.cli.cli_runner import error_console, run_app
from cliprl.engines.promptable.prompt_maps import prompt_maps
from cliprl.models.data.batch_loader import BatchLoader, Mixture
from cliprl.models.data.registry import DatasetContext
from cliprl.models.data.sample import IGNORE
from cliprl.models.export.onnx_export import write_prompt_head
from cliprl.models.promptable.annotator import Click, next_click
from cliprl.models.promptable.network import PromptHead
from cliprl.models.promptable.samples import PromptSample, SampleMaker, stacked
from cliprl.models.training.run_datasets import TrainingDataset
from cliprl.models.training.stages.gradient_stage import cosine_rate

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
# Clicks of each sample while it is trained on, and the share of samples that begin with a box.
CLICKS, BOX_SHARE = 3, 0.25
RATE = 3e-3
LOG_EVERY = 25


def open_mixture(lines: Sequence[str], bundle: Bundle, context: DatasetContext) -> Mixture:
    """Open data set lines with the options of a training line, relabelled with the classes of the bundle."""
    if not lines:
        raise UsageError("no data to train on: give --data LINE with a share above 0")
    sets = TrainingDataset.open(lines, context)
    return Mixture([one.learned(bundle.manifest.classes) for one in sets], [one.share for one in sets])


class HeadTraining:
    """The training loop. `head` is trained in place by `step`, which returns the mean loss of a batch."""

    def __init__(self, head: PromptHead, batches: BatchLoader[list[PromptSample]], steps: int) -> None:
        self.head, self.batches = head, batches
        self._optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=1e-3)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: cosine_rate(step, steps))

    def step(self, index: int) -> float:
        """Train on one batch: after each click of the simulated annotator the head corrects its own last mask."""
        rng = np.random.default_rng((1, index))
        samples = self.batches(index)
        features, images, truths, present = stacked(samples)
        still = torch.from_numpy(features), torch.from_numpy(images)
        logits, truth = torch.from_numpy(present), torch.from_numpy(truths)
        prompts = [_ClickedSample(one, features.shape[2:], rng) for one in samples]
        losses = []
        self.head.train()
        for _ in range(CLICKS):
            with torch.no_grad():
                masks = (_upsampled(logits, truth) > 0).numpy()
            for prompt, mask in zip(prompts, masks, strict=True):
                prompt.click(mask)
            maps = torch.from_numpy(np.stack([prompt.maps() for prompt in prompts]))
            with torch.autocast("cpu", torch.bfloat16):
                predicted = self.head(*still, maps, logits).float()
            loss = mask_loss(_upsampled(predicted, truth), truth)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
            logits = predicted.detach()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 2.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(np.mean(losses))


class _ClickedSample:
    """The clicks of one sample so far, and its box."""

    def __init__(self, sample: PromptSample, grid: Sequence[int], rng: np.random.Generator) -> None:
        truth, box = sample.truth, rng.random() < BOX_SHARE and not sample.earlier
        self._truth, self._grid = truth, (int(grid[0]), int(grid[1]))
        self._scale = grid[1] / truth.shape[1]
        self._clicks: list[Click] = []
        rows, columns = np.nonzero(truth == 1)
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        jitter = rng.normal(0, 0.02, 4) * truth.shape[1]
        self._boxes = np.array([corners + jitter]) * self._scale if box else np.zeros((0, 4))
        self._waits = box or sample.earlier

    def click(self, mask: NDArray[Any]) -> None:
        """Add the next click. At first a box stands alone, and so does a mask of a moment earlier."""
        self._waits, waits = False, self._waits
        if not waits and (click := next_click(mask, self._truth)) is not None:
            self._clicks.append(click)

    def maps(self) -> NDArray[Any]:
        points = np.array([[click.x, click.y] for click in self._clicks]).reshape(-1, 2) * self._scale
        return prompt_maps(points, np.array([int(c.positive) for c in self._clicks]), self._boxes, self._grid)


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
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 400,
    batch: Annotated[int, typer.Option(min=2, help="Images of a step.")] = 12,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads of the training; the bundle's networks take one more.")
    ] = 1,
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
    maker = SampleMaker(opened, mixture, precision=precision, threads=1)
    first, start = maker.batch(0, 1)[0], time.monotonic()
    head = PromptHead(len(first.features), manifest.stride).to(memory_format=torch.channels_last)
    batches = BatchLoader(lambda index: maker.batch(index, batch), threads=1)  # one thread: the engines are not shared
    training = HeadTraining(head, batches, steps)
    try:
        losses: list[float] = []
        for index in range(steps):
            losses.append(training.step(index))
            if (index + 1) % LOG_EVERY == 0 or index + 1 == steps:
                mean, took = np.mean(losses[-LOG_EVERY:]), time.monotonic() - start
                console.print(f"step {index + 1} of {steps}: loss {mean:.3f}, {took:.0f} s")
    finally:
        batches.close()
    with tempfile.TemporaryDirectory(prefix="cliprl-head-") as folder:
        write_prompt_head(head, first.features, first.image, Path(folder))
        graph = Path(folder, PROMPT_HEAD).read_bytes()
    seal_bundle(opened.path, manifest, opened.embeddings, {PROMPT_HEAD: graph})
    console.print(f"wrote {opened.path / PROMPT_HEAD}")


if __name__ == "__main__":
    raise SystemExit(run_app(app, "python -m cliprl.models.promptable.train"))
