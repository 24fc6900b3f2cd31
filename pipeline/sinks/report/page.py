"""The report as one HTML page: it needs no network and no scripts, and prints on any paper."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import PurePath

from cliprl.pipeline.sinks.json_text import readable
from cliprl.pipeline.sinks.report.image_quality import NO_ESTIMATE, NOT_MEASURED, QUALITY_SERIES
from cliprl.pipeline.sinks.report.recorder import LOW_CONFIDENCE, CaseRecorder, DoubtfulFrame
from cliprl.pipeline.sinks.report.timeline import PresenceTimeline
from cliprl.pipeline.sources.errors import redact

PAGE_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 1.8rem 0 .5rem; }
.notice { color: #555; margin: .2rem 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid #ddd; vertical-align: middle; }
td.n, th.n { text-align: right; } td.line { width: 45%; } svg { display: block; width: 100%; height: 1.1rem; background: #eee; }
svg.series { height: 2.6rem; } svg.series path { vector-effect: non-scaling-stroke; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin: 0; }
dl div { border: 1px solid #ddd; border-radius: .4rem; padding: .5rem .7rem; } dt { color: #555; font-size: .85rem; }
dd { margin: 0; font-size: 1.25rem; font-weight: 600; }
.frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .7rem; }
figure { margin: 0; break-inside: avoid; } img { width: 100%; display: block; } figcaption { font-size: .85rem; color: #444; }
tr, dl div { break-inside: avoid; } h2 { break-after: avoid; }
@media (max-width: 40rem) { body { padding: 0 .5rem; } th, td { padding: .2rem; font-size: .8rem; overflow-wrap: anywhere; } }
@page { margin: 15mm; }
@media print { body { margin: 0; max-width: none; padding: 0; font-size: 11px; } * { print-color-adjust: exact; }
  .frames { display: block; } figure { display: inline-block; width: 31%; margin: 0 1% .7rem 0; vertical-align: top; } }
"""
_QUALITY_TITLES = {"haze": "Haze, smoke", "brightness": "Brightness", "noise": "Noise"}
_QUALITY_NOTE = (
    "Measured on the network input, before it is restored, in the endoscope's view; 0 is black, 255 is white. Haze is the "
    "brightness of the darkest tenth: smoke raises it, and so does a view without dark parts. Brightness is the mean, low in the "
    "dark. Noise is a standard deviation. Area: mean. Line: the worst frame, for brightness the darkest."
)


