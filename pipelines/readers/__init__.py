"""Readers: from a file to record batches, in two steps that a DoFn calls.

`plan_ranges` cuts a file into ranges by looking at headers; `read_range` reads one of them. Both
take a function that opens a path, so they know neither Beam nor any file system.
"""

from pipelines.readers.formats import FORMATS, OpenFile
from pipelines.readers.html import definition as web_definition
from pipelines.readers.jsonl import Fields
from pipelines.readers.ranges import Range, plan_ranges
from pipelines.readers.read import read_range
from pipelines.readers.rows import ERRORS, SCHEMA

__all__ = [
    "ERRORS",
    "FORMATS",
    "SCHEMA",
    "Fields",
    "OpenFile",
    "Range",
    "plan_ranges",
    "read_range",
    "web_definition",
]
