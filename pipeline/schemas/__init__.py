"""JSON Schemas (draft 2020-12) of everything that `cliprl-stream` writes as JSON."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from cliprl.engines import UsageError

# events: each line of a .jsonl output. coco: .coco.json. masks: classes.json in a folder of masks.
# report: .report.json. summary: what --json prints.
NAMES = ("events", "coco", "masks", "report", "summary")


def schema_text(name: str) -> str:
    """A schema as it is published. Raises UsageError for a name that is not in `NAMES`."""
    if name not in NAMES:
        raise UsageError(f"no schema '{name}': one of {', '.join(NAMES)}")
    return (files(__name__) / f"{name}.schema.json").read_text(encoding="utf-8")


def load_schema(name: str) -> dict[str, Any]:
    """A schema as an object. Raises UsageError for a name that is not in `NAMES`."""
    schema: dict[str, Any] = json.loads(schema_text(name))
    return schema
