"""How the stages of a stream and libav's codecs share the processors."""

from __future__ import annotations

from cliprl.engines import available_cpus

# So many processors are kept at work by the stages alone.
_FEW = 2


def stage_workers(stages: int) -> int:
    """Workers for stages that compute, beside the thread that consumes: together no more than there are processors."""
    return min(stages, max(available_cpus() - 1, 1))


def codec_threads() -> int:
    """Threads of a file's decoder or encoder: one where the stages fill the processors, 0 (libav chooses) where they don't.

    Measured on two cores at 720p, with libav's own choice of three threads each: 5 % fewer frames a second.
    """
    return 1 if available_cpus() <= _FEW else 0
