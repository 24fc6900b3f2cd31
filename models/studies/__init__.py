"""Studies whose results are committed, one command each."""

from cliprl.engines.cli.missing_package import explain_missing_packages

explain_missing_packages()
