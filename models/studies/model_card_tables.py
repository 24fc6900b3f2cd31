"""The tables of a model card in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliprl.models.data.protocol import CHOSEN, REPORTED
from cliprl.models.evaluation.manifest_scores import FALSE_ALARMS, UNION_IOU
from cliprl.models.evaluation.scoring.bootstrap import BLOCK_FRAMES
from cliprl.models.evaluation.scoring.markdown import markdown_table

SIDES = ("base", "refined")


def markdown(card: Mapping[str, Any]) -> str:
    """Return the card's tables: the reported sets, the sets that settings were chosen on, and both under corruption."""
    parts = []
    for use, title in (
        (REPORTED, "Reported: no setting was chosen on these sets."),
        (CHOSEN, "Chosen: settings were chosen on these sets."),
    ):
        found = {name: entry for name, entry in card["rows"].items() if entry["use"] == use and not entry["severity"]}
        if found:
            parts += [title, _clean_table(found)]
    corrupted = [entry for entry in card["rows"].values() if entry["severity"]]
    if corrupted:
        parts += ["Instrument IoU under corruption, base → refined:", _corruption_table(card["rows"])]
        parts += ["ECE under corruption:", _calibration_table(card["rows"])]
    doubt = ", ".join(
        f"{key.replace('_', ' ')} {value:.3f}" for key, value in card["doubt_auroc"].items() if value is not None
    )
    parts.append(
        f"Instrument or not. Gain in points, with its 95 % interval over blocks of {BLOCK_FRAMES} frames. False alarms: share "
        "of the pixels.\nECE: of cells called instrument, before → after calibration.\n"
    )
    parts.append(f"AUROC on the reported sets: {doubt or 'undefined'}.\n")
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _clean_table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for title, entry in entries.items():
        iou, gain = entry.get("iou"), entry.get("gain_interval")
        values = [f"{iou[side]:.3f}" for side in SIDES] if iou else ["–", "–"]
        change = f"{100 * (iou['refined'] - iou['base']):+.1f}" if iou else "–"
        within = f" ({gain[0]:+.1f}, {gain[1]:+.1f})" if gain else ""
        alarms = [f"{100 * entry['false_alarms'][side]:.2f} %" for side in SIDES]
        rows.append(
            [title, str(entry["frames"]), *values, change + within, *alarms, f"{entry['steps']:.2f}", _error(entry)]
        )
    return markdown_table(
        ["set", "frames", "base", "refined", "gain", "false, base", "false, refined", "steps", "ECE"], rows
    )


def _error(entry: Mapping[str, Any]) -> str:
    """Return the calibration error before and after calibration."""
    values = [entry.get(key) for key in ("ece_of_instrument_cells", "ece_calibrated")]
    found = [f"{value:.3f}" for value in values if value is not None]
    return " → ".join(found) if found and "iou" in entry else "–"


def _calibration_table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the calibration error of each set, clean and at its severities."""
    severities = sorted({entry["severity"] for entry in entries.values()})
    rows = []
    for title, clean in entries.items():
        others = [e for e in entries.values() if e["data"] == clean["data"]]
        if not clean["severity"] and len(others) > 1:
            found = {e["severity"]: _error(e) for e in others}
            rows.append([title, *(found.get(severity, "–") for severity in severities)])
    names = ("clean" if not severity else f"severity {severity}" for severity in severities)
    return markdown_table(["set", *names], rows)


def _corruption_table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    severities = sorted({entry["severity"] for entry in entries.values() if entry["severity"]})
    rows = []
    for title, clean in entries.items():
        cells = []
        for severity in severities:
            found = [e for e in entries.values() if e["data"] == clean["data"] and e["severity"] == severity]
            iou = found[0].get("iou") if found else None
            cells.append(f"{iou['base']:.3f} → {iou['refined']:.3f}" if iou else "–")
        if not clean["severity"] and set(cells) != {"–"}:
            rows.append([title, *cells])
    return markdown_table(["set", *(f"severity {severity}" for severity in severities)], rows)


def manifest_scores(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card's scores as a manifest lists them: by row, {definition, use, frames, base, refined}.

    A row without any instrument has the share of false alarms.
    """
    scores = {}
    for title, entry in card["rows"].items():
        found = entry.get("iou") or entry["false_alarms"]
        sides = {side: {"pooled": found[side]} for side in SIDES}
        definition = UNION_IOU if "iou" in entry else FALSE_ALARMS
        scores[title] = {"definition": definition, "use": entry["use"], "frames": {"pooled": entry["frames"]}, **sides}
    return scores
