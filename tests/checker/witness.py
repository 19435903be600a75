"""Witnesses: candidates for the iteration in which a store writes a given element.

A store covers an element if some iteration writes it. A witness says which iteration, as a function of the
element: the index of each dimension is read as a number in mixed radix whose digits are the loop variables,
the largest coefficient first, and each digit is a quotient by its coefficient. What no index names is set to
the first or the last iteration of its loop.

Promises nothing: a witness is a guess. Whoever uses one proves that its iteration runs, writes the element
and comes early enough; a bad guess costs a proof, never soundness.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from meaning import BATCH, end_of, floor_div, greater, lesser, value
from program import Site
from syntax import Loop, Sum

# How a variable that no index names is chosen. `before` is the iteration before the reader's.
FIRST, LAST, SAME, BEFORE = "first", "last", "same", "before"

# Variables that are chosen one by one; of more, all are chosen alike.
MOST_CHOICES = 4


@dataclass(frozen=True)
class Witness:
    """One candidate iteration of a store. `known` are the variables it shares with a reader of the element."""

    site: Site
    known: tuple[str, ...]
    choices: tuple[tuple[str, str], ...]
    largest: bool

    def iteration(self, outer: dict, target: list) -> dict:
        """All variables of the store: known ones as `outer` has them, the others such that `target` is written."""
        env = {name: outer[name] for name in (BATCH, *self.known)}
        loops = {loop.name: loop for loop in self.site.loops if loop.name not in env}
        for name, how in self.choices:
            env[name] = chosen(how, loops.pop(name), outer, env)
        dimensions = list(zip(self.site.access.index, target))
        while dimensions:
            dimensions.sort(key=lambda d: len(unknown(d[0], loops)))
            index, wanted = dimensions.pop(0)
            for name, digit in self.digits(index, wanted, env, loops):
                env[name] = digit
                del loops[name]
        return env

    def digits(self, index: Sum, wanted, env: dict, loops: dict[str, Loop]):
        """The unknown variables of an index by their digits, the largest coefficient first."""
        terms = unknown(index, loops)
        rest = wanted - value(Sum(index.constant, tuple(t for t in index.terms if t not in terms)), env)
        # A falling digit counts from the last iteration.
        for coefficient, name in terms:
            rest = rest - coefficient * (loops[name].first if coefficient > 0 else end_of(loops[name], env) - 1)
        for at, (coefficient, name) in enumerate(terms):
            reach = reach_of(terms[at + 1 :], loops)
            digit = self.digit(rest, abs(coefficient), reach, length(loops[name]))
            rest = rest - abs(coefficient) * digit
            first, end = loops[name].first, end_of(loops[name], env)
            yield name, (first + digit if coefficient > 0 else end - 1 - digit)

    def digit(self, rest, radix: int, reach: int, count: int | None):
        """A digit of which the digits behind reach as far as `reach`: the largest possible, or the least."""
        if reach < radix:
            return rest if radix == 1 else floor_div(rest, radix)
        if not self.largest:
            return greater(0, floor_div(rest - reach + radix - 1, radix))
        digit = floor_div(rest, radix)
        return digit if count is None else greater(0, lesser(digit, count - 1))


def chosen(how: str, loop: Loop, outer: dict, env: dict):
    match how:
        case "first":
            return loop.first
        case "last":
            return end_of(loop, env) - 1
        case "same":
            return outer[loop.name]
        case _:
            return outer[loop.name] - 1


def length(loop: Loop) -> int | None:
    return None if loop.end is None else loop.end - loop.first


def unknown(index: Sum, loops: dict[str, Loop]) -> list[tuple[int, str]]:
    """The terms of an index whose variables are not known yet, the largest first."""
    terms = [term for term in index.terms if term[1] in loops]
    return sorted(terms, key=lambda term: (-abs(term[0]), -(length(loops[term[1]]) or 0)))


def reach_of(terms: list[tuple[int, str]], loops: dict[str, Loop]) -> int:
    """The largest number that digits stand for; that of a loop over the batch counts as none."""
    return sum(abs(c) * max(0, (length(loops[name]) or 1) - 1) for c, name in terms)


def witnesses(site: Site, known: tuple[str, ...] = (), earlier: str | None = None, shared: frozenset = frozenset()):
    """Candidates, the likeliest first. `known` variables are the reader's; of the others, `shared` are variables
    that the reader has a value of, too, and `earlier` is the one of them that must be less than the reader's."""
    loops = [loop for loop in site.loops if loop.name not in known]
    indexed = {name for index in site.access.index for _, name in index.terms}
    digits = {loop.name: loop for loop in loops if loop.name in indexed and length(loop) != 1}
    ambiguous = any(overlap(unknown(index, digits), digits) for index in site.access.index)

    def ways(loop: Loop) -> list[str]:
        if loop.name == earlier:
            return [BEFORE, FIRST]
        if length(loop) == 1:
            return [FIRST]
        return [FIRST, LAST, SAME] if loop.name in shared else [FIRST, LAST]

    chosen_loops = [loop for loop in loops if loop.name not in digits]
    for choice in combinations([ways(loop) for loop in chosen_loops]):
        choices = tuple((loop.name, how) for loop, how in zip(chosen_loops, choice))
        yield Witness(site, known, choices, True)
        if ambiguous:
            yield Witness(site, known, choices, False)
            for name, loop in digits.items():
                for how in ways(loop):
                    yield Witness(site, known, (*choices, (name, how)), True)


def combinations(ways: list[list[str]]):
    if len(ways) <= MOST_CHOICES:
        return itertools.product(*ways)
    return iter(dict.fromkeys(tuple(way[min(at, len(way) - 1)] for way in ways) for at in range(3)))


def overlap(terms: list[tuple[int, str]], loops: dict[str, Loop]) -> bool:
    """Whether a number has several representations by these digits."""
    return any(reach_of(terms[at + 1 :], loops) >= abs(c) for at, (c, _) in enumerate(terms))
