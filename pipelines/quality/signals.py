"""Signals: the numbers about a document that become columns, and that rules are made of.

Signals never drop anything. They are finite for every text, the empty one included: a share of
nothing is 0.
"""

from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.quality import compression, gopher

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
}
"""Name → type and meaning, in the order of the columns. Lines are those that are not blank."""


class SignalsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[signals]` table of a recipe. `zstd_level` is that of `zstd_bpb`."""

    zstd_level: Annotated[int, msgspec.Meta(ge=1, le=22)] = 3


def signal_fields() -> list[pa.Field]:
    """Return the signal columns of a documents dataset, null where a record was not read."""
    return [pa.field(name, type_) for name, (type_, _) in SIGNALS.items()]


def definitions() -> dict[str, str]:
    """Return name → version of each definition; a change of either changes the dataset id."""
    return {"gopher": gopher.VERSION, "zstd_bpb": compression.VERSION}


def compute_signals(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], config: SignalsConfig
) -> dict[str, npt.NDArray[Any]]:
    """Measure documents.

    Args:
        data: uint8, UTF-8.
        offsets: int64 (n + 1); document i is `data[offsets[i]:offsets[i + 1]]`.
        config: the `[signals]` table.

    Returns:
        For each of `SIGNALS`, in that order, an array (n) of its type: a pure function of each
        document's bytes, the same in whatever batch it stands. Shares are counts divided once.
    """
    counts = gopher.count(data, offsets)
    words, lines = counts[:, gopher.WORDS], counts[:, gopher.LINES]
    return {
        "bytes": np.diff(offsets),
        "chars": counts[:, gopher.CHARS].copy(),
        "zstd_bpb": compression.zstd_bpb(data, offsets, config.zstd_level),
        "gopher_words": words.copy(),
        "gopher_mean_word_length": gopher.share(counts[:, gopher.WORD_CHARS], words),
        "gopher_hash_ratio": gopher.share(counts[:, gopher.HASHES], words),
        "gopher_ellipsis_ratio": gopher.share(counts[:, gopher.ELLIPSES], words),
        "gopher_bullet_lines": gopher.share(counts[:, gopher.BULLET_LINES], lines),
        "gopher_ellipsis_lines": gopher.share(counts[:, gopher.ELLIPSIS_LINES], lines),
        "gopher_alphabetic_words": gopher.share(counts[:, gopher.ALPHABETIC_WORDS], words),
        "gopher_stop_words": counts[:, gopher.STOP_WORDS].copy(),
    }
