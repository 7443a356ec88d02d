"""A streaming trainer over Assay token shards, and the studies that compare data with it."""
