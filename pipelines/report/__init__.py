"""The report: what a chain of stages left on disk, as one HTML file without scripts or network.

    parts     what stands in the folders of a chain, and whether the parts belong together
    ledger    what was dropped: bytes by reason, examples per rule, pairs of duplicates
    ladder    the compression ladder, raw and curated
    study     the records of the trainer, read without importing it
    charts    numbers → places on a chart
    render    a `Report` → HTML

Every number comes from a record that a stage wrote, or is computed here from its shards; what is
not there is named as not run. See docs/design/report.md.
"""
