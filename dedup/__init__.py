"""Deduplication kernels: pure functions on arrays, no Beam, no files."""
