"""Results as files: JSON Lines, CSV, Parquet or OpenAI batch output, in constant memory.

A file appears whole or not at all: an error, a full disk or Ctrl-C leaves what was there.
"""

from producer.export.formats import FORMATS, ExportFormat, check_mode, format_of, is_stdout
from producer.export.layout import RecordOptions
from producer.export.output import check_target
from producer.export.writer import write, write_pages

__all__ = [
    "FORMATS",
    "ExportFormat",
    "RecordOptions",
    "check_mode",
    "check_target",
    "format_of",
    "is_stdout",
    "write",
    "write_pages",
]
