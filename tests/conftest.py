"""What every test shares: the folder of real clips, the rule for tests that need a GPU, and patience with slow machines."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Before NumPy and torch are loaded: tests of tiny networks run in several processes at once, and with a thread for each core
# in each of them, threads wait for each other in loops, four times the CPU time. Commands that the tests start inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import typer
from hypothesis import HealthCheck, settings

from cliprl.engines.cli.cli_runner import run_app

ROOT = Path(__file__).resolve().parent.parent
# Files of tests with a real clock, real processes, sockets and browsers. A machine that others load can stall for seconds
# in the middle of one: such a test may be run three times, which the report tells ("rerun"); all others once.
REAL_TIME = ("test_live_", "test_web_", "test_window", "test_engines_cache", "test_memory")
# Files that the fast tier (`-m "not slow"`) leaves out: they train, compile, encode, or start processes and browsers.
SLOW = (
    *REAL_TIME,
    *(
        "test_audio_matrix",
        "test_bench_",
        "test_cli",
        "test_codec_processes",
        "test_common_corruptions",
        "test_console",
        "test_cuda_",
        "test_datasets",
    ),
    *("test_end_to_end", "test_engines_", "test_evaluation", "test_examples", "test_frame_path", "test_fuzz"),
    *(
        "test_instrument_regions",
        "test_label_check",
        "test_label_formats",
        "test_libraries_",
        "test_low_memory",
        "test_models_",
        "test_network_predictor",
        "test_nothing_lost",
    ),
    *(
        "test_orientation",
        "test_outputs",
        "test_parallel_encoder",
        "test_passthrough",
        "test_plugins",
        "test_raytraced",
    ),
    *("test_refiner_gate", "test_refiner_study", "test_restoration", "test_video_object"),
    *("test_archive", "test_follow", "test_report", "test_selection_study", "test_tracking_scores"),
    *("test_backend_registry", "test_prompts"),
    # These import torch or open_clip, which takes longer than all other imports of the fast tier together.
    *("test_calibration_study", "test_model_", "test_presence_gate", "test_unsure_parts"),
    *(
        "test_scene",
        "test_schemas",
        "test_sinks_video",
        "test_sources",
        "test_stills",
        "test_tensorrt",
        "test_text_study",
    ),
    *("test_torch_", "test_trace_errors", "test_bundle_untrusted"),
)
# Property tests have no deadline: how long an example takes is the machine's affair.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def _cuda_ready() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order of `pytest_collection_modifyitems`: xdist would begin with the files of most tests, long or not."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    gc.disable()


def pytest_collection_finish() -> None:
    """Exclude modules and tests, a million objects, from garbage collection: each full one would read all of them."""
    gc.freeze()
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file that the fast tier leaves out: together they take as long to import as a dozen fast files to run."""
    fast = config.option.markexpr == "not slow"
    return True if fast and collection_path.name.startswith(SLOW) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow and real-time files. Skip GPU tests without a GPU, unless FAIL_WITHOUT_CUDA is set: then they fail."""
    for item in items:
        if item.path.name.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if item.path.name.startswith(REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=2))
    # Two workers that take whole files end at about the same time if the long ones come first: mypy's, then those that wait.
    items.sort(
        key=lambda item: (
            item.path.name != "test_house.py",
            not item.path.name.startswith(REAL_TIME),
            "slow" not in item.keywords,
        )
    )
    marked = [item for item in items if "needs_cuda" in item.keywords]
    if marked and not os.environ.get("FAIL_WITHOUT_CUDA") and not _cuda_ready():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU"))


@pytest.fixture(scope="session", autouse=True)
def _hang_ups_reach_the_commands() -> None:
    """Under nohup this process ignores SIGHUP, and commands that tests start would inherit that; a handler they do not."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled engines of the tests are kept apart from the user's; commands that the tests start inherit this."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@dataclass(frozen=True)
class Done:
    """How a command ended, as `subprocess.run` tells it."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command in this process: for what needs no process of its own, without the second that one takes to start."""

    def run(app: typer.Typer, name: str, *words: str | Path, folder: Path | None = None) -> Done:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [name, *map(str, words)])
            if folder is not None:
                patch.chdir(folder)
            status = run_app(app, name)
        return Done(status, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real surgical clips; tests that use it are skipped where it is absent."""
    path = Path(os.environ.get("CLIPRL_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip("no real clips here: set CLIPRL_DATA to their folder")
    return path