def clock(seconds: float) -> str:
    """Return a time as h:mm:ss.s."""
    tenths = round(max(seconds, 0) * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def report_page(case: CaseRecorder) -> str:
    """Return the page as HTML."""
    name = escape(title_name(readable(redact(case.spec.stream.name))))
    length = max(case.end - case.start, 0.0)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Case report: {name}</title><style>{PAGE_STYLE}</style></head>
<body><main>
<h1>Case report: {name}</h1>
<p class="notice">Made by cliprl from its segmentation. Research use only: not a medical device, not for diagnosis.</p>
{_figures(case, length)}
<h2>Timeline</h2>
{_timelines(case, length)}
<h2>Image quality</h2>
{_quality(case, length)}
<h2>Camera stalls</h2>
{_stalls(case)}
<h2>Frames of low confidence</h2>
{_doubtful(case)}
</main></body></html>
"""


def title_name(name: str) -> str:
    """The name of an input without the folders of a local one, which may hold more than a reader of the page should see."""
    is_address = re.match(r"[\w+-]{2,}:", name) is not None
    return name if is_address else PurePath(name).name or name


def _figures(case: CaseRecorder, length: float) -> str:
    share = case.low / max(case.segmented, 1)
    rows = [
        ("Length", clock(length)),
        ("Frames", f"{case.frames:,}"),
        ("Instruments", f"{case.number_of_instruments}" if case.tracked else "not tracked"),
        ("Outside the body", clock(case.outside.seconds)),
        ("Camera stalls", f"{case.number_of_stalls}"),
        ("Damaged frames", f"{case.damaged}"),
        ("Not segmented", f"{case.frames - case.segmented}"),
        ("Low confidence", f"{share:.1%}" if case.segmented else "not segmented"),
    ]
    return f"<dl>{''.join(f'<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>' for k, v in rows)}</dl>"


def _timelines(case: CaseRecorder, length: float) -> str:
    head = f'<tr><th scope="col">In view</th><th scope="col">From {clock(0)} to {clock(length)}</th>'
    head += (
        "".join(f'<th scope="col" class="n">{title}</th>' for title in ("Time in use", "Share", "Entries")) + "</tr>"
    )
    rows = []
    for _, name, color, line in case.lines():
        cells = (
            f'<td class="n">{clock(line.seconds)}</td><td class="n">{line.seconds / length if length else 0:.1%}</td>'
        )
        cells += f'<td class="n">{len(line.intervals)}</td>'
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="line">{_bar(case, name, color, line)}</td>{cells}</tr>'
        )
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _bar(case: CaseRecorder, name: str, color: tuple[int, int, int], line: PresenceTimeline) -> str:
    length = max(case.end - case.start, 1e-6)
    bars = "".join(
        f'<rect x="{1000 * (i.start - case.start) / length:.2f}" y="0" height="10" '
        f'width="{max(1000 * (i.end - i.start) / length, 0.8):.2f}"><title>{clock(i.start)} to {clock(i.end)}</title></rect>'
        for i in line.intervals
    )
    label = escape(f"{name}: in view {len(line.intervals)} times, {clock(line.seconds)} in total", quote=True)
    fill = "#{:02x}{:02x}{:02x}".format(*color)
    return f'<svg viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="{label}" fill="{fill}">{bars}</svg>'


def _quality(case: CaseRecorder, length: float) -> str:
    missing = f"{' and '.join(NOT_MEASURED).capitalize()} are not measured."
    if not case.quality.points:
        return f"<p>Not measured: {escape(NO_ESTIMATE)}. {missing}</p>"
    head = f'<tr><th scope="col">Measure</th><th scope="col">From {clock(0)} to {clock(length)}</th>'
    head += '<th scope="col" class="n">Mean</th><th scope="col" class="n">Worst</th></tr>'
    rows = "".join(_quality_row(case, name) for name in QUALITY_SERIES)
    text = f"{_QUALITY_NOTE} {missing} Frames with an estimate: {case.quality.frames:,}."
    return f"<p>{text}</p><table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _quality_row(case: CaseRecorder, name: str) -> str:
    points, mean, worst = case.quality.points, case.quality.mean(name), case.quality.worst(name)
    top = 255 if name != "noise" else max(math.ceil(worst.worst[name] / 10), 1) * 10
    title, at = _QUALITY_TITLES[name], f"{worst.worst[name]:.1f} at {clock(worst.start - case.start)}"
    label = f"{title}: mean {mean:.1f}, worst {at}; the scale is 0 to {top}"
    area = _step_path(case, [point.mean(name) / top for point in points], is_area=True)
    line = _step_path(case, [point.worst[name] / top for point in points], is_area=False)
    chart = f'<svg class="series" viewBox="0 0 1000 40" preserveAspectRatio="none" role="img" aria-label="{label}">'
    chart += (
        f'<path d="{area}" fill="#8a9bb0"/><path d="{line}" fill="none" stroke="#8c1d18" stroke-width="1.5"/></svg>'
    )
    cells = f'<td class="line">{chart}</td><td class="n">{mean:.1f}</td><td class="n">{at}</td>'
    return f'<tr><th scope="row">{title}<br><small>0 to {top}</small></th>{cells}</tr>'


def _step_path(case: CaseRecorder, shares: Sequence[float], *, is_area: bool) -> str:
    """The path of a step chart in a box of 1000 by 40; it is interrupted where no frame was measured."""
    scale, path, last = 1000 / max(case.end - case.start, 1e-6), "", -math.inf
    for point, share in zip(case.quality.points, shares, strict=True):
        left, right = (scale * (seconds - case.start) for seconds in (point.start, point.end))
        height = f"{40 * (1 - min(share, 1)):.1f}"
        if left > last + 1:
            path += ("V40Z" if is_area and path else "") + f"M{left:.1f},{'40' if is_area else height}"
        path += f"V{height}H{right:.1f}"
        last = right
    return path + ("V40Z" if is_area else "")


def _stalls(case: CaseRecorder) -> str:
    if not case.stalls:
        return "<p>None: no frame came late.</p>"
    longest = sorted(case.stalls, key=lambda stall: -stall[1])[:20]
    rows = "".join(f"<tr><td>{clock(after)}</td><td class='n'>{gap:.2f} s</td></tr>" for after, gap in sorted(longest))
    more = (
        f"<p>The {len(longest)} longest of {case.number_of_stalls}.</p>" if case.number_of_stalls > len(longest) else ""
    )
    head = '<tr><th scope="col">After</th><th scope="col" class="n">No frame for</th></tr>'
    return f"{more}<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _doubtful(case: CaseRecorder) -> str:
    share = case.low / max(case.segmented, 1)
    text = f"<p>{case.low:,} of {case.segmented:,} segmented frames ({share:.1%}) have a confidence below {LOW_CONFIDENCE:g}."
    text += " The least confident moments:</p>" if case.doubtful else "</p>"
    figures = "".join(_figure(one) for one in sorted(case.doubtful, key=lambda one: one.index))
    return f'{text}<div class="frames">{figures}</div>' if figures else text


def _figure(one: DoubtfulFrame) -> str:
    data = base64.b64encode(one.image).decode("ascii")
    caption = f"{clock(one.seconds)}, frame {one.index}, confidence {one.confidence:.2f}"
    return f'<figure><img alt="Frame {one.index}" src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>'
