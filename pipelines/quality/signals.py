"""Signals: the numbers about a document that become columns, and that rules are made of.

Signals never drop anything. They are finite for every text, the empty one included: a share of
nothing is 0.
"""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.quality import (
    classifiers,
    compression,
    gopher,
    importance,
    language,
    lines,
    pii,
    plugins,
    reference,
    repetition,
    url_lists,
    web,
    word_lists,
)
from pipelines.quality.classifiers import ClassifierConfig
from shards.errors import RecipeError

SIGNALS: dict[str, tuple[pa.DataType, str]] = {
    "bytes": (pa.int64(), "bytes of the UTF-8 text"),
    "chars": (pa.int64(), "characters (code points)"),
    "zstd_bpb": (pa.float32(), "bits per byte of the text alone under zstd"),
    "gopher_words": (pa.int64(), "words: runs of characters that are no white space"),
    "gopher_mean_word_length": (pa.float32(), "characters per word"),
    "gopher_hash_ratio": (pa.float32(), "'#' per word"),
    "gopher_ellipsis_ratio": (pa.float32(), "ellipses ('...' or '…') per word"),
    "gopher_bullet_lines": (pa.float32(), "share of lines that begin with a bullet"),
    "gopher_ellipsis_lines": (pa.float32(), "share of lines that end with an ellipsis"),
    "gopher_alphabetic_words": (pa.float32(), "share of words with a letter"),
    "gopher_stop_words": (pa.int64(), "how many of the, be, to, of, and, that, have, with"),
    "gopher_duplicate_lines": (pa.float32(), "share of lines that stood earlier"),
    "gopher_duplicate_line_chars": (pa.float32(), "share of the lines' characters in those"),
    "gopher_duplicate_paragraphs": (pa.float32(), "share of paragraphs that stood earlier"),
    "gopher_duplicate_paragraph_chars": (
        pa.float32(),
        "share of the paragraphs' characters in those",
    ),
    **{
        f"gopher_top_{n}gram": (pa.float32(), f"words' characters in the most frequent {n}-gram")
        for n in range(2, 5)
    },
    **{
        f"gopher_duplicate_{n}gram": (
            pa.float32(),
            f"words' characters in {n}-grams that began earlier too",
        )
        for n in range(5, 11)
    },
    "c4_terminal_lines": (pa.float32(), "share of lines that end with a terminal mark"),
    "c4_few_word_lines": (pa.float32(), "share of lines of fewer than 3 words"),
    "c4_javascript_lines": (pa.float32(), "share of lines with 'javascript'"),
    "c4_policy_lines": (pa.float32(), "share of lines with 'use cookies' and the like"),
    "c4_kept_lines": (pa.float32(), "share of lines that C4's line rules leave"),
    "c4_sentences": (pa.int64(), "words that end a sentence, in lines that C4 leaves"),
    "c4_lorem_ipsum": (pa.int64(), "how often 'lorem ipsum', in lines where C4 looks for it"),
    "c4_curly_brackets": (pa.int64(), "'{', in lines where C4 looks for it"),
    "fineweb_punctuated_lines": (pa.float32(), "share of lines that end with punctuation"),
    "fineweb_short_lines": (pa.float32(), "share of lines of fewer than 30 characters"),
    "refinedweb_uppercase_lines": (pa.float32(), "share of lines with mostly uppercase letters"),
    "refinedweb_numeric_lines": (pa.float32(), "share of lines with digits and no letter"),
    "refinedweb_counter_lines": (pa.float32(), "share of lines like '3 likes'"),
    "refinedweb_one_word_lines": (pa.float32(), "share of lines of one word"),
    "refinedweb_navigation_lines": (pa.float32(), "share of short lines like 'Sign in'"),
    "refinedweb_corrected_words": (pa.float32(), "share of words in lines of those five kinds"),
    "rpv2_unique_words": (pa.float32(), "different words per word"),
    "rpv2_unigram_entropy": (pa.float32(), "entropy of the words, in nats"),
    "rpv2_all_caps_words": (pa.float32(), "share of words whose letters are all uppercase"),
    "rpv2_uppercase_chars": (pa.float32(), "share of characters that are uppercase letters"),
    "rpv2_digit_chars": (pa.float32(), "share of characters that are decimal digits"),
    "rpv2_sentences": (pa.int64(), "words that end a sentence"),
    "rpv2_lorem_ipsum": (pa.float32(), "'lorem ipsum' per character"),
    "rpv2_curly_brackets": (pa.float32(), "share of characters that are '{' or '}'"),
}
"""Name → type and meaning, in the order of the columns. Lines are those that are not blank."""


class ReferenceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[signals.reference]` table: what documents are measured against.

    `paths` are the reference: good documents, as files that `[input]` could read. `base_paths` is
    what they are to be told from, the corpus itself (`input.paths`) if empty. In their place
    `model` can name a file that was saved before. `hash` pins the outcome: with another one the
    job stops.
    """

    paths: list[str] = []
    base_paths: list[str] = []
    model: str = ""
    hash: str = ""


class SignalsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[signals]` table of a recipe.

    `zstd_level` is that of all zstd signals. `language` adds `language.SIGNALS`, `pii`
    `pii.SIGNALS`, `reference` `reference.SIGNALS`, and each name in `plugins` the signals of an
    installed plug-in (`plugins.py`). `mask_pii` masks personal data in texts before anything is
    measured, and adds `pii.MASKED`; ids, URLs and sources are not masked. `word_lists` maps
    names to files (`word_lists.py`), `url_lists` to several (`url_lists.py`), and
    `classifiers` to models (`classifiers.py`), `importance` to a target and a base
    (`importance.py`; in a recipe that was read, to `paths`, and in a job's, to `model`).
    """

    zstd_level: Annotated[int, msgspec.Meta(ge=1, le=22)] = 3
    language: Literal["off", "fasttext", "eldc"] = "off"
    pii: bool = False
    mask_pii: bool = False
    reference: ReferenceConfig | None = None
    plugins: list[str] = []
    word_lists: dict[str, str] = {}
    url_lists: dict[str, list[str]] = {}
    classifiers: dict[str, ClassifierConfig] = {}
    importance: dict[str, ReferenceConfig] = {}


RESERVED = frozenset(
    [
        "doc_id",
        "input",
        "position",
        "id",
        "url",
        "source",
        "text",
        "content_hash",
        "split",
        "cluster",
        "reason",
        "value",
        "threshold",
        "matched",
        "jaccard",
        "detail",
        "bands",
        "evaluation_overlap",
        "evaluation_detail",
        "evaluation_spans",
        "error",
        "source_id",
        "dropped",
        "tokens",
        "start",
        "end",
        "action",
        "order",
        "eligible",
        "set",
    ]
)
"""Columns of Assay's files that are no signals, nor what a plug-in may call one."""

DEFAULT = SignalsConfig()
"""The table of a recipe that has none."""


def check_signals(config: SignalsConfig) -> None:
    """Refuse a `[signals]` table that cannot be used.

    Raises:
        RecipeError: a reference or a target without documents, or with two definitions; personal
            data that is to be counted where none is left; a plug-in that is not installed, or
            whose column is there already; a list or a model whose name makes no column.
        InputError: a classifier's model cannot be read.
        PlatformError: the language model, or what runs it, is not installed.
    """
    if config.pii and config.mask_pii:
        raise RecipeError(
            "signals.pii: with mask_pii nothing is left to count; what was masked is counted in"
            " masked_email and so on, so leave pii out"
        )
    for name, table in config.importance.items():
        if not table.paths or table.model:
            raise RecipeError(f"signals.importance.{name}: name paths, the target's documents")
    own = config.reference
    if own is not None and bool(own.paths) == bool(own.model):
        raise RecipeError("signals.reference: name either paths (documents) or model (a file)")
    if own is not None and own.model and own.base_paths:
        raise RecipeError("signals.reference: a model has its base already; leave out base_paths")
    _check_names(config)
    known_signals(config)
    if config.language != "off":
        language.definition(config.language)
    classifiers.definitions(config.classifiers)


def _check_names(config: SignalsConfig) -> None:
    """Refuse tables whose names make no columns."""
    for table in ("word_lists", "url_lists", "classifiers", "importance"):
        for name in getattr(config, table):
            if not (name.isascii() and f"_{name}".isidentifier()):
                raise RecipeError(
                    f"signals.{table}.{name}: the name becomes a column, so it must be letters,"
                    " digits and _"
                )


def known_signals(config: SignalsConfig = DEFAULT) -> dict[str, tuple[pa.DataType, str]]:
    """Return name → type and meaning of the signals that a recipe has, in the order of columns."""
    known = dict(SIGNALS)
    if config.language != "off":
        known |= language.SIGNALS
    if config.pii:
        known |= pii.SIGNALS
    if config.mask_pii:
        known |= pii.MASKED
    if config.reference is not None:
        known |= reference.SIGNALS
    known |= word_lists.signals(config.word_lists)
    known |= url_lists.signals(config.url_lists)
    known |= classifiers.signals(config.classifiers)
    known |= importance.signals(config.importance)
    for name in config.plugins:
        added = plugins.load(name).SIGNALS
        for column in added:
            if column in known or column in RESERVED:
                raise RecipeError(f"signals.plugins: {name!r}: the column {column!r} exists")
        known |= added
    return known


_SWITCHES = (
    (language.SIGNALS, 'signals.language = "fasttext"'),
    (pii.SIGNALS, "signals.pii = true"),
    (pii.MASKED, "signals.mask_pii = true"),
    (reference.SIGNALS, "a table [signals.reference]"),
)
_TABLES = (
    (word_lists.PREFIX, "word_lists"),
    (url_lists.PREFIX, "url_lists"),
    (classifiers.PREFIX, "classifiers"),
    (importance.PREFIX, "importance"),
)


def switch_of(column: str) -> str:
    """Return what in a recipe adds an optional signal; empty where it is none."""
    for added, switch in _SWITCHES:
        if column in added:
            return switch
    for prefix, table in _TABLES:
        if column.startswith(prefix) and len(column) > len(prefix):
            return f"signals.{table}.{column.removeprefix(prefix)}"
    return ""


def signal_fields(config: SignalsConfig = DEFAULT) -> list[pa.Field]:
    """Return the signal columns of a documents dataset, null where a record was not read."""
    return [pa.field(name, type_) for name, (type_, _) in known_signals(config).items()]


def definitions(config: SignalsConfig = DEFAULT) -> dict[str, str]:
    """Return name → version of each definition; a change of either changes the dataset id."""
    found = {
        "gopher": gopher.VERSION,
        "gopher_repetition": repetition.VERSION,
        "lines": lines.VERSION,
        "web": web.VERSION,
        "zstd_bpb": compression.VERSION,
    }
    if config.language != "off":
        found["language"] = language.definition(config.language)
    if config.pii:
        found["pii"] = pii.VERSION
    if config.mask_pii:
        found["pii_mask"] = pii.MASK_VERSION
    if config.reference is not None:
        found |= reference.definitions()
    found |= word_lists.definitions(config.word_lists)
    found |= url_lists.definitions(config.url_lists)
    found |= classifiers.definitions(config.classifiers)
    if config.importance:
        found["importance"] = importance.VERSION
    return found | {f"plugin {name}": plugins.load(name).VERSION for name in config.plugins}


def list_files(config: SignalsConfig) -> list[str]:
    """Return the files that are read while documents are measured, and known by their stamp only:
    lists and classifiers. (Models of the job itself are known by their hash.)
    """
    sites = [url_lists.find(name, paths) for name, paths in sorted(config.url_lists.items())]
    return [
        *config.word_lists.values(),
        *(path for found in sites for path in found),
        *(own.model for own in config.classifiers.values()),
    ]


def compute_signals(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    config: SignalsConfig,
    against: reference.Reference | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Measure documents.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
        config: the `[signals]` table.
        against: what its `reference` table stands for.

    Returns:
        For each of `known_signals` but those of `pii.MASKED` and `url_lists`, which are no
        functions of the text, in that order, an array (n) of its type: a pure function of each
        document's bytes, the same in whatever batch it stands.
        Shares are counts divided once.
    """
    counts = gopher.count(data, offsets)
    words, n_lines = counts[:, gopher.WORDS], counts[:, gopher.LINES]
    columns = {
        "bytes": np.diff(offsets),
        "chars": counts[:, gopher.CHARS].copy(),
        "zstd_bpb": compression.zstd_bpb(data, offsets, config.zstd_level),
        "gopher_words": words.copy(),
        "gopher_mean_word_length": gopher.share(counts[:, gopher.WORD_CHARS], words),
        "gopher_hash_ratio": gopher.share(counts[:, gopher.HASHES], words),
        "gopher_ellipsis_ratio": gopher.share(counts[:, gopher.ELLIPSES], words),
        "gopher_bullet_lines": gopher.share(counts[:, gopher.BULLET_LINES], n_lines),
        "gopher_ellipsis_lines": gopher.share(counts[:, gopher.ELLIPSIS_LINES], n_lines),
        "gopher_alphabetic_words": gopher.share(counts[:, gopher.ALPHABETIC_WORDS], words),
        "gopher_stop_words": counts[:, gopher.STOP_WORDS].copy(),
    }
    found = lines.count(data, offsets)
    columns |= _repetition(data, offsets, counts) | _lines(found, n_lines)
    columns |= _web(data, offsets, counts) | _pages(found, counts[:, gopher.CHARS])
    if config.language != "off":
        columns |= language.compute(data, offsets, config.language)
    if config.pii:
        columns |= pii.count(data, offsets)
    if config.reference is not None:
        if against is None:
            raise RecipeError("signals.reference: the reference was not trained")
        columns |= reference.measure(against, data, offsets, columns["zstd_bpb"])
    if config.word_lists:
        columns |= word_lists.compute(config.word_lists, data, offsets)
    if config.classifiers:
        columns |= classifiers.compute(config.classifiers, data, offsets)
    if config.importance:
        columns |= importance.compute(_models(config), data, offsets)
    for name in config.plugins:
        columns |= plugins.compute(name, data, offsets)
    return columns


def _models(config: SignalsConfig) -> dict[str, tuple[str, str]]:
    """Return name → path and hash of the importance weights' models."""
    for name, own in config.importance.items():
        if not own.model:
            raise RecipeError(f"signals.importance.{name}: the model was not trained")
    return {name: (own.model, own.hash) for name, own in config.importance.items()}


def _repetition(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of `repetition`; `counts` is what `gopher.count` found."""
    found = repetition.count(data, offsets, counts)
    parts = {
        "gopher_duplicate_lines": (repetition.DUPLICATE_LINES, counts[:, gopher.LINES]),
        "gopher_duplicate_line_chars": (
            repetition.DUPLICATE_LINE_CHARS,
            found[:, repetition.LINE_CHARS],
        ),
        "gopher_duplicate_paragraphs": (
            repetition.DUPLICATE_PARAGRAPHS,
            found[:, repetition.PARAGRAPHS],
        ),
        "gopher_duplicate_paragraph_chars": (
            repetition.DUPLICATE_PARAGRAPH_CHARS,
            found[:, repetition.PARAGRAPH_CHARS],
        ),
    }
    for n in range(2, 11):
        name = f"gopher_{'top' if n < 5 else 'duplicate'}_{n}gram"
        parts[name] = (repetition.NGRAMS + n - 2, counts[:, gopher.WORD_CHARS])
    return {name: gopher.share(found[:, part], whole) for name, (part, whole) in parts.items()}


def _lines(
    found: npt.NDArray[np.int64], n_lines: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of C4 and FineWeb.

    Args:
        found: what `lines.count` found.
        n_lines: the number of lines of each document.
    """
    return {
        "c4_terminal_lines": gopher.share(found[:, lines.TERMINAL_LINES], n_lines),
        "c4_few_word_lines": gopher.share(found[:, lines.FEW_WORD_LINES], n_lines),
        "c4_javascript_lines": gopher.share(found[:, lines.JAVASCRIPT_LINES], n_lines),
        "c4_policy_lines": gopher.share(found[:, lines.POLICY_LINES], n_lines),
        "c4_kept_lines": gopher.share(found[:, lines.KEPT_LINES], n_lines),
        "c4_sentences": found[:, lines.SENTENCES].copy(),
        "c4_lorem_ipsum": found[:, lines.LOREM_IPSUM].copy(),
        "c4_curly_brackets": found[:, lines.CURLY_BRACKETS].copy(),
        "fineweb_punctuated_lines": gopher.share(found[:, lines.PUNCTUATED_LINES], n_lines),
        "fineweb_short_lines": gopher.share(found[:, lines.SHORT_LINES], n_lines),
    }


def _pages(
    found: npt.NDArray[np.int64], chars: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of RedPajama-v2 that `lines.count` found; `chars` is those of each."""
    return {
        "rpv2_sentences": found[:, lines.ALL_SENTENCES].copy(),
        "rpv2_lorem_ipsum": gopher.share(found[:, lines.ALL_LOREM_IPSUM], chars),
        "rpv2_curly_brackets": gopher.share(found[:, lines.ALL_CURLY_BRACKETS], chars),
    }


def _web(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of `web`; `counts` is what `gopher.count` found."""
    chars, words = counts[:, gopher.CHARS], counts[:, gopher.WORDS]
    n_lines = counts[:, gopher.LINES]
    found = web.count(data, offsets, np.ascontiguousarray(words))
    terms = found[:, web.TERMS]
    return {
        "refinedweb_uppercase_lines": gopher.share(found[:, web.UPPERCASE_LINES], n_lines),
        "refinedweb_numeric_lines": gopher.share(found[:, web.NUMERIC_LINES], n_lines),
        "refinedweb_counter_lines": gopher.share(found[:, web.COUNTER_LINES], n_lines),
        "refinedweb_one_word_lines": gopher.share(found[:, web.ONE_WORD_LINES], n_lines),
        "refinedweb_navigation_lines": gopher.share(found[:, web.NAVIGATION_LINES], n_lines),
        "refinedweb_corrected_words": gopher.share(found[:, web.CORRECTED_WORDS], words),
        "rpv2_unique_words": gopher.share(found[:, web.UNIQUE_TERMS], terms),
        "rpv2_unigram_entropy": web.entropy(found),
        "rpv2_all_caps_words": gopher.share(found[:, web.ALL_CAPS_WORDS], words),
        "rpv2_uppercase_chars": gopher.share(found[:, web.UPPERCASE], chars),
        "rpv2_digit_chars": gopher.share(found[:, web.DIGITS], chars),
    }
