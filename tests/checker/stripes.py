"""Whether the nests of a kernel write disjoint parts of the output that make up all of it.

Promises: `proved` only if an SMT solver finds no element beside all stripes, and the stripes have together as
many elements as the output; then no element is on two of them. That each nest writes its stripe, and nothing
else, is `bounds` and `coverage` of the nest.
"""

from __future__ import annotations

import z3

from meaning import BATCH, inside
from report import PROVED, REFUTED, UNPROVED, Verdict
from syntax import Extent


def partition(outputs: list[tuple[Extent, ...]], steps: int) -> tuple[Verdict, int]:
    """The verdict on the outputs of all nests of a kernel, and the number of queries. Nests whose outputs differ
    in shape are stages of the kernel, each with an output of its own; those of one shape are parts of one."""
    stages: dict[tuple, list[tuple[Extent, ...]]] = {}
    for output in outputs:
        stages.setdefault(tuple(extent.size for extent in output), []).append(output)
    verdicts = [parts_of(shape, parts, steps) for shape, parts in stages.items()]
    return Verdict.all("smt", verdicts), len(verdicts)


def parts_of(shape: tuple, outputs: list[tuple[Extent, ...]], steps: int) -> Verdict:
    """Whether the stripes are disjoint and make up an output of that shape."""
    env = {BATCH: z3.Int(BATCH)}
    element = [z3.Int(f"element.{dimension}") for dimension in range(len(shape))]
    solver = z3.SimpleSolver()
    solver.set("rlimit", steps)
    box = [c for e, size in zip(element, shape) for c in inside(e, Extent(size), env)]
    solver.add(env[BATCH] >= 0, *box)
    for output in outputs:
        beside = [z3.Not(c) for e, extent in zip(element, output) for c in inside(e, extent, env)]
        solver.add(z3.Or([z3.BoolVal(False), *beside]))
    result = solver.check()
    if result == z3.sat:
        return Verdict(REFUTED, "smt", [f"no nest writes {solver.model()}"])
    if result == z3.unknown:
        return Verdict(UNPROVED, "smt", ["the solver gave up"])
    together, whole = sum(map(size_of, outputs)), size_of([Extent(size) for size in shape])
    if together > whole:
        return Verdict(REFUTED, "smt", [f"the stripes have {together} elements of an image, the output {whole}"])
    return Verdict(PROVED, "smt")


def size_of(extents) -> int:
    """The elements of a stripe, in one image."""
    size = 1
    for extent in extents:
        if extent.size is not None:
            size *= len(range(extent.start, extent.size, extent.step))
    return size
