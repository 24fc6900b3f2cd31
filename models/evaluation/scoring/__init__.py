"""Scores under unambiguous names: "mIoU" alone means a different number in every paper."""
