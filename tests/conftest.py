"""Settings of all tests."""

from hypothesis import settings

# A deadline is a timed test, which fails on a busy machine: speed is shown by benchmarks.
settings.register_profile("assay", deadline=None)
settings.load_profile("assay")
