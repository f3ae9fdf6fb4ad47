"""How long `ptmkb check` takes on a catalogue several times today's size.

python -m benchmarks.check_speed [TIMES]
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ptmkb.catalogue import DATA

LIMIT = 2.0  # seconds, at ten times today's size


def grow(directory: Path, times: int) -> None:
    """Write the package's catalogue `times` times over into a directory, every copy with ids of its own.

    Args:
        directory: Gets `categories.yaml`, `papers/` and `models/`; what it holds checks without a problem.
        times: How many copies.
    """
    for path in sorted(DATA.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        relative = path.relative_to(DATA)
        copies = [_renamed(text, number) for number in range(times)]
        if relative.parts[0] == "models":
            for number, copy in enumerate(copies):
                _write(directory / "models" / f"{path.stem}-c{number}.yaml", copy)
        else:
            _write(directory / relative, "\n".join(copies))


def _renamed(text: str, number: int) -> str:
    """A file with the ids of copy `number`, and without what no two papers may share."""
    suffix = f"-c{number}"
    text = re.sub(r"\b((?:id|from|paper|category|parent): )([\w.-]+)", rf"\1\2{suffix}", text)
    lists = re.compile(r"^((?:papers|also): \[)([^\]]*)", re.MULTILINE)
    text = lists.sub(lambda m: m[1] + re.sub(r"[\w.-]+", lambda word: word[0] + suffix, m[2]), text)
    text = re.sub(r"^  (?:doi|acl): .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(
        r"^  arxiv: \W?([\d.]+).*$", rf"  url: https://arxiv.org/abs/\1{suffix}", text, flags=re.MULTILINE
    )
    text = re.sub(r"^  url: .*\n(?=(?:  .*\n)*  url: )", "", text, flags=re.MULTILINE)
    return re.sub(r"^  title: (\"?)", rf"  title: \g<1>Copy {number} ", text, flags=re.MULTILINE)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure, best of five in fresh processes, and say whether the limit holds."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        grow(Path(folder), times)
        command = [sys.executable, "-m", "ptmkb", "--catalogue", folder, "check"]
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            result = subprocess.run(command, capture_output=True, text=True)
            seconds.append(time.perf_counter() - start)
        if result.returncode:
            sys.exit(f"the grown catalogue does not check:\n{result.stdout}{result.stderr}")
    verdict = "within" if min(seconds) <= LIMIT else "over"
    print(
        f"check, {times} x the catalogue ({result.stdout.strip().splitlines()[-1]}): {min(seconds):.2f} s, {verdict} {LIMIT} s"
    )


if __name__ == "__main__":
    main()
