"""What sums, guards, ranges and folded indices mean, over Python integers and over SMT terms alike.

Promises: each function gives the same result on integers as its term has in every model, so that a term
can be built from the very definition that a counterexample is evaluated with.

Environments map the names of the loop variables in scope to their values; BATCH maps to the number of images.
"""

from __future__ import annotations

import z3

from program import Block
from syntax import Extent, Guard, Loop, Sum

BATCH = "N"

# The loads of an element whatever the index.
FOLDED = ("reflect", "replicate", "circular")


def choose(condition, then, otherwise):
    if isinstance(condition, bool):
        return then if condition else otherwise
    return z3.If(condition, then, otherwise)


def floor_div(a, divisor: int):
    """The quotient rounded down; the divisor is positive."""
    return a // divisor if isinstance(a, int) else a / divisor


def remainder(a, divisor: int):
    return a % divisor


def absolute(a):
    return choose(a >= 0, a, -a)


def lesser(a, b):
    return choose(a < b, a, b)


def greater(a, b):
    return choose(a > b, a, b)


def value(index: Sum, env: dict):
    total = index.constant
    for coefficient, name in index.terms:
        total = total + (env[name] if coefficient == 1 else coefficient * env[name])
    return total


def holds(guard: Guard, env: dict):
    left = value(guard.sum, env)
    return left < guard.bound if guard.less else left >= guard.bound


def end_of(loop: Loop, env: dict):
    return env[BATCH] if loop.end is None else loop.end


def in_range(loop: Loop, env: dict) -> list:
    return [env[loop.name] >= loop.first, env[loop.name] < end_of(loop, env)]


def in_domain(block: Block, env: dict) -> list:
    """The conditions under which an iteration of a block runs."""
    ranges = [condition for loop in block.loops for condition in in_range(loop, env)]
    return ranges + [holds(guard, env) for guard in block.guards]


def size_of(extent: Extent, env: dict):
    return env[BATCH] if extent.size is None else extent.size


def inside(index, extent: Extent, env: dict) -> list:
    """The conditions under which an index lies in its dimension, and on its stripe."""
    conditions = [index >= extent.start, index < size_of(extent, env)]
    if extent.step != 1:
        conditions.append(remainder(index - extent.start, extent.step) == 0)
    return conditions


def folded(how: str, index, size):
    """The index that a `reflect`, `replicate` or `circular` load takes its element from."""
    if how == "reflect":
        last = size - 1
        index = last - absolute(last - absolute(index))
    elif how == "circular":
        index = choose(index < 0, index + size, choose(index >= size, index - size, index))
    return greater(0, lesser(index, size - 1))


def element(site, env: dict) -> tuple[list, list]:
    """The element that a site accesses, and the conditions under which it accesses one at all."""
    index = [value(sum_, env) for sum_ in site.access.index]
    if site.how == "pad":
        dimensions = zip(index, site.buffer.extents)
        return index, [condition for i, extent in dimensions for condition in inside(i, extent, env)]
    if site.how in FOLDED:
        return [folded(site.how, i, size_of(extent, env)) for i, extent in zip(index, site.buffer.extents)], []
    return index, []
