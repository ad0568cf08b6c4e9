"""Fuzzes one target with atheris until the time is over or something happens that was not declared: see `make fuzz`.

    python tests/fuzz/run.py TARGET CORPUS [libFuzzer options]

CORPUS is a directory that keeps what was found interesting; it is seeded with the fixtures.
"""

import contextlib
import io
import shutil
import sys
from pathlib import Path

import atheris

# It tells of every module that it instruments.
with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["tidegate"]):
    from targets import TARGETS, check_time

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"
STATISTICS = Path(__file__).parents[1] / "publish" / "recorded"
TIMED_EVERY = 1000
"""Inputs between two that are repeated to see how long they take."""


def seed(name: str, corpus: Path) -> None:
    """Copy what a target can start from into its corpus."""
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = STATISTICS.glob("*.json") if name == "statistics" else FIXTURES.glob("*/*.txt")
    for path in seeds:
        shutil.copyfile(path, corpus / f"{path.parent.name}-{path.name}")


def main() -> None:
    """Run until libFuzzer ends the process."""
    name, corpus, *options = sys.argv[1:]
    target = TARGETS[name]
    seed(name, Path(corpus))
    runs = 0

    def one_input(data: bytes) -> None:
        nonlocal runs
        runs += 1
        target(data)
        if runs % TIMED_EVERY == 0:
            check_time(target, data)

    atheris.Setup([sys.argv[0], corpus, *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
