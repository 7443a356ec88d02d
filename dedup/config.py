"""The `[dedup]` table of a recipe, and the names of the definitions that decide what is equal."""

import unicodedata
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Unit = Literal["word", "char", "space"]
Scheme = Literal["affine32", "legacy"]

KEEP_PATTERN = r"^(longest|earliest|best:-?[A-Za-z_][A-Za-z0-9_]*)$"


class ExactConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[dedup.exact]`: documents whose normalised text is equal (`exact-v1`)."""

    enabled: bool = True


class NearConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[dedup.near]`: documents whose n-gram sets have a Jaccard similarity ≥ `threshold`.

    Attributes:
        threshold: Jaccard similarity at and above which two documents are duplicates.
        ngram: units of one shingle.
        unit: `word` (`word-v1`), `char` (`char-v1`) or `space` (`space-v1`): what an n-gram counts.
        num_perm: permutations K of a MinHash signature.
        bands, rows: LSH banding; 0 and 0 mean `dedup.bands.choose_bands(threshold, num_perm)`.
        scheme: datasketch's permutation scheme; `legacy` is what it used before version 2.0.
        seed: of the permutations, as in datasketch.
        keep: which of two duplicates stays: the `longest` text, the `earliest` document,
            `best:<signal>` (highest value) or `best:-<signal>` (lowest value).
    """

    enabled: bool = True
    threshold: Annotated[float, Meta(gt=0, le=1)] = 0.8
    ngram: Annotated[int, Meta(ge=1, le=32)] = 5
    unit: Unit = "word"
    num_perm: Annotated[int, Meta(ge=1, le=4096)] = 128
    bands: Annotated[int, Meta(ge=0)] = 0
    rows: Annotated[int, Meta(ge=0)] = 0
    scheme: Scheme = "affine32"
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 1
    keep: Annotated[str, Meta(pattern=KEEP_PATTERN)] = "longest"

    def __post_init__(self) -> None:
        """Check what involves two fields (msgspec turns the ValueError into its own)."""
        if (self.bands == 0) != (self.rows == 0):
            raise ValueError(
                f"bands = {self.bands} and rows = {self.rows}: give both, or neither to have them"
                " chosen for the threshold"
            )
        if self.bands * self.rows > self.num_perm:
            raise ValueError(
                f"bands * rows = {self.bands} * {self.rows} needs {self.bands * self.rows}"
                f" permutations, num_perm is {self.num_perm}"
            )


class DedupConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[dedup]`."""

    exact: ExactConfig = ExactConfig()
    near: NearConfig = NearConfig()


def definitions() -> dict[str, str]:
    """Return each definition of this package that can change a decision, with its version.

    They belong in the manifest and the stage key: two datasets are comparable where these agree.
    """
    return {
        "dedup.exact": "exact-v1: White_Space runs to one space, ends stripped; xxh3-128",
        "dedup.line": "line-v1: up to and with U+000A; exact-v1, xxh3-64",
        "dedup.paragraph": "paragraph-v1: lines up to and with blank ones; exact-v1, xxh3-64",
        "dedup.contamination": "contamination-v1: shared n-grams of word-v1, shorter items whole",
        "dedup.word": f"word-v1: letters, marks, numbers; Unicode {unicodedata.unidata_version}",
        "dedup.char": f"char-v1: the characters of word-v1; Unicode {unicodedata.unidata_version}",
        "dedup.space": "space-v1: runs without White_Space, bytes as they are",
        "dedup.shingle": "shingle-v1: multilinear over 8-byte-chunk word hashes, 64 bits",
        "dedup.band": "band-v1: multiply-xorshift over the rows of a band",
        "dedup.candidates": "candidates-v3: all before it, or 8 first and 4 before, by rank",
        "dedup.keep": "keep-v1: greedy by rank over verified edges",
    }
