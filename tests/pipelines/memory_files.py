"""A Beam file system in memory: `memory://…`, as strict as the stores of objects of Beam are.

There are no folders: `exists` knows objects alone, a listing is by prefix. `delete` takes what both
GCS and S3 take: objects by their names, and a name with a slash at its end for all that begins so.
Nothing is copied or renamed: an object appears when it is closed.
"""

import io

from apache_beam.io.filesystem import (
    BeamIOError,
    CompressionTypes,
    FileMetadata,
    FileSystem,
)

OBJECTS: dict[str, bytes] = {}


class _Writer(io.BytesIO):
    """What fails inside `with` is still closed and so appears, as on S3."""

    def __init__(self, path):
        super().__init__()
        self._path = path

    def close(self):
        if not self.closed:
            OBJECTS[self._path] = self.getvalue()
        super().close()


class MemoryFileSystem(FileSystem):
    """Found by Beam through its scheme, once this module is imported."""

    @classmethod
    def scheme(cls):
        return "memory"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *(path.lstrip("/") for path in paths)])

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path):
        pass

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        for path in sorted(OBJECTS):
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def create(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        return _Writer(path)

    def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        return io.BytesIO(self._object(path))

    def copy(self, source_file_names, destination_file_names):
        raise NotImplementedError("a copy of an object is paid for")

    def rename(self, source_file_names, destination_file_names):
        raise NotImplementedError("a store of objects has no rename: it is a copy and a deletion")

    def exists(self, path):
        return path in OBJECTS

    def size(self, path):
        return len(self._object(path))

    def last_updated(self, path):
        return 0

    def checksum(self, path):
        return str(hash(self._object(path)))

    def metadata(self, path):
        return FileMetadata(path, len(self._object(path)))

    def delete(self, paths):
        for path in paths:
            if any(sign in path for sign in "*?["):
                raise BeamIOError(f"a pattern on GCS, a name on S3: {path}")
            if path.endswith("/"):
                for name in [name for name in OBJECTS if name.startswith(path)]:
                    del OBJECTS[name]
            else:
                OBJECTS.pop(path, None)

    @staticmethod
    def _object(path):
        if path not in OBJECTS:
            raise BeamIOError(f"no such object: {path}")
        return OBJECTS[path]
