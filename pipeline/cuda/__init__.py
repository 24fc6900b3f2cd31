"""The `cuda` device: frames stay in GPU memory from the decoder to the encoder. See README.md beside this file.

Only `torch_gpu`, `kernels` and `codecs` touch a GPU; all other modules use the protocol in `gpu_api`, so that the tests run
them on a simulated GPU.
"""
