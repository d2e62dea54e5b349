"""Where the command `promptmill` begins: a package of the user's may hide one of ours."""

from __future__ import annotations

import sys

from promptmill.shadowed import shadowed_package


def main() -> None:
    """Run the command line; exit 2 with a line where one of our packages is hidden."""
    problem = shadowed_package()
    if problem is not None:
        sys.stderr.write(f"promptmill: {problem}\n")
        sys.exit(2)
    from producer.cli import main as command_line

    command_line(prog_name="promptmill")
