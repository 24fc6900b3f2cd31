"""Metrics in the Prometheus text format, read with the parser of `prometheus_client`."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def metric_samples(text: str | bytes) -> dict[str, float]:
    """Return the samples by name, with labels as in `name{label="value"}`."""
    page = text.decode() if isinstance(text, bytes) else text
    return {
        f"{sample.name}{_labels(sample.labels)}": sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def metric_types(text: str | bytes) -> dict[str, str]:
    """Return the type of each metric family by the family's name, without `_total`."""
    page = text.decode() if isinstance(text, bytes) else text
    return {family.name: family.type for family in text_string_to_metric_families(page)}


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in sorted(labels.items())) + "}" if labels else ""
