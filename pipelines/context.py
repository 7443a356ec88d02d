"""What the workers of a stage need to know travels as a file: a job graph holds its address only.

A plan of 100,000 files is some 20 MB. Inside the functions of a graph it would be sent with each
of them, and services limit a graph (Dataflow: 20 MB as JSON). So a context that is pickled is
written to its job's work folder first, named by the hash of its bytes; a worker reads it once.
"""

from functools import lru_cache
from typing import Any

import msgspec

from pipelines import files
from shards.errors import CorruptError
from shards.hashing import xxh128


class Context(msgspec.Struct, frozen=True):
    """Base of contexts: plain data that pickles as the address and the hash of a file."""

    @property
    def home(self) -> str:
        """The folder that the file is written to: one that the job owns and workers can read."""
        raise NotImplementedError

    def __reduce__(self) -> Any:
        data = msgspec.msgpack.encode(self)
        digest = xxh128(data).hex()
        path = files.join(self.home, "contexts", f"{digest}.msgpack")
        # One of an earlier run may have been damaged since.
        if not files.exists(path) or files.read_bytes(path) != data:
            files.write_atomic(path, data)
        return read_context, (type(self), path, digest)


@lru_cache(maxsize=8)
def read_context(kind: type[Context], path: str, digest: str) -> Context:
    """Read a context back, once in a process.

    Raises:
        CorruptError: the file's bytes are not those that were written.
    """
    data = files.read_bytes(path)
    found = xxh128(data).hex()
    if found != digest:
        raise CorruptError(
            f"{path}: hash {found}, expected {digest}; delete the _work folder and run again"
        )
    return msgspec.msgpack.decode(data, type=kind)
