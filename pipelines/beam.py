"""Import Apache Beam once, without its start-up noise: `from pipelines.beam import beam`.

Beam warns through the root logger that optional cloud clients are missing, whichever runner is
used; that line would be the first thing a user of the local runner sees.
"""

import logging


class _NoCloudClients(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "apitools not found" not in record.getMessage()


_filter = _NoCloudClients()
logging.getLogger().addFilter(_filter)
# logging.warning() on an unconfigured root logger installs a handler; install ours first, or
# Beam's import would leave one that prints every later INFO line of its workers.
_had_handlers = bool(logging.getLogger().handlers)
if not _had_handlers:
    logging.getLogger().addHandler(logging.NullHandler())

import apache_beam as beam  # noqa: E402 (the filter must stand before the import)

logging.getLogger().removeFilter(_filter)

__all__ = ["beam"]
