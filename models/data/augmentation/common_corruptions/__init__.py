"""The common corruptions: 15 kinds and 4 further ones, at severities 1 to 5, that robustness is scored with.

Definitions and constants: D. Hendrycks, T. Dietterich: Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, 2019 (arXiv:1903.12261), in the form for images of any size of C. Michaelis et al.: Benchmarking Robustness
in Object Detection, 2019 (arXiv:1907.07484), which the package `imagecorruptions` implements. That package (1.1.2 of
2020, the latest) cannot be used: it calls `np.float_`, which NumPy 2 lacks, `gaussian(multichannel=)`, which scikit-image lacks,
`scipy.ndimage.interpolation` and `pkg_resources`; it requires `opencv-python`, which conflicts with the headless build; and it
seeds nothing. Two definitions differ here: frost is synthetic, not photographs; glass samples each pixel's neighbor at once,
not one after the other.
"""
