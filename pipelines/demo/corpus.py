"""A real corpus without a download: the text that the installation itself carries.

Docstrings, READMEs, long descriptions, licences, documentation and a share of the source code of
the standard library and of all distributions that Assay requires, directly or not. Nothing is
cleaned: licences that repeat across packages, generated docstrings and descriptions that repeat
READMEs are the duplicates and the boilerplate that curation has to find.

The corpus follows from the installed versions of those alone: what else the environment has,
development tools included, plays no part. A file takes part only if its distribution's RECORD lists
it (so no compiled caches, no stray files) and the installer did not write it. Assay itself is left
out, since an editable install lists no modules, and so are installers, since each maker of virtual
environments brings other ones. Shares are chosen by hash, never by order, and neither records nor
`corpus.json` hold a path of the machine.
"""

import ast
import csv
import hashlib
import platform
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import xxhash
import zstandard

from shards.atomic import write_atomic
from shards.errors import InputError
from shards.hashing import canonical_json, stable_hash

BUILDER = 1
"""Version of everything below that decides what the corpus holds."""

PARTS = 4
FRAME_BYTES = 4 << 20
ZSTD_LEVEL = 3
STATS = "corpus.json"

ROOT = "assay-corpus"
EXCLUDED = frozenset({ROOT, "pip", "setuptools", "uv", "wheel"})

DOCSTRING_SHARE = 0.5
"""Share of the distributions' modules whose docstrings are taken: parsing all of them takes 25 s
and gives 36 MB. Of the standard library, all are taken."""

SOURCE_SHARE = 0.04
"""Share of all modules taken as source; all of it would be 200 MB, ten times the prose."""

_TEST_FOLDERS = frozenset({"test", "tests", "testing", "_tests"})
_LICENCE = re.compile(r"(licen[cs]e|copying|notice|authors|copyright)", re.IGNORECASE)
_README = re.compile(r"readme", re.IGNORECASE)
_DOCS = (".txt", ".md", ".rst")

Progress = Callable[[int, int], None]
"""Called with (bytes of input files done, bytes of input files in all)."""


class _File(NamedTuple):
    """A candidate: where it is, its stable name, its size, a content hash or size, its kinds."""

    path: Path
    url: str
    bytes: int
    mark: str
    kinds: tuple[str, ...]


