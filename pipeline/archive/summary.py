"""The summary of an archive: a page that needs no network, and its counts as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cliprl.pipeline.archive.driver import VideoOutcome
from cliprl.pipeline.archive.progress import time_text
from cliprl.pipeline.sinks.json_text import readable
from cliprl.pipeline.sinks.report.page import PAGE_STYLE

PAGE = "index.html"
# Files that are no videos, listed on the page.
_MOST_OTHERS = 200
_STYLE = (
    PAGE_STYLE + "td { overflow-wrap: anywhere; } @media (min-width: 40rem) { td.n, th.n { white-space: nowrap; } }"
)


@dataclass(frozen=True, slots=True)
class ArchiveSummary:
    """What the page shows. gone: records of contents that are no longer in the folder. rows: of the table, None without one."""

    folder: Path
    videos: int
    outcomes: Sequence[VideoOutcome]
    gone: Sequence[Mapping[str, Any]]
    others: Sequence[str]
    rows: int | None

    @property
    def failed(self) -> list[VideoOutcome]:
        """The videos that failed."""
        return [one for one in self.outcomes if not one.good]

    @property
    def done(self) -> list[VideoOutcome]:
        """The videos whose outputs are complete, each content once."""
        return list(self._by_content().values())

    @property
    def copies(self) -> list[tuple[VideoOutcome, VideoOutcome]]:
        """The videos that have the content of another, each with the other."""
        done = self._by_content()
        pairs = ((one, done[one.record["content"]]) for one in self.outcomes if one.good and one.record)
        return [(one, other) for one, other in pairs if one is not other]

    def _by_content(self) -> dict[str, VideoOutcome]:
        """The video of each content: the one that was processed, or, if it was renamed, the first with the content."""
        found: dict[str, VideoOutcome] = {}
        for one in self.outcomes:
            if one.good and one.record is not None:
                known = found.get(one.record["content"])
                if known is None or (known.first and not one.first):
                    found[one.record["content"]] = one
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the counts, and the reason of each failure."""
        return {
            "videos": self.videos,
            "done": len(self.done),
            "copies": len(self.copies),
            "failed": len(self.failed),
            "waiting": self.videos - len(self.outcomes),
            "new": sum(one.is_new for one in self.outcomes),
            "rows": self.rows,
            "failures": [{"video": readable(one.video), "reason": one.reason} for one in self.failed],
            "copies_of": {readable(one.video): readable(other.video) for one, other in self.copies},
            "others": [readable(name) for name in self.others],
        }

    def text(self) -> str:
        """Return the counts in words."""
        counts = [f"{len(self.done):,} {'video' if len(self.done) == 1 else 'videos'} done"]
        counts += [f"{len(self.copies):,} {'copy' if len(self.copies) == 1 else 'copies'}"] if self.copies else []
        counts += [f"{len(self.failed):,} failed"] if self.failed else []
        waiting = self.videos - len(self.outcomes)
        return ", ".join([*counts, f"{waiting:,} not processed yet"] if waiting else counts)


def summary_page(summary: ArchiveSummary) -> str:
    """Return the page as HTML."""
    name = escape(readable(summary.folder.resolve().name or str(summary.folder)))
    parts = [
        _figures(summary),
        _section("Failed", ("Video", "Reason"), (_failed(one) for one in summary.failed)),
        _section(
            "Videos",
            ("Video", "Length", "Frames", "Instrument", "Low confidence", "Damaged", "Notes"),
            map(_done, summary.done),
        ),
        _section("Copies", ("Video", "Same content as"), (_pair(a.video, b.video) for a, b in summary.copies)),
        _section(
            "No longer in the folder", ("Video", "Outputs"), (_pair(r["video"], r["folder"]) for r in summary.gone)
        ),
        _section(
            f"Other files: {len(summary.others):,}",
            ("File",),
            (_cells(readable(o)) for o in summary.others[:_MOST_OTHERS]),
        ),
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Archive: {name}</title><style>{_STYLE}</style></head>
<body><main>
<h1>Archive: {name}</h1>
<p class="notice">Made by cliprl from its segmentation. Research use only: not a medical device, not for diagnosis.</p>
{"".join(parts)}
</main></body></html>
"""


def _figures(summary: ArchiveSummary) -> str:
    records = [one.record for one in summary.done if one.record is not None]
    rows = [
        ("Videos", f"{summary.videos:,}"),
        ("Done", f"{len(summary.done):,}"),
        ("Failed", f"{len(summary.failed):,}"),
        ("Copies", f"{len(summary.copies):,}"),
        ("Not processed yet", f"{summary.videos - len(summary.outcomes):,}"),
        ("Length", time_text(sum(record["length"] for record in records))),
        ("Frames", f"{sum(record['frames'] for record in records):,}"),
        ("Rows of events", "no table" if summary.rows is None else f"{summary.rows:,}"),
    ]
    return f"<dl>{''.join(f'<div><dt>{key}</dt><dd>{value}</dd></div>' for key, value in rows)}</dl>"


def _section(title: str, heads: Sequence[str], rows: Iterable[str]) -> str:
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    if not body:
        return ""
    head = "".join(f'<th scope="col"{_CLASS if name in _NUMBERS else ""}>{name}</th>' for name in heads)
    return f"<h2>{title}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


_NUMBERS = ("Length", "Frames", "Instrument", "Low confidence", "Damaged")
_CLASS = ' class="n"'


def _cells(*values: str) -> str:
    return "".join(f"<td>{escape(value)}</td>" for value in values)


def _pair(video: str, other: str) -> str:
    return _cells(readable(video), readable(other))


def _failed(one: VideoOutcome) -> str:
    return _cells(readable(one.video), one.reason)


def _done(one: VideoOutcome) -> str:
    record = one.record or {}
    report = next((name for name in record["outputs"] if name.endswith(".html")), "")
    link = quote(f"{record['folder']}/{report}", errors="surrogateescape")
    shares = (record[name] / max(record["frames"], 1) for name in ("instrument_frames", "low_confidence_frames"))
    numbers = [
        time_text(record["length"]),
        f"{record['frames']:,}",
        *(f"{share:.1%}" for share in shares),
        str(record["damaged"]),
    ]
    cells = "".join(f"<td{_CLASS}>{value}</td>" for value in numbers)
    renamed = [f"processed as {readable(one.first)}"] if one.first else []
    name = f'<td><a href="{escape(link)}">{escape(readable(one.video))}</a></td>'
    return f"{name}{cells}{_cells('; '.join([*renamed, *record['notes']]))}"
