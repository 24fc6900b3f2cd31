"""Saliency maps: where in an image is the thing that a text names?"""

from cliprl.models.labelling.saliency.bundle_logits import BundleLogits
from cliprl.models.labelling.saliency.methods import SALIENCY_METHODS, SaliencySettings, dense_margins, saliency
from cliprl.models.labelling.saliency.open_model import SaliencyModel, open_saliency_model

__all__ = [
    "SALIENCY_METHODS",
    "BundleLogits",
    "SaliencyModel",
    "SaliencySettings",
    "dense_margins",
    "open_saliency_model",
    "saliency",
]
