"""`cliprl-engine verify`: how every engine that can be had here compares with the reference, class by class."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cliprl.engines.bundle.bundle import Bundle
from cliprl.engines.bundle.input_size import size_of, size_text
from cliprl.engines.bundle.reference_outputs import DRAWN_KEY, reference_of
from cliprl.engines.errors import EngineError
from cliprl.engines.selection.accuracy_gate import Comparison
from cliprl.engines.selection.engine_variant import EngineVariant, compare_with_reference, engine_variants


def verify_variants(bundle: Bundle, device: str, precision: str, threads: int, out: Console) -> bool:
    """Print how every variant compares with the reference; whether any was accepted."""
    reference = reference_of(bundle)
    table = Table("backend", "precision", "network", "cosine", "labels agree", "verdict", box=None, pad_edge=False)
    accepted, refined = False, dict[str, Comparison]()
    for variant in engine_variants(bundle, device, precision, threads):
        try:
            comparisons = compare_with_reference(variant.compile()[1], variant.bundle, reference)
        except EngineError as error:
            table.add_row(variant.backend.name, variant.precision, "", "", "", f"[red]{escape(str(error))}[/]")
            continue
        for comparison in comparisons:
            table.add_row(*_row(variant, comparison))
        refined[f"{variant.backend.name} {variant.precision}"] = comparisons[1]
        accepted = accepted or not any(comparison.faults() for comparison in comparisons)
    drawn = " drawn here: the bundle brings none" if reference.source == DRAWN_KEY else " of the bundle"
    drawn += f", scaled to {size_text(size_of(bundle))}" if bundle.own_size else ""
    out.print(f"{bundle.manifest.name} beside its 32-bit reference, on {len(reference.images)} images{drawn}")
    out.print(table)
    out.print("")
    out.print(_classes(refined))
    return accepted


def _row(variant: EngineVariant, comparison: Comparison) -> tuple[str, ...]:
    faults = comparison.faults()
    return (
        variant.backend.name,
        variant.precision,
        comparison.stage,
        f"{comparison.cosine:.5f}",
        f"{comparison.agreement:.2%}",
        "[green]accepted[/]" if not faults else f"[red]refused: {escape(', '.join(faults))}[/]",
    )


def _classes(refined: Mapping[str, Comparison]) -> Table:
    """The IoU of every class that the reference shows enough of, a column an engine."""
    table = Table("IoU with the reference, refined", *refined, box=None, pad_edge=False)
    for name in dict.fromkeys(name for comparison in refined.values() for name in comparison.classes):
        values = (comparison.classes.get(name) for comparison in refined.values())
        table.add_row(escape(name), *("" if value is None else f"{value:.3f}" for value in values))
    return table
