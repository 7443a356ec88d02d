"""What Beam's HadoopFileSystem asks of the `hdfs` package, in memory, as strict as WebHDFS."""

import io
from contextlib import contextmanager


class HdfsError(Exception):
    """What the package raises when the name node says no."""


class _Writer:
    """Beam leaves the writer, and not what gave it."""

    def __init__(self, files, path):
        self._files, self._path = files, path

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, data):
        self._files[self._path] += data


class FakeHdfs:
    """`hdfs.InsecureClient` over a dict of files; their folders are made with them."""

    def __init__(self):
        self.files = {}
        self.folders = {"/"}

    def status(self, path, strict=True):
        if path in self.files:
            return _status(len(self.files[path]), "FILE")
        if path.rstrip("/") in self.folders:
            return _status(0, "DIRECTORY")
        if strict:
            raise HdfsError(f"File does not exist: {path}")
        return None

    def makedirs(self, path):
        parts = path.strip("/").split("/")
        self.folders |= {"/" + "/".join(parts[:end]) for end in range(1, len(parts) + 1)}

    def list(self, path, status):
        assert status
        if not self.status(path, strict=False):
            raise HdfsError(f"File {path} does not exist.")
        parent = path.rstrip("/") + "/"
        below = {
            name[len(parent) :].split("/")[0]
            for name in {*self.files, *self.folders}
            if name.startswith(parent) and name != parent
        }
        return [(name, self.status(parent + name)) for name in sorted(below)]

    @contextmanager
    def read(self, path, offset, length):
        yield io.BytesIO(self.files[path][offset : offset + length])

    def write(self, path):
        if self.status(path, strict=False):
            raise HdfsError(f"{path} for client 127.0.0.1 already exists")
        self.makedirs(path.rpartition("/")[0])
        self.files[path] = b""  # it can be seen while it is written
        return _Writer(self.files, path)

    def rename(self, source, target):
        if source not in self.files or target in self.files:
            raise HdfsError(f"Unable to rename {source!r} to {target!r}.")
        if target.rpartition("/")[0] not in self.folders:
            raise HdfsError(f"Unable to rename {source!r} to {target!r}.")
        self.files[target] = self.files.pop(source)

    def delete(self, path, recursive):
        assert recursive
        gone = [name for name in self.files if name == path or name.startswith(path + "/")]
        for name in gone:
            del self.files[name]
        self.folders = {
            name for name in self.folders if name != path and not name.startswith(path + "/")
        }
        return bool(gone)


def _status(length, kind):
    return {"length": length, "type": kind, "modificationTime": 0}
