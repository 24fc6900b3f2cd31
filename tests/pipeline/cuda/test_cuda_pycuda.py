"""The pycuda launcher against a fake driver that checks the order of its calls."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import pytest
from pycuda_fake import FakePycuda

from cliprl.pipeline.cuda.kernels.kernel_arguments import KERNELS, Total
from cliprl.pipeline.cuda.kernels.launchers import LAUNCHERS, PycudaLauncher


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakePycuda:
    package, fake = ModuleType("pycuda"), FakePycuda()
    package.driver = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    return fake


def test_bindings_that_release_the_interpreter_lock_come_first() -> None:
    assert [kind.name for kind in LAUNCHERS] == ["cuda-bindings", "pycuda"]


def test_pycuda_loads_in_the_primary_context_and_leaves_it(driver: FakePycuda) -> None:
    PycudaLauncher(b"cubin", 0)
    functions = ["get_function"] * len(KERNELS)
    assert driver.calls == [
        *("init", "Device", "retain_primary_context", "push", "module_from_buffer"),
        *functions,
        "pop",
    ]
    assert not driver.stack()
    assert "pycuda.autoinit" not in sys.modules


def test_launch_enters_and_leaves_the_context_on_its_thread(driver: FakePycuda) -> None:
    launcher = PycudaLauncher(b"cubin", 0)
    stream = launcher.stream()
    driver.calls.clear()
    driver.calls.append("init")
    stacks: list[int] = []

    def launch() -> None:
        launcher.launch(Total(3, 1, 0, 4, 0, 0), stream)
        stacks.append(len(driver.stack()))

    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
    assert driver.calls[1:] == ["push", "launch", "pop"]
    assert stacks == [0]


def test_a_failed_launch_leaves_the_context_too(driver: FakePycuda) -> None:
    launcher = PycudaLauncher(b"cubin", 0)
    stream, driver.fail_launches = launcher.stream(), True
    with pytest.raises(RuntimeError, match="invalid argument"):
        launcher.launch(Total(3, 1, 0, 4, 0, 0), stream)
    assert driver.calls[-2:] == ["launch", "pop"]
    assert not driver.stack()
