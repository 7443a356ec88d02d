"""Quality signals: pure functions from a batch of documents to columns of numbers."""

from pipelines.quality.signals import (
    SIGNALS,
    SignalsConfig,
    compute_signals,
    definitions,
    signal_fields,
)

__all__ = ["SIGNALS", "SignalsConfig", "compute_signals", "definitions", "signal_fields"]
