"""Any file of prompts as a stream of validated requests, in constant memory.

A file troubles its reader in two ways. A bad line is a value, BadLine, and reading goes on;
trouble with the file itself (missing, binary, cut off, a column that isn't there) raises
InputError, and nothing of it can be trusted.

What counts as a prompt: any text but the empty one. A prompt of white space alone is kept
where it was written on purpose (JSON, a cell); in a .txt file such a line is blank and skipped.
"""

from producer.reading.lines import BadLine, InputWarning, Line
from producer.reading.reader import ReadingOptions, parse, parse_all, parse_table, read
from producer.reading.template import Template
from producer.reading.texts import DEFAULT_MAX_PROMPT_BYTES

__all__ = [
    "DEFAULT_MAX_PROMPT_BYTES",
    "BadLine",
    "InputWarning",
    "Line",
    "ReadingOptions",
    "Template",
    "parse",
    "parse_all",
    "parse_table",
    "read",
]
