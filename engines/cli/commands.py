"""What `cliprl-engine` does once its command line is read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cliprl.engines.atomic_write import atomic_write
from cliprl.engines.backends.engine import AUTO, Engine
from cliprl.engines.backends.registry import backend_names, backend_of, probe
from cliprl.engines.bundle.bundle import IMAGE, INT8_ENCODER, Bundle, open_bundle
from cliprl.engines.bundle.input_size import size_of, size_text, with_input_size
from cliprl.engines.bundle.reference_outputs import DRAWN_KEY, reference_of
from cliprl.engines.cache.engine_cache import EngineCache
from cliprl.engines.cli.console import error_console, reporting_errors
from cliprl.engines.errors import EngineError, UsageError, explained
from cliprl.engines.selection.accuracy_gate import Comparison
from cliprl.engines.selection.engine_variant import EngineVariant, compare_with_reference, engine_variants
from cliprl.engines.selection.load_engines import load_engines

out = Console(highlight=False, soft_wrap=True)
err = error_console(highlight=False, soft_wrap=True)


def list_backends() -> None:
    """Print every backend's answer to its probe."""
    table = Table("backend", "serves", "why", box=None, pad_edge=False)
    for answer in (probe(name) for name in backend_names()):
        table.add_row(answer.backend, "[green]yes[/]" if answer.ready else "no", escape(answer.reason))
    _wide().print(table)


def build_here(name: str, device: str, precision: str, threads: int, size: str | None = None) -> None:
    """Compile for this machine and keep the result."""
    cache, bundle = EngineCache(), with_input_size(open_bundle(name), size)
    with reporting_errors(err) as log:
        pair = load_engines(bundle, device=device, precision=precision, threads=threads, cache=cache, log=log)
    made = {"bundle": bundle.manifest.name, "backend": pair.backend, "precision": pair.precision}
    kept = any(made.items() <= entry.fields.items() for entry in cache.entries())
    where = f"is ready in {cache.folder}" if kept else "can serve, but each start compiles it anew"
    out.print(f"{pair.backend} in {pair.precision} {where}")


def build_ahead(
    name: str, targets: Sequence[str], precision: str, output: Path | None, size: str | None = None
) -> None:
    """Write TensorRT for RTX plans of both networks for GPUs that are not here. The accuracy gate waits for them there."""
    from cliprl.engines.backends.tensorrt.backend import make_engine_plan, precisions_of
    from cliprl.engines.onnx.load import EIGHT_BITS

    bundle = with_input_size(open_bundle(name), size)
    shapes = _plan_shapes(bundle)
    folder = output or Path(f"{bundle.manifest.name}-plans")
    for target in targets:
        wanted = precisions_of(target, bundle.manifest.hashes) if precision == AUTO else (precision,)
        # Eight bits are the encoder's.
        refiners = dict.fromkeys("f16" if each in EIGHT_BITS else each for each in wanted)
        for onnx, each in [*((bundle.encoder, p) for p in wanted), *((bundle.refiner, p) for p in refiners)]:
            start = time.monotonic()
            plan = make_engine_plan("tensorrt_rtx", onnx, each, shapes, target)
            at = f".{size_text(size_of(bundle))}" if bundle.own_size else ""
            path = folder / f"{onnx.stem}{at}.{target}.{each}.plan"
            _write(path, plan.data)
            out.print(f"{path}  {len(plan.data) / 1e6:.1f} MB in {time.monotonic() - start:.1f} s")


def _plan_shapes(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """Shapes that a plan is built for at a chosen input size; none at the bundle's own. Other sizes stay as in the graphs."""
    if bundle.own_size is None:
        return {}
    (height, width), stride = size_of(bundle), bundle.manifest.stride
    maps = dict.fromkeys(("features", "logits", "base", "prior"), (1, -1, height // stride, width // stride))
    return {IMAGE: (1, height, width, 3), **maps}


def quantize_bundle(name: str, frames: Sequence[Path], folder: Path) -> None:
    """Write a copy of a bundle for eight bits, on the CPU and on GPUs, and show how it compares."""
    from cliprl.engines.onnx.nncf_int8 import quantised_copy

    with reporting_errors(err) as log:
        copy = quantised_copy(open_bundle(name), frames, folder, log)
    reason = backend_of("openvino").lacks("int8", copy.manifest.hashes)
    if reason and INT8_ENCODER in copy.manifest.hashes:
        out.print(f"its int8 encoder is not compared on this machine: {reason}", markup=False)
    verify_here(str(copy.path), "cpu", AUTO, 0)


def verify_here(name: str, device: str, precision: str, threads: int, size: str | None = None) -> bool:
    """Print how every engine compares with the reference; whether any was accepted."""
    return verify_variants(with_input_size(open_bundle(name), size), device, precision, threads, _wide())


def inspect_bundle(name: str, size: str | None = None) -> None:
    """Print a bundle's classes, networks and files."""
    bundle = with_input_size(open_bundle(name), size)
    manifest = bundle.manifest
    out.print(f"[bold]{manifest.name}[/]  {bundle.path}")
    out.print(f"input {size_text(size_of(bundle))}, stride {manifest.stride}, {manifest.steps} refinement steps")
    for spec in manifest.mask_classes:
        red, green, blue = spec.color
        out.print(f"  [rgb({red},{green},{blue})]■[/] {escape(spec.name)}  [dim]{spec.kind}[/]")
    try:
        with reporting_errors(err) as log:
            pair = load_engines(bundle, log=log)
        _print_tensors("encoder", pair.encoder)
        _print_tensors("refiner", pair.refiner)
    except EngineError as error:
        err.print(f"its networks can't be shown: {error}", markup=False)
    for file, digest in manifest.hashes.items():
        length = (bundle.path / file).stat().st_size
        out.print(f"{length / 1e6:9.2f} MB  {file}  [dim]sha256 {digest[:16]}…[/]")


def _print_tensors(name: str, engine: Engine) -> None:
    out.print(f"{name}, compiled for {engine.backend} in {engine.precision}")
    for arrow, specs in (("→", engine.inputs), ("←", engine.outputs)):
        for tensor, spec in specs.items():
            out.print(f"  {arrow} {tensor} {spec}")


def list_cache(folder: Path | None) -> None:
    """Print the kept engines, the last used first."""
    cache = _cache_in(folder)
    entries = cache.entries()
    table = Table("engine", "MB", "last used", "state", box=None, pad_edge=False)
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        faults = entry.report.get("faults")
        order = entry.report.get("order")
        state = "damaged" if not entry.fields else "refused" if faults else "accepted"
        state = f"{order[0]} is the fastest" if order else state
        table.add_row(entry.name, f"{entry.size / 1e6:.1f}", used, state)
    if entries:
        _wide().print(table)
    total = sum(entry.size for entry in entries)
    out.print(f"{len(entries)} engines, {total / 1e6:.1f} of at most {cache.limit / 1e6:.0f} MB, in {cache.folder}")


def clear_cache(folder: Path | None) -> None:
    """Delete the kept engines."""
    cache = _cache_in(folder)
    out.print(f"{cache.clear()} engines deleted from {cache.folder}")


def _cache_in(folder: Path | None) -> EngineCache:
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder: give --folder the folder of a cache")
    return EngineCache(folder)


def _write(path: Path, data: bytes) -> None:
    with explained(f"'{path}' can't be written", "give -o a place that can"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(data)


def _wide() -> Console:
    """As wide as the terminal, or wide enough for every row where there is none."""
    return out if out.is_terminal else Console(highlight=False, width=400)


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
