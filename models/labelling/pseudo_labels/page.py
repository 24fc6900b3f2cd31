"""The sheet of overlays: one page on which a person looks through the masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from cliprl.engines import ClassSpec

_VIEWPORT = "<meta name='viewport' content='width=device-width, initial-scale=1'>"
_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:1rem;background:#fff;color:#111}figcaption{overflow-wrap:anywhere}"
    "h1{font-size:1.5rem;overflow-wrap:anywhere}"
    "figure{display:inline-block;vertical-align:top;margin:0 .6rem .6rem 0;width:320px;max-width:100%}img{width:100%}"
    "i{display:inline-block;width:.8em;height:.8em;margin-right:.3em;border:1px solid #555}*{print-color-adjust:exact}"
    "@page{margin:12mm}@media print{body{margin:0;font-size:11px}figure{width:47%;break-inside:avoid}}"
)


def sheet_html(title: str, classes: Sequence[ClassSpec], records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the page part by part: a legend, then an overlay with its scores for each record."""
    yield f"<!doctype html><html lang='en'><meta charset='utf-8'>{_VIEWPORT}"
    yield f"<title>{escape(title)}</title><style>{_STYLE}</style>\n"
    yield f"<main><h1>{escape(title)}</h1><p>"
    for spec in classes[1:]:
        color = f"rgb{spec.color}"
        yield f"<i style='background:{color}'></i>{escape(spec.name)} "
    yield "<i style='background:#fff'></i>unsure</p>\n"
    for record in records:
        name = str(record["name"])
        place = quote(name, errors="surrogateescape")
        if "error" in record:
            yield f"<figure><figcaption>{escape(name)}: {escape(str(record['error']))}</figcaption></figure>\n"
        else:
            yield (
                f"<figure><img loading='lazy' src='sheet/{place}.jpg' alt='{escape(name, quote=True)}'>"
                f"<figcaption>{escape(name)}: {escape(_scores(record))}</figcaption></figure>\n"
            )
    yield "</main></html>\n"


def _scores(record: Mapping[str, Any]) -> str:
    found = [
        f"{name} {100 * score['share']:.1f} %, presence {score['presence']:.2f}"
        for name, score in record["prompts"].items()
    ]
    return "; ".join([*found, f"unsure {100 * record['unsure']:.1f} %"])
