"""The common corruptions: 15 kinds and 4 further ones, at severities 1 to 5, that robustness is scored with.

Definitions and constants: D. Hendrycks, T. Dietterich: Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, 2019 (arXiv:1903.12261), in the form for pictures of any size of C. Michaelis et al.: Benchmarking Robustness
in Object Detection, 2019 (arXiv:1907.07484), which the package `imagecorruptions` carries. That package brings a second
OpenCV, which can't live beside the headless one, so the definitions are built here. Two differ: frost is drawn, where the
original pastes photographs; glass draws each pixel's neighbour where the original swaps them one after the other.
"""
