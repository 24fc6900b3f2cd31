"""What runs a network: the engine bundle, the backends, and the choice between them."""

from cliprl.engines.bundle import Bundle, open_bundle, seal_bundle
from cliprl.engines.cache import EngineCache
from cliprl.engines.candidate import Pair
from cliprl.engines.engine import Engine, Probe, compile_engine, probe, silent
from cliprl.engines.errors import BundleError, CliprlError, EngineError, UsageError
from cliprl.engines.manifest import ClassSpec, Manifest
from cliprl.engines.reference import add_reference
from cliprl.engines.serving import load_engines

__all__ = [
    "Bundle",
    "BundleError",
    "ClassSpec",
    "CliprlError",
    "Engine",
    "EngineCache",
    "EngineError",
    "Manifest",
    "Pair",
    "Probe",
    "UsageError",
    "add_reference",
    "compile_engine",
    "load_engines",
    "open_bundle",
    "probe",
    "seal_bundle",
    "silent",
]
