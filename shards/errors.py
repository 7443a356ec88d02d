"""Every error that Assay raises on purpose, in one tree.

    AssayError               the message says what is wrong, where, and what to do
    ├── RecipeError          a recipe or an option that cannot be used (path and value)
    ├── InputError           a file that cannot be read (missing, unknown format, no records)
    ├── DatasetError         a folder that is not the dataset that was expected
    │   └── CorruptError     bytes that do not match their recorded hash (file and block)
    ├── ReconcileError       counts that do not add up: read ≠ kept + dropped
    ├── PlatformError        a machine, environment or runner that would give wrong results
    └── TrainingError        a run that cannot go on (NaN, no data, wrong checkpoint)

The command line prints these without a traceback and exits with 2 for errors in what was asked
(RecipeError, InputError) and 1 for the rest. Anything else that escapes is a bug in Assay.
"""


class AssayError(Exception):
    """Base of all errors that Assay raises on purpose."""

    exit_code = 1


class RecipeError(AssayError):
    """A recipe or an option that cannot be used."""

    exit_code = 2


class InputError(AssayError):
    """An input that cannot be read."""

    exit_code = 2


class DatasetError(AssayError):
    """A folder that is not the dataset that was expected."""


class CorruptError(DatasetError):
    """Bytes that do not match their recorded hash."""


class ReconcileError(AssayError):
    """Counts that do not add up."""


class PlatformError(AssayError):
    """A machine, environment or runner that would give wrong results."""


class TrainingError(AssayError):
    """A training run that cannot go on."""
