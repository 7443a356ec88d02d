"""The `[dedup]` table of a recipe, and the names of the definitions that decide what is equal."""

import math
import unicodedata
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Unit = Literal["word", "char", "space"]
Scheme = Literal["affine32", "legacy", "oph"]

KEEP_PATTERN = r"^(longest|earliest|sources|best:-?[A-Za-z_][A-Za-z0-9_]*)$"


TARGET_RECALL = 0.99
"""Lowest acceptable chance that a pair *at* the threshold becomes a candidate (to 3 decimals)."""

MOST_PERMUTATIONS = 4096


class ExactConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[dedup.exact]`: documents whose normalised text is equal (`exact-v1`)."""

    enabled: bool = True


Measure = Literal["jaccard", "containment"]
Optimise = Literal["recall", "area"]


class NearConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[dedup.near]`: documents whose n-gram sets have a similarity ≥ `threshold`.

    Attributes:
        threshold: similarity at and above which two documents are duplicates.
        measure: `jaccard`, |A ∩ B| / |A ∪ B|, or `containment`, |A ∩ B| / min(|A|, |B|), which
            finds copies inside other text.
        size_ratio: |A| / |B| of the most unequal pairs that containment must not miss.
        ngram: units of one shingle.
        unit: `word` (`word-v1`), `char` (`char-v1`) or `space` (`space-v1`): what an n-gram counts.
        num_perm: permutations K of a MinHash signature.
        bands, rows: LSH banding; 0 and 0 have them chosen for the threshold.
        optimise: how they are chosen: `recall` misses 1 % of the pairs at the threshold at most,
            and is refused where `num_perm` does not permit that; `area` is datasketch's optimiser
            (faster, misses more).
        scheme: datasketch's permutation scheme, `legacy` for the one before version 2.0, or `oph`
            for one-permutation hashing (faster, a little less exact for short texts).
        seed: of the permutations, as in datasketch.
        keep: which of two duplicates stays: the `longest` text, the `earliest` document,
            `best:<signal>` (highest value), `best:-<signal>` (lowest value), or by `sources`.
        sources: for `keep = "sources"`: the best source first; those not named come after them,
            and of one source the longest text stays.
    """

    enabled: bool = True
    threshold: Annotated[float, Meta(gt=0, le=1)] = 0.8
    measure: Measure = "jaccard"
    size_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.5
    ngram: Annotated[int, Meta(ge=1, le=32)] = 5
    unit: Unit = "word"
    num_perm: Annotated[int, Meta(ge=1, le=MOST_PERMUTATIONS)] = 128
    bands: Annotated[int, Meta(ge=0)] = 0
    rows: Annotated[int, Meta(ge=0)] = 0
    optimise: Optimise = "recall"
    scheme: Scheme = "affine32"
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 1
    keep: Annotated[str, Meta(pattern=KEEP_PATTERN)] = "longest"
    sources: list[str] = []

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
        if (self.keep == "sources") != bool(self.sources):
            raise ValueError(
                f"keep = {self.keep!r} and sources = {self.sources!r}: keep = 'sources' needs the"
                " sources, best first, and nothing else has them"
            )
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"sources = {self.sources!r} names a source twice")
        if self.enabled and not self.bands and self.optimise == "recall":
            _check_recall(self)

    @property
    def least_jaccard(self) -> float:
        """Jaccard similarity of the least similar pair that must not be missed."""
        if self.measure == "jaccard":
            return self.threshold
        return jaccard_of(self.threshold, self.size_ratio)


def jaccard_of(containment: float, size_ratio: float) -> float:
    """Return the Jaccard similarity of sets of sizes r : 1 whose smaller one is held to a share c.

    c·r / (1 + r − c·r), from |A ∩ B| = c·|A| and |A| = r·|B|.
    """
    shared = containment * size_ratio
    return shared / (1 + size_ratio - shared)


def _check_recall(near: NearConfig) -> None:
    """Refuse what no banding of `num_perm` permutations finds with `TARGET_RECALL`.

    Single rows miss the fewest pairs: (1 − J)^K of those of similarity J, see `dedup.bands`.

    Raises:
        ValueError: they miss too many.
    """
    jaccard, num_perm = near.least_jaccard, near.num_perm
    recall = 1 - (1 - jaccard) ** num_perm
    if round(recall, 3) >= TARGET_RECALL:
        return
    # The target to three decimals, as above: 0.9895 counts as 0.99.
    missed = 1 - (TARGET_RECALL - 0.0005)
    needed = math.floor(math.log(missed) / math.log1p(-jaccard)) + 1
    least = 1 - missed ** (1 / num_perm)
    ways = [f"num_perm = {needed}"] if needed <= MOST_PERMUTATIONS else []
    what = f"threshold = {near.threshold}"
    if near.measure == "containment":
        what += f" and size_ratio = {near.size_ratio} (a Jaccard similarity of {jaccard:.2g})"
        # `jaccard_of` solved for the ratio; none helps where this is not in (0, 1].
        room = near.threshold * (1 + least) - least
        if 0 < least <= room:
            ways.append(f"size_ratio = {_round_up(least / room)} or more")
        ways.append("a higher threshold")
    else:
        ways.append(f"threshold = {_round_up(least)} or more")
    raise ValueError(
        f"{what}: num_perm = {num_perm} permits a recall of {recall:.3f} for such pairs,"
        f" {TARGET_RECALL} is the least (it takes {needed} permutations, {MOST_PERMUTATIONS} are"
        f" the most); set {', or '.join(ways)}; or give bands and rows by hand to accept misses"
    )


def _round_up(value: float) -> float:
    """Return a number of 3 decimals that is a little above, 1 at most."""
    return min(1.0, math.floor(value * 1000 + 1) / 1000)


class ContaminationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[dedup.contamination]`: documents that hold text of evaluation items.

    Attributes:
        sets: name of an evaluation set → its files or globs (JSONL, or what else inputs may be).
        text_field, id_field: the keys of an item's text and name; without a name it is called by
            its position in the file.
        ngram: words that a document and an item must have in common, in a row.
        min_words: items of fewer words than `ngram` are looked for whole, down to this many.
        overlap: least share of an item's n-grams that a document has; 0: any one of them.
        action: `drop` the document, or only `mark` the spans in the spans ledger.
    """

    sets: dict[str, list[str]] = {}
    text_field: str = "text"
    id_field: str = "id"
    ngram: Annotated[int, Meta(ge=1, le=100)] = 13
    min_words: Annotated[int, Meta(ge=1, le=100)] = 8
    overlap: Annotated[float, Meta(ge=0, le=1)] = 0.0
    action: Literal["drop", "mark"] = "drop"

    def __post_init__(self) -> None:
        """Check what involves two fields."""
        if self.min_words > self.ngram:
            raise ValueError(
                f"min_words = {self.min_words} is above ngram = {self.ngram}: an item of so many"
                " words has whole n-grams"
            )

    @property
    def drops(self) -> bool:
        """Whether contaminated documents are dropped."""
        return bool(self.sets) and self.action == "drop"


class RepeatsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[dedup.repeats]`: text that repeats inside and across the documents that are kept.

    Attributes:
        unit: `line`, `paragraph` (equal but for white space) or `substring` (as many words in a
            row); `off` looks for none.
        min_bytes: shortest line or paragraph that counts, white space collapsed.
        words: words of the shortest substring.
        action: `cut` all but the first occurrence, or only `mark` them in the spans ledger.
    """

    unit: Literal["off", "line", "paragraph", "substring"] = "off"
    min_bytes: Annotated[int, Meta(ge=1)] = 32
    words: Annotated[int, Meta(ge=2, le=10_000)] = 50
    action: Literal["cut", "mark"] = "cut"


class DedupConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[dedup]`.

    Attributes:
        against: folders of earlier datasets, the earliest first, whose documents count as earlier
            than all of this one; needs their signature index.
        index: write the signature index, so that later datasets can be held against this one.
            Both need `near.keep = "earliest"`.
    """

    against: list[str] = []
    index: bool = False
    exact: ExactConfig = ExactConfig()
    near: NearConfig = NearConfig()
    contamination: ContaminationConfig = ContaminationConfig()
    repeats: RepeatsConfig = RepeatsConfig()

    def __post_init__(self) -> None:
        """Check what involves two tables."""
        if (self.against or self.index) and self.near.keep != "earliest":
            raise ValueError(
                f"near.keep = {self.near.keep!r}: what earlier datasets keep is settled when a"
                ' later one comes, so against and index need near.keep = "earliest"'
            )
        if self.against and self.repeats.unit != "off":
            raise ValueError(
                f"repeats.unit = {self.repeats.unit!r}: lines of earlier datasets are not in their"
                " index; use it without against"
            )


def definitions() -> dict[str, str]:
    """Return each definition of this package that can change a decision, with its version.

    They belong in the manifest and the stage key: two datasets are comparable where these agree.
    """
    return {
        "dedup.exact": "exact-v1: White_Space runs to one space, ends stripped; xxh3-128",
        "dedup.line": "line-v1: up to and with U+000A; exact-v1, xxh3-64",
        "dedup.paragraph": "paragraph-v1: lines up to and with blank ones; exact-v1, xxh3-64",
        "dedup.substring": "substring-v2: equal windows of word-v1, first whole; a span a source",
        "dedup.contamination": "contamination-v1: shared n-grams of word-v1, shorter items whole",
        "dedup.word": f"word-v1: letters, marks, numbers; Unicode {unicodedata.unidata_version}",
        "dedup.char": f"char-v1: the characters of word-v1; Unicode {unicodedata.unidata_version}",
        "dedup.space": "space-v1: runs without White_Space, bytes as they are",
        "dedup.shingle": "shingle-v1: multilinear over 8-byte-chunk word hashes, 64 bits",
        "dedup.minhash": "minhash-v1: datasketch's schemes; oph-v1: densified by a walk of 32",
        "dedup.band": "band-v1: multiply-xorshift over the rows of a band",
        "dedup.candidates": "candidates-v3: all before it, or 8 first and 4 before, by rank",
        "dedup.keep": "keep-v1: greedy by rank over verified edges",
    }
