"""The tables of sources and sinks in the README of the pipeline are those of the registries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from cliprl.pipeline.sinks.registry import SinkKind, ordered_sinks
from cliprl.pipeline.sources.registry import SourceKind, ordered_sources

README = Path(__file__).resolve().parents[2] / "pipeline" / "README.md"


def table(heading: str, kinds: Sequence[SinkKind | SourceKind]) -> str:
    """The kinds of this package, without those of installed plugins."""
    own = [kind for kind in kinds if kind.open.__module__.startswith("cliprl.")]
    rows = []
    for kind in own:
        module = kind.open.__module__.removeprefix("cliprl.pipeline.").replace(".", "/")
        rows.append(f"| `{kind.shown}` | {kind.help} | [{module.split('/')[-1]}]({module}.py) |")
    return "\n".join((f"| {heading} | what it is | module |", "|---|---|---|", *rows))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sources", table("input", ordered_sources())), ("sinks", table("output", ordered_sinks()))],
)
def test_the_readme_lists_the_registry(name: str, expected: str) -> None:
    text = README.read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n\n(.*?)\n\n<!-- end of {name} -->", text, re.DOTALL)
    assert found, f"mark the table of {name} in {README}"
    assert found[1] == expected


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.encode()) <= 12_000
    assert max(map(len, text.splitlines())) <= 160
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (README.parent / link).exists(), link
