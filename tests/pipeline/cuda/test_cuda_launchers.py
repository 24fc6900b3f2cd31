"""NVIDIA's own bindings under our launcher, before a driver that is none: a library that runs the kernels on the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_host import FLAGS, KERNELS, compiler, needs_compiler

pytest.importorskip("cuda.bindings.driver")
pytestmark = [needs_compiler, pytest.mark.skipif(sys.platform != "linux", reason="the library is made for Linux")]

# What a launcher calls of the driver, as cuda.h has it. A context, a module and a stream are numbers; a function is its name.
DRIVER = r"""
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern "C" {
static char *loaded[100];
static int loads;
static int none() { return 999; }
int cuInit(unsigned flags) { return flags; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGet(int *device, int index) { return *device = index, 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = (void *)(0x1234L + device), 0; }
int cuCtxSetCurrent(void *context) { return context == (void *)0x1234 ? 0 : 201; }
int cuModuleLoadData(void **module, const void *image) {
    return *module = (void *)0x55, memcmp(image, "\x7f" "ELF", 4) ? 200 : 0;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    return *function = strdup(name), module == (void *)0x55 ? 0 : 400;
}
int cuFuncLoad(void *function) {
    return loaded[loads++] = (char *)function, function ? 0 : 1;
}
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = 0, *greatest = -5, 0; }
int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    return *stream = priority == -5 ? (void *)0x2020 : (void *)0x1010, flags == 1 ? 0 : 1;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    char name[80];
    snprintf(name, sizeof name, "%s_run", (char *)function);
    typedef void Run(const void *, unsigned, unsigned, unsigned, unsigned);
    Run *run = (Run *)dlsym(dlopen(getenv("HOST_KERNELS"), RTLD_NOW), name);
    bool here = false;
    for (int i = 0; i < loads; i++) here |= loaded[i] == (char *)function;
    if (!here) return 999; // it would be loaded now, and another thread's capture would be lost
    if (!run || gz != 1 || bz != 1 || shared || extra || stream != (void *)0x1010) return 1;
    run(arguments[0], gx, gy, bx, by);
    return 0;
}
int cuGetProcAddress_v2(const char *symbol, void **found, int, unsigned long long, int *status) {
    *found = dlsym(dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD), symbol);
    if (!*found) *found = (void *)none;
    if (status) *status = 0;
    return 0;
}
int cuGetProcAddress(const char *symbol, void **found, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(symbol, found, version, flags, 0);
}
}
"""
SCRIPT = """
import numpy as np
from cliprl.engines import EngineError
from cliprl.bench.fixtures import timecode
from cliprl.pipeline.cuda.kernels.launchers import BindingsLauncher
launcher = BindingsLauncher(b"\\x7fELF" + b"0" * 60, 0)
stream = launcher.stream()
assert (stream, launcher.stream(urgent=True)) == (0x1010, 0x2020)
luma, expected, bits = np.zeros((16, 400), np.uint8), np.zeros((16, 400), np.uint8), timecode.bits_of(123_456)
launcher.launch(timecode.write_arguments((luma.ctypes.data, 400), bits.ctypes.data), stream)
timecode.draw_number(expected, 123_456)
np.testing.assert_array_equal(luma, expected)
read = np.zeros(timecode.BITS, np.uint8)
launcher.launch(timecode.read_arguments((luma.ctypes.data, 400), read.ctypes.data), stream)
assert timecode.number_of(read) == 123_456
try:
    launcher.launch(timecode.read_arguments((luma.ctypes.data, 400), read.ctypes.data), 7)
except EngineError as error:
    print(error)
try:
    BindingsLauncher(b"no binary", 0)
except EngineError as error:
    print(error)
"""


def test_kernel_arguments_pass_the_bindings_and_failures_are_reported(tmp_path: Path) -> None:
    found = compiler()
    assert found is not None
    (tmp_path / "driver.cpp").write_text(DRIVER)
    driver, kernels = tmp_path / "libcuda.so.1", tmp_path / "kernels.so"
    shared = [found, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", str(tmp_path / "driver.cpp"), "-o", str(driver)]
    subprocess.run([*shared, "-ldl"], check=True)
    subprocess.run([found, *FLAGS, str(KERNELS / "all.cu"), "-o", str(kernels)], check=True)
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path), "HOST_KERNELS": str(kernels)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "the NVIDIA driver failed: CUDA_ERROR_INVALID_VALUE; see nvidia-smi",
        "the NVIDIA driver failed: CUDA_ERROR_INVALID_IMAGE; see nvidia-smi",
    ]
