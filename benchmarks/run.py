"""Measures what docs/performance.md promises: `benchmarks/run.py [name ...]`; exit code 1 when a promise is missed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks import exits, hung, idle, life, look, memory, process_exporter, scrape
from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import HEADING, Figure, machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Benchmark(Protocol):
    """The shape of a benchmark module."""

    SHAPES: Sequence[Shape]

    def measure(self, crowd: Crowd) -> Iterator[Figure]:
        """The figures that can be had with this crowd."""
        ...


# Those that let the crowd grow old come first; look waits for the rest of that time.
BENCHMARKS: Final[dict[str, Benchmark]] = {
    "scrape": scrape,
    "life": life,
    "memory": memory,
    "hung": hung,
    "look": look,
    "process_exporter": process_exporter,
    "idle": idle,
    "exits": exits,
}
SHAPES: Final = (Shape(1, 100), Shape(1, 1000), Shape(1, 5000), Shape(50, 100))


def main(names: Sequence[str]) -> int:
    """Run the named benchmarks, or all; 0 when every promise is kept, 1 when one is missed, 2 for a wrong name."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {' '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    chosen = {name: BENCHMARKS[name] for name in names or BENCHMARKS}
    began, missed = time.monotonic(), 0
    print(machine(), HEADING, "-" * len(HEADING), sep="\n", flush=True)
    for shape in SHAPES:
        wanted = [benchmark for benchmark in chosen.values() if shape in benchmark.SHAPES]
        if not wanted:
            continue
        with Crowd(shape) as crowd:
            for benchmark in wanted:
                for figure in benchmark.measure(crowd):
                    missed += figure.kept is False
                    print(figure.row(), flush=True)
    verdict = "every promise kept" if not missed else f"{missed} missed"
    print(f"{verdict}; took {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
