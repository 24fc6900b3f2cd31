"""The run of `cliprl-label run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import cliprl.models.labelling.transformers_network  # noqa: F401 - registers its kind
from cliprl.engines import CliprlError, UsageError, open_bundle
from cliprl.engines.bundle.bundle import file_hash
from cliprl.engines.promptable import open_promptable
from cliprl.models.data.sample import IGNORE
from cliprl.models.evaluation.study_command import counting_progress
from cliprl.models.labelling.pseudo_labels.folder import LabelFolder
from cliprl.models.labelling.pseudo_labels.frames import LabelFrame, check_sources, iterate_frames
from cliprl.models.labelling.pseudo_labels.labeller import PromptLabeller
from cliprl.models.labelling.pseudo_labels.page import sheet_html

NO_NETWORK = "none"


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """The options of a run; the help of the command describes each."""

    sources: tuple[Path, ...]
    prompts: tuple[str, ...]
    out: Path
    bundle: str = "small"
    network: str = NO_NETWORK
    every: int = 1
    threads: int = 0


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """The number of frames of the set, of those that this run labelled, and of those that can't be read."""

    frames: int
    labelled: int
    unreadable: int


def run_labelling(options: LabelOptions, console: Console) -> LabelSummary:
    """Label the frames that are not labelled yet, and write the sheet of overlays."""
    if not options.prompts:
        raise UsageError("no prompt: name what is to be labelled, as in --prompt 'surgical instrument'")
    images = check_sources(options.sources)
    bundle = open_bundle(options.bundle)
    network = None if options.network == NO_NETWORK else open_promptable(options.network, threads=options.threads)
    labeller = PromptLabeller(bundle, options.prompts, network, options.threads)
    settings = {
        "prompts": list(options.prompts),
        "bundle": bundle.manifest.name,
        "hashes": dict(bundle.manifest.hashes),
        "network": options.network,
        "network_hashes": network_hashes(options.network),
        "every": options.every,
    }
    with LabelFolder(options.out, labeller.classes, settings, consecutive=not images) as folder:
        before, labelled = len(folder.done), 0
        with counting_progress(console) as progress:
            task = progress.add_task("labelling", total=images or None, completed=before)
            for frame in iterate_frames(options.sources, folder.has, options.every):
                labelled += label_frame(labeller, folder, frame)
                progress.update(task, completed=len(folder.done))
        unreadable = [record for record in folder.records() if "error" in record]
        if unreadable and not folder.done:
            raise CliprlError(f"no frame can be read; the first, {unreadable[0]['name']}: {unreadable[0]['error']}")
        title = f"Pseudo-labels for {', '.join(spec.name for spec in labeller.classes[1:])}"
        folder.write_page(sheet_html(title, labeller.classes, folder.records()))
        return LabelSummary(len(folder.done), labelled, len(unreadable))


def label_frame(labeller: PromptLabeller, folder: LabelFolder, frame: LabelFrame) -> bool:
    """Label one frame and write it; one that can't be read is noted. Return whether it was labelled."""
    try:
        image = frame.read()
    except CliprlError as error:
        folder.skip(frame.name, frame.source, str(error))
        return False
    if frame.starts:
        labeller.reset()
    found = labeller(image)
    record: dict[str, Any] = {
        "file": str(frame.source) if frame.is_image else None,
        "source": str(frame.source.resolve()),
        "height": image.shape[0],
        "width": image.shape[1],
        "unsure": round(float((found.labels == IGNORE).mean()), 6),
        "prompts": found.prompts,
    }
    folder.add(frame.name, frame.source if frame.is_image else None, image, found.labels, record)
    return True


def network_hashes(spec: str) -> dict[str, str]:
    """Return the SHA-256 of the files that the specification of a promptable network names, by file name."""
    paths = [Path(part) for part in spec.partition(":")[2].split(",") if part]
    return {path.name: file_hash(path) for path in paths if path.is_file()}
