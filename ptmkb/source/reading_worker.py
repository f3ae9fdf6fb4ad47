"""The process that reads files for the index (`python -m ptmkb.source.reading_worker WHERE VERSION`).

A line of JSON with a list of files comes on stdin; a line with an object of their records by file goes to stdout.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

from ptmkb.source.records import read_record
from ptmkb.source.tree import SourceTree


def main() -> None:
    """Answer until stdin ends."""
    gc.disable()  # syntax trees hold no cycles; looking for some would cost a tenth of the time
    tree = SourceTree(Path(sys.argv[1]), sys.argv[2])
    for line in sys.stdin.buffer:
        records = {file: read_record(tree.read(file), file) for file in json.loads(line)}
        sys.stdout.buffer.write(json.dumps(records).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
