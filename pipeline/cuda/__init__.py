"""The `cuda` device: frames in GPU memory from the decoder to the encoder. Nothing here is imported before it is chosen.

Only `torch_gpu`, the launchers, `nvdec` and `nvenc` touch a GPU; all other modules work against the protocol in `gpu`, so that
they can be run, and are tested, on a simulated one. `torch_pictures` and `torch_masks` are the kernels in torch's operators.
"""
