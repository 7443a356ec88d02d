"""Beam pipelines from raw corpora to token shards, and the `assay` command."""
