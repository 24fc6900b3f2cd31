"""Format the scores of `Evaluator.to_json` as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# The scores of the table by corruption, by their keys.
HEADLINE_SCORES = ("dataset_miou_without_background", "endovis2018_challenge_miou", "nsd", "consecutive_iou", "ece")
# The scores of the first table, by their keys.
FIRST_SCORES = ("instrument_iou", "dataset_miou_without_background", "false_alarms", "consecutive_iou", "ece")
# Sequences side by side in a table: with a score's name they fit into a terminal of 80 columns.
ACROSS = 4


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers, aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def format_score(value: float | None) -> str:
    """Three decimals, or a dash for what is not defined."""
    return "–" if value is None else f"{value:.3f}"


def score_table(result: Mapping[str, Any]) -> str:
    """Every score over all frames, with its interval."""
    rows = []
    for score in result["scores"].values():
        limits = score["interval"]
        within = f"{format_score(limits[0])} to {format_score(limits[1])}" if limits else "–"
        rows.append([score["title"], format_score(score["value"]), within])
    return markdown_table(["score", "value", "95 % interval"], rows)


def headline_table(result: Mapping[str, Any]) -> str:
    """Return the five headline scores, each over all frames; the parts are the foreground classes."""
    scores = result["scores"]
    names = {"dataset_miou_without_background": "parts: " + str(len(result["classes"]) - 1) + " classes, mean IoU"}
    rows = [
        [names.get(key, scores[key]["title"]), format_score(scores[key]["value"])]
        for key in FIRST_SCORES
        if key in scores
    ]
    return markdown_table(["headline", "value"], rows)


def worst_table(worst: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the files of the worst frames by IoU and by false area."""
    rows = [[frame["file"], order, format_score(frame["value"])] for order, frames in worst.items() for frame in frames]
    return markdown_table(["worst frame", "by", "value"], rows)


def sequence_tables(result: Mapping[str, Any]) -> str:
    """Every score of each sequence alone: scores down, sequences across, a few in a table."""
    scores, names = list(result["scores"].values()), list(result["sequences"])
    parts = []
    for start in range(0, len(names), ACROSS):
        few = names[start : start + ACROSS]
        rows = [["frames", *(str(result["sequences"][name]) for name in few)]]
        rows += [[_short(score), *(format_score(score["sequences"].get(name)) for name in few)] for score in scores]
        # a name of several words can break into lines
        parts.append(markdown_table(["score", *(name.replace("_", " ") for name in few)], rows))
    return "\n".join(parts)


def _short(score: Mapping[str, Any]) -> str:
    """A score's title without what it says in brackets."""
    return str(score["title"]).partition(" (")[0]


def class_table(result: Mapping[str, Any]) -> str:
    """Each class's own scores, and its shares of the pixels."""
    columns = result["per_class"]
    rows = []
    for i, name in enumerate(result["classes"]):
        scores = [format_score(columns[key][i]) for key in ("dataset_iou", "dataset_dice", "mean_frame_iou", "nsd")]
        shares = [
            f"{100 * columns[key][i] / max(1, sum(columns[key])):.2f} %" for key in ("truth_pixels", "found_pixels")
        ]
        rows.append([name, *scores, *shares])
    note = (
        "IoU and Dice: of the data set; frame IoU: the mean over the frames that have the class; share of all pixels."
    )
    return markdown_table(["class", "IoU", "Dice", "frame IoU", "NSD", "truth", "found"], rows) + f"\n{note}\n"


def corruption_tables(results: Sequence[Mapping[str, Any]]) -> str:
    """One table a headline score: kinds down, severities across, and the mean over kinds. The first result is the clean one."""
    clean, *worse = results
    kinds = list(dict.fromkeys(r["corruption"]["kind"] for r in worse))
    severities = sorted({r["corruption"]["severity"] for r in worse})
    by_place = {(r["corruption"]["kind"], r["corruption"]["severity"]): r["scores"] for r in worse}
    parts = []
    for key in (k for k in HEADLINE_SCORES if k in clean["scores"]):
        grid = {kind: [by_place[kind, s][key]["value"] for s in severities] for kind in kinds}
        rows = [[kind, *map(format_score, values)] for kind, values in grid.items()]
        rows.append(["**mean**", *(format_score(_mean(column)) for column in zip(*grid.values(), strict=True))])
        title = clean["scores"][key]["title"]
        parts.append(f"**{title}** (clean: {format_score(clean['scores'][key]['value'])})\n")
        parts.append(markdown_table(["corruption", *(f"severity {s}" for s in severities)], rows))
    return "\n".join(parts)


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def format_summary(run: Mapping[str, Any]) -> str:
    """Return the settings of an evaluation and all its tables."""
    clean = run["results"][0]
    frames = f"{clean['frames']} frames of {len(clean['sequences'])} sequences"
    settings = {key: value for key, value in run["settings"].items() if value not in (None, [])}
    what = [f"- {key.replace('_', ' ')}: {_text(value)}" for key, value in settings.items()]
    sections = [
        f"# {run['bundle']} on {run['data']}\n",
        "\n".join([*what, f"- scored: {frames}"]) + "\n",
        headline_table(clean),
        "## Scores\n",
        score_table(clean),
        "Intervals: bootstrap over sequences; a dash where there is one sequence, or nothing to score.\n",
        "## By sequence\n",
        sequence_tables(clean),
        "## By class\n",
        class_table(clean),
    ]
    if any(run.get("worst", {}).values()):
        sections += ["## Worst frames\n", worst_table(run["worst"])]
    if len(run["results"]) > 1:
        sections += ["## Under corruption\n", corruption_tables(run["results"])]
    return "\n".join(sections)


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def format_report(run: Mapping[str, Any]) -> str:
    """The summary, and what each score means."""
    rules = [f"- **{score['title']}**: {score['rule']}." for score in run["results"][0]["scores"].values()]
    return "\n".join([format_summary(run), "## What the scores are\n", *rules]) + "\n"
