"""The registry of `cliprl-bench`: a command registers itself where it is written, and `discover` imports those modules."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer

from cliprl.bench.harness.clips import DEMO, short_name
from cliprl.bench.harness.result import Result
from cliprl.bench.harness.run_measurement import run_measurement
from cliprl.bench.harness.timing import BenchJob
from cliprl.engines import UsageError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure the pipeline, and read the results.",
)

Clip = Annotated[str, typer.Argument(help="A video file, or demo:?size=1280x720&seconds=10, rendered first.")]
BundleOption = Annotated[str, typer.Option(metavar="NAME|FOLDER", help="The engine bundle to run.")]
OutputOption = Annotated[Path | None, typer.Option("-o", "--output", help="Write the result file (JSON) here.")]
# The options for the fields of a `BenchJob`.
COMMON_OPTIONS: Mapping[str, Any] = {
    "bundle": BundleOption,
    "rounds": Annotated[int, typer.Option(min=1, help="Rounds; each runs every case once, in a fresh process.")],
    "seconds": Annotated[float, typer.Option(min=0.1, help="Seconds to measure in a round.")],
    "warm_up": Annotated[float, typer.Option(min=0.0, help="Seconds of running before measuring.")],
    "spare": Annotated[
        int | None,
        typer.Option(
            min=0, help="Most rounds to repeat where the host disturbed one; default: as many as rounds of a minute."
        ),
    ],
    "steps": Annotated[int | None, typer.Option(min=0, help="Most refinement steps a frame; default: the bundle's.")],
    "frames": Annotated[int | None, typer.Option(min=1, help="Read only the first frames of the clip.")],
}
TIMING_OPTIONS = ("bundle", "rounds", "seconds", "warm_up", "spare")
STREAM_OPTIONS = (*TIMING_OPTIONS, "steps", "frames")


@dataclass(frozen=True, slots=True)
class Measurement:
    """A command that measures: `measure(session, job, say, **own)` with the defaults of its job.

    `settings` are the fields of the job that are options of the command, `clip` is True if the command takes a clip.
    `suite` maps a part's name in `cliprl-bench suite` to the job fields and own parameters that differ from the defaults.
    """

    kind: str
    measure: Callable[..., Result]
    help: str
    defaults: BenchJob
    settings: Sequence[str] = STREAM_OPTIONS
    clip: bool = True
    suite: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def run(self, clip: str | None = None, output: Path | None = None, **given: Any) -> Result:
        """Measure, print the tables, write the result file. `given` holds fields of the job and own parameters."""
        names = {f.name for f in fields(BenchJob)}
        job = replace(self.defaults, **{key: value for key, value in given.items() if key in names})
        parameters = own_parameters(self.measure)
        own = {p.name: given.get(p.name, p.default) for p in parameters}
        words = [word for p in parameters for word in _words(p, own[p.name])]
        return run_measurement(self.kind, clip, job, self.measure, own, self.settings, words, output)

    def command(self) -> Callable[..., None]:
        """The function of the command: its signature lists the clip, the own parameters, the settings and the output."""

        def run(**given: Any) -> None:
            self.run(**given)

        run.__signature__ = inspect.Signature(_parameters(self))  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in _parameters(self)}
        return run


MEASUREMENTS: dict[str, Measurement] = {}
Function = TypeVar("Function", bound=Callable[..., Any])


def measurement(kind: str, **about: Any) -> Callable[[Function], Function]:
    """Register the decorated `measure` as the command `kind`; the keywords are the fields of `Measurement`.

    Its parameters after session, job and say become options of the command: give them a default and a typer annotation.
    """

    def register(measure: Function) -> Function:
        MEASUREMENTS[kind] = Measurement(kind, measure, **about)
        app.command(kind, help=MEASUREMENTS[kind].help)(MEASUREMENTS[kind].command())
        return measure

    return register


def only_of(what: str, known: Sequence[str]) -> Callable[[Sequence[str]], Sequence[str]]:
    """Make the callback of an option that may be repeated; it raises UsageError for a name that is not in `known`."""

    def check(names: Sequence[str]) -> Sequence[str]:
        if unknown := set(names) - set(known):
            raise UsageError(f"unknown {what} '{min(unknown)}': one of {', '.join(known)}")
        return names

    return check


def discover(package: ModuleType) -> None:
    """Import every module of a package and of its subpackages, so that each registers what it holds."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        import_module(module.name)


def measurements() -> Mapping[str, Measurement]:
    """All measurements by their kind."""
    discover(import_module("cliprl.bench.commands"))
    return MEASUREMENTS


def own_parameters(measure: Callable[..., Result]) -> list[inspect.Parameter]:
    """The parameters after session, job and say, with their annotations evaluated."""
    return list(inspect.signature(measure, eval_str=True).parameters.values())[3:]


def _parameters(measurement: Measurement) -> list[inspect.Parameter]:
    clip = [_keyword("clip", Clip, DEMO)] if measurement.clip else []
    own = [_keyword(p.name, _listed(p.annotation), p.default) for p in own_parameters(measurement.measure)]
    settings = [
        _keyword(name, COMMON_OPTIONS[name], getattr(measurement.defaults, name)) for name in measurement.settings
    ]
    return [*clip, *own, *settings, _keyword("output", OutputOption, None)]


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _listed(annotation: Any) -> Any:
    """The annotation with `list` in place of `Sequence`, which typer does not know."""
    base, *rest = get_args(annotation)
    return Annotated[list[get_args(base)[0]], *rest] if get_origin(base) is Sequence else annotation  # type: ignore[misc]


def _words(parameter: inspect.Parameter, value: Any) -> list[str]:
    """The words of a command line that give an own parameter this value, without the folders of this machine."""
    if value is None:
        return []
    info = get_args(parameter.annotation)[1]
    values = [short_name(f"{each}") for each in (value if isinstance(value, list | tuple) else [value])]
    if isinstance(info, typer.models.ArgumentInfo):
        return values
    # In an `Annotated`, typer keeps the first name of an option as its default.
    names = [name for name in (info.default, *(info.param_decls or ())) if str(name).startswith("--")]
    name = names[0] if names else f"--{parameter.name.replace('_', '-')}"
    if isinstance(value, bool):
        return [name] if value else []
    return [word for each in values for word in (name, each)]
