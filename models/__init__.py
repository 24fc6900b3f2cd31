"""Train and score the networks: architecture, data, training, evaluation and export."""

import cliprl.engines  # noqa: F401 - before all libraries
