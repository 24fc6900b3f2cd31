"""What runs a network: the engine bundle, the backends, and the choice between them."""

from cliprl.engines.bundle import Bundle, open_bundle, seal_bundle
from cliprl.engines.engine import Engine, Probe, compile_engine, probe
from cliprl.engines.errors import BundleError, CliprlError, EngineError, UsageError
from cliprl.engines.manifest import ClassSpec, Manifest

__all__ = [
    "Bundle",
    "BundleError",
    "ClassSpec",
    "CliprlError",
    "Engine",
    "EngineError",
    "Manifest",
    "Probe",
    "UsageError",
    "compile_engine",
    "open_bundle",
    "probe",
    "seal_bundle",
]
