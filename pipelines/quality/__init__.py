"""Quality signals: pure functions from a batch of documents to columns of numbers."""

from pipelines.quality.signals import (
    DEFAULT,
    SIGNALS,
    ReferenceConfig,
    SignalsConfig,
    check_signals,
    compute_signals,
    definitions,
    known_signals,
    list_files,
    signal_fields,
    switch_of,
)

__all__ = [
    "DEFAULT",
    "SIGNALS",
    "ReferenceConfig",
    "SignalsConfig",
    "check_signals",
    "compute_signals",
    "definitions",
    "known_signals",
    "list_files",
    "signal_fields",
    "switch_of",
]
