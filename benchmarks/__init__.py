"""Benchmarks: `python -m benchmarks.<part> [--quick]` prints one JSON object last."""