def build_corpus(out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Write the corpus as `PARTS` zstd JSONL files and `corpus.json`, or keep the one in `out`.

    A record is `{"id", "text", "source", "url"}`: `source` is the kind (`docstrings`, `source`,
    `docs`, `readme`, `licence`, `metadata`), `url` is `dist:NAME/PATH#KIND` or `stdlib:PATH#KIND`,
    `id` the first 16 hex digits of the url's xxh3-128. A part holds independent zstd frames of
    about `FRAME_BYTES` of text, cut at line ends, each with its content size in its header.

    Returns:
        What `corpus.json` holds: `key`, `documents`, `bytes` (UTF-8 of the texts), `kinds`,
        `skipped` (documents by cause), `distributions` (name to version), `files`.

    Raises:
        InputError: Assay is not installed as a distribution.
    """
    versions, files = _installed()
    files = sorted([*files, *_standard_library()], key=lambda file: file.url)
    key = stable_hash([BUILDER, zstandard.ZSTD_VERSION, [(f.url, f.mark, f.kinds) for f in files]])
    if (current := _current(out, key)) is not None:
        return current

    parts = [_Part() for _ in range(PARTS)]
    kinds: dict[str, Counter[str]] = {}
    skipped: Counter[str] = Counter()
    done, total = 0, sum(file.bytes for file in files)
    for file in files:
        for kind, text in _texts(file, skipped):
            url = f"{file.url}#{kind}"
            digest = xxhash.xxh3_128_hexdigest(url.encode())[:16]
            record = {"id": digest, "text": text, "source": kind, "url": url}
            parts[int(digest, 16) % PARTS].add(msgspec.json.encode(record))
            kinds.setdefault(kind, Counter()).update(documents=1, bytes=len(text.encode()))
        done += file.bytes
        if progress is not None:
            progress(done, total)

    entries = []
    for number, part in enumerate(parts):
        data = part.finish()
        name = f"corpus-{number:05d}-of-{PARTS:05d}.jsonl.zst"
        write_atomic(out / name, data)
        sha256 = hashlib.sha256(data).hexdigest()
        entries.append({"path": name, "bytes": len(data), "sha256": sha256})
    stats = {
        "builder": BUILDER,
        "key": key,
        "python": platform.python_version(),
        "distributions": versions,
        "documents": sum(count["documents"] for count in kinds.values()),
        "bytes": sum(count["bytes"] for count in kinds.values()),
        "kinds": {kind: dict(kinds[kind]) for kind in sorted(kinds)},
        "skipped": dict(sorted(skipped.items())),
        "files": entries,
    }
    write_atomic(out / STATS, msgspec.json.format(canonical_json(stats), indent=1) + b"\n")
    return stats


def module_docstrings(source: bytes | str) -> str:
    """Join the docstrings of a module and of its public classes, methods and functions.

    Each but the module's stands under a line with its qualified name, in source order.

    Raises:
        SyntaxError, ValueError, RecursionError: not a module of this Python version.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's code
        module = ast.parse(source)
    return "\n\n".join(_docstrings(module, ""))


def _docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[str]:
    if docstring := ast.get_docstring(node):
        yield f"{name}\n\n{docstring}" if name else docstring
    if not isinstance(node, (ast.Module, ast.ClassDef)):
        return
    for child in node.body:
        if isinstance(
            child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        ) and not child.name.startswith("_"):
            yield from _docstrings(child, f"{name}.{child.name}" if name else child.name)


def _installed() -> tuple[dict[str, str], list[_File]]:
    """Return the versions and the candidate files of the distributions that Assay requires."""
    versions: dict[str, str] = {}
    files: list[_File] = []
    for name, distribution in sorted(_required().items()):
        rows = _record(distribution)
        if name in EXCLUDED or not rows:
            continue
        versions[name] = distribution.version
        for path, mark, size in rows:
            url = f"dist:{name}/{path}"
            if kinds := _kinds(path, url):
                place = Path(str(distribution.locate_file(path)))
                files.append(_File(place, url, size, mark, kinds))
    return versions, files


def _required() -> dict[str, Distribution]:
    """Find Assay's distribution and all that it requires, without extras, by canonical name.

    Environment markers are not evaluated: a requirement for another platform or Python version is
    not installed, and what is not installed is passed over.
    """
    roots = dict.fromkeys(sysconfig.get_path(scheme) for scheme in ("purelib", "platlib"))
    installed: dict[str, Distribution] = {}
    for distribution in distributions(path=list(roots)):
        installed.setdefault(_canonical(distribution.name), distribution)
    if ROOT not in installed:
        raise InputError(
            f"{ROOT} is not installed in {' or '.join(roots)}: the demo corpus is made of the"
            " packages that it requires; install it with pip"
        )
    required: dict[str, Distribution] = {}
    waiting = [ROOT]
    while waiting:
        name = waiting.pop()
        if name in installed and name not in required:
            required[name] = installed[name]
            waiting += [
                _canonical(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
                for requirement in installed[name].requires or ()
                if "extra ==" not in requirement
            ]
    return required


def _canonical(name: str) -> str:
    """Normalise a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _record(distribution: Distribution) -> list[tuple[str, str, int]]:
    """Return (path, hash, bytes) of the files that the RECORD states with a hash.

    Files written at installation time (compiled caches, RECORD itself) have none; those with `..`
    are scripts, whose first line is a path of this machine.
    """
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    return [
        (path, mark, int(size))
        for path, mark, size in rows
        if mark and size and not path.startswith(("..", "/"))
    ]


def _standard_library() -> list[_File]:
    """Return the modules of the standard library, without tests and per-build files."""
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if relative.parts[0].removesuffix(".py") in sys.stdlib_module_names:
            size = path.stat().st_size
            url = f"stdlib:{relative.as_posix()}"
            if kinds := _kinds(relative.as_posix(), url):
                files.append(_File(path, url, size, f"{platform.python_version()}:{size}", kinds))
    return files


def _kinds(path: str, url: str) -> tuple[str, ...]:
    """Tell which documents to make of a file: none, one, or docstrings and source."""
    *folders, name = path.split("/")
    in_metadata = bool(folders) and folders[0].endswith(".dist-info")
    if name.endswith(".py"):
        docstrings = not _TEST_FOLDERS.intersection(folders) and (
            url.startswith("stdlib:") or _chosen(f"{url}#docstrings", DOCSTRING_SHARE)
        )
        kinds = (("docstrings", docstrings), ("source", _chosen(f"{url}#source", SOURCE_SHARE)))
        return tuple(kind for kind, take in kinds if take)
    if in_metadata and name == "METADATA":
        return ("metadata",)
    if in_metadata and "licenses" in folders:
        return ("licence",)
    is_text = name.endswith(_DOCS) or "." not in name
    if is_text and _LICENCE.match(name):
        return ("licence",)
    if is_text and _README.match(name):
        return ("readme",)
    return ("docs",) if name.endswith(_DOCS) and not in_metadata else ()


def _chosen(name: str, share: float) -> bool:
    return xxhash.xxh3_64_intdigest(name.encode()) < share * 2**64


def _texts(file: _File, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of a file; count what gives no text in `skipped`."""
    try:
        data = file.path.read_bytes()
    except OSError:
        skipped["missing"] += len(file.kinds)
        return
    for kind in file.kinds:
        try:
            if kind == "docstrings":
                # The cheap test saves a parse of each module that has no docstring at all.
                text = module_docstrings(data) if b'"""' in data or b"'''" in data else ""
            elif kind == "metadata":
                text = data.decode().partition("\n\n")[2]
            else:
                text = data.decode()
            text.encode()  # a docstring may hold a lone surrogate, which is not UTF-8
        except UnicodeError:
            skipped["undecodable"] += 1
        except (SyntaxError, ValueError, RecursionError):
            skipped["unparsable"] += 1
        else:
            if text.strip():
                yield kind, text
            else:
                skipped["empty"] += 1


class _Part:
    """One output file: collects lines, and compresses them frame by frame."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(
            level=ZSTD_LEVEL, write_content_size=True, write_checksum=True
        )
        self._frames: list[bytes] = []
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, line: bytes) -> None:
        self._lines += (line, b"\n")
        self._bytes += len(line) + 1
        if self._bytes >= FRAME_BYTES:
            self._flush()

    def finish(self) -> bytes:
        if self._lines or not self._frames:
            self._flush()
        return b"".join(self._frames)

    def _flush(self) -> None:
        self._frames.append(self._compressor.compress(b"".join(self._lines)))
        self._lines.clear()
        self._bytes = 0


def _current(out: Path, key: str) -> dict[str, Any] | None:
    """Return the statistics of the corpus in `out` if it is whole and was made from the same."""
    try:
        stats: dict[str, Any] = msgspec.json.decode((out / STATS).read_bytes(), type=dict)
        whole = all((out / f["path"]).stat().st_size == f["bytes"] for f in stats["files"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return None
    return stats if whole and stats.get("key") == key else None
