"""What a command line asks for, told from its words before click, which is slow, is imported."""

STUDY_READERS = ("show", "compare", "suggest", "fit")
"""Commands of `assay study` that train nothing."""


def names_data(words: list[str]) -> bool:
    """Whether the option `--data` is among the words, so that no chain is to make a dataset."""
    return any(word.split("=")[0] == "--data" for word in words)


def is_run(words: list[str]) -> bool:
    """Whether this is `train`, or a `study` on a dataset that is there and not a chain of stages.

    The others end with 143 after SIGTERM, and a chain sees its stages end.
    """
    name, *rest = words or [""]
    return name == "train" or (
        name == "study" and names_data(rest) and rest[0] not in STUDY_READERS
    )
