"""The CUDA kernels: their sources, compiler, arguments and launchers."""
