"""Measures what docs/performance.md promises: `benchmarks/run.py [name ...]`; exit code 1 when a promise is missed."""

from __future__ import annotations

import sys
import time
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks import exits, hung, idle, jobs, life, look, memory, process_exporter, scrape
from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import HEADING, machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.figures import Figure


class Benchmark(NamedTuple):
    """One benchmark: the crowds it wants, and what it measures with each."""

    name: str
    shapes: Sequence[Shape]
    measure: Callable[[Crowd], Iterator[Figure]]


# Those that let the crowd grow old come first; look waits for the rest of that time.
BENCHMARKS: Final = (
    Benchmark("scrape", scrape.SHAPES, scrape.measure),
    Benchmark("life", life.SHAPES, life.measure),
    Benchmark("memory", memory.SHAPES, memory.measure),
    Benchmark("hung", hung.SHAPES, hung.measure),
    Benchmark("look", look.SHAPES, look.measure),
    Benchmark("process_exporter", process_exporter.SHAPES, process_exporter.measure),
    Benchmark("idle", idle.SHAPES, idle.measure),
    Benchmark("exits", exits.SHAPES, exits.measure),
)
ALONE: Final = {"jobs": jobs.measure}
"""Benchmarks without a crowd."""
SHAPES: Final = (Shape(1, 100), Shape(1, 1000), Shape(1, 5000), Shape(50, 100))


def figures_of_crowds(chosen: Sequence[Benchmark]) -> Iterator[Figure]:
    """Each crowd is made once, for all who want it."""
    for shape in SHAPES:
        wanted = [benchmark for benchmark in chosen if shape in benchmark.shapes]
        if not wanted:
            continue
        with Crowd(shape) as crowd:
            for benchmark in wanted:
                yield from benchmark.measure(crowd)


def main(names: Sequence[str]) -> int:
    """Run the named benchmarks, or all; 0 when every promise is kept, 1 when one is missed, 2 for a wrong name."""
    known = [*(benchmark.name for benchmark in BENCHMARKS), *ALONE]
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {' '.join(known)}", file=sys.stderr)
        return 2
    chosen = [benchmark for benchmark in BENCHMARKS if not names or benchmark.name in names]
    alone = [measure for name, measure in ALONE.items() if not names or name in names]
    began, missed = time.monotonic(), 0
    print(machine(), HEADING, "-" * len(HEADING), sep="\n", flush=True)
    for figure in chain(figures_of_crowds(chosen), *(measure() for measure in alone)):
        missed += figure.kept is False
        print(figure.row(), flush=True)
    verdict = "every promise kept" if not missed else f"{missed} missed"
    print(f"{verdict}; took {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
