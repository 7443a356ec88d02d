"""The curate job: scan → resolve → write, Beam pipelines over numbered work.

    scan     a range of an input file → a fragment: parsed, measured, hashed, split by final shard
    resolve  band hashes in numbered buckets → candidate pairs → verified edges → decisions
    find     (where the recipe has repeats) a shard number → a table of text that repeats
    write    a shard number → the kept shard and the ledger shard

Between the stages everything lies in `<out>/_work/<key>/`, named by what it is made from, so that
a job that was killed resumes without doing finished work again. Text never passes through a
shuffle; the only things that do are packed arrays under small integer keys.
"""
