"""Proofs by an SMT solver, over mathematical integers and for every number of images.

Promises: a property is `proved` only if Z3 finds the negation unsatisfiable, and `refuted` only by an
execution that breaks it, which is printed. Everything else, a query that takes too long too, is `unproved`.

How: an access runs in the iterations that satisfy the ranges of its loops and all guards around it, and its
indices are linear in the loop variables, so that each question about one or two accesses is a query without
quantifiers: out of bounds (one iteration), written by two tasks or lanes (two iterations). "Written by some
iteration", which is existential, is proved by witnesses (see `witness`): the element is not covered, and no
witness covers it, is unsatisfiable. Witnesses are added where a model shows that they are needed.

Does not: know the rules or methods of the verifier of convgen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import z3

from meaning import BATCH, FOLDED, absolute, element, in_domain, in_range, inside, size_of, value
from program import Block, Buffer, Lanes, Program, Site
from report import PROVED, REFUTED, UNPROVED, Verdict
from syntax import Guard, Loop, Sum
from witness import Witness, witnesses

# Bytes that the buffers of one call have at most: half of what an i64 addresses.
LARGEST_BUFFER = 2**62
LARGEST_INTEGER = 2**63 - 1
ELEMENT_BYTES = 4

# Steps of Z3 (its `rlimit`) for one query: some ten seconds, but the same verdict on every machine.
STEPS = 20_000_000

# Witnesses that one proof may need.
MOST_WITNESSES = 400


@dataclass
class Prover:
    """All proofs of one nest. `batch` is the number of images; `count` counts queries."""

    program: Program
    steps: int = STEPS
    count: int = 0
    batch: z3.ArithRef = field(default_factory=lambda: z3.Int(BATCH))
    domains: dict = field(default_factory=dict)

    # -- what is proved

    def bounds(self) -> Verdict:
        """No plain load and no store leaves its buffer, no store of the output its stripe; and where an index is
        folded there is an element to fold it to."""
        sites = distinct([site for site in self.program.sites if site.how not in ("pad", "fetch")])
        return self.none(self.out_of_bounds(site) for site in sites)

    def integers(self) -> Verdict:
        """The terms of no address, in bytes, and of no guard leave 64 bits, in whatever order they are added."""
        sites = {address_key(site): site for site in self.program.sites}
        guards = {(guard, ranges_of([guard.sum], block)): (guard, block) for guard, block in self.program.guards}
        addresses = (self.large_address(site) for site in sites.values())
        return self.none(itertools.chain(addresses, (self.large_guard(*pair) for pair in guards.values())))

    def tasks(self) -> Verdict:
        """No two tasks write one element of the output."""
        if not self.program.tasks:
            return Verdict(PROVED, "smt")
        stores = distinct(self.program.stores(self.program.output))
        return self.none(self.tasks_meet(*pair) for pair in itertools.combinations_with_replacement(stores, 2))

    def lanes(self) -> Verdict:
        """No lane writes what another lane of the same run of its loop writes or reads."""
        return self.none(self.lanes_meet(*pair) for pair in self.lane_pairs())

    def coverage(self) -> Verdict:
        """Every element of the output's stripe, and of each packed buffer, is written."""
        buffers = [self.program.output, *self.program.packed]
        return Verdict.all("smt", (self.covered(buffer) for buffer in buffers))

    def defined(self) -> Verdict:
        """Every element of scratch and registers that is read was written before, in the same lifetime."""
        loads = [s for s in self.program.sites if s.buffer.lifetime is not None and s.how not in ("store", "fetch")]
        return Verdict.all("smt", (self.written_before(site) for site in loads))

    # -- bounds and sizes

    def out_of_bounds(self, site: Site) -> Violation:
        env = self.variables(site.block)
        index, _ = element(site, env)
        outside = [z3.Not(c) for i, e in zip(index, site.buffer.extents) for c in inside(i, e, env)]
        return Violation(self.domain(site.block), disjunction(outside), f"{site} is out of bounds", (env,))

    def large_address(self, site: Site) -> Violation:
        env = self.variables(site.block)
        totals, offset, stride = [], 0, ELEMENT_BYTES
        for index, extent in zip(reversed(site.access.index), reversed(site.buffer.extents)):
            size, position = size_of(extent, env), self.magnitude(index, env)
            if site.how in FOLDED:
                # Folding goes as far as two sizes beyond the index, and ends inside.
                totals.append(position + 2 * size)
                position = size
            offset, stride = offset + stride * position, stride * size
        message = f"{site}: an integer of its address leaves 64 bits"
        return self.too_large(site.access.index, site.block, [*totals, offset], message)

    def large_guard(self, guard: Guard, block: Block) -> Violation:
        total = self.magnitude(guard.sum, self.variables(block)) + abs(guard.bound)
        return self.too_large([guard.sum], block, [total], f"guard `{guard}`: an integer of it leaves 64 bits")

    def magnitude(self, index: Sum, env: dict):
        """What the terms of a sum are at most in any order of addition."""
        return abs(index.constant) + sum(abs(c) * absolute(env[name]) for c, name in index.terms)

    def too_large(self, sums: Iterable[Sum], block: Block, totals: list, message: str) -> Violation:
        """A total leaves 64 bits while the variables of the sums are in their ranges, whatever the guards say."""
        env = self.variables(block)
        named = {name for name, _, _ in ranges_of(sums, block)}
        ranges = [condition for loop in block.loops if loop.name in named for condition in in_range(loop, env)]
        large = [total > LARGEST_INTEGER for total in totals]
        return Violation(self.buffers_fit, conjunction([*ranges, disjunction(large)]), message, (env,))

    @cached_property
    def buffers_fit(self) -> list:
        """The assumption: the buffers of a call are in memory."""
        assumed = [self.batch <= LARGEST_BUFFER // ELEMENT_BYTES]
        for buffer in {site.buffer for site in self.program.sites}:
            if any(extent.size is None for extent in buffer.extents):
                image = ELEMENT_BYTES
                for extent in buffer.extents[1:]:
                    image *= extent.size
                assumed.append(self.batch * image <= LARGEST_BUFFER)
        return assumed

    # -- two iterations at one element

    def tasks_meet(self, one: Site, other: Site) -> Violation:
        a, b = self.variables(one.block), self.variables(other.block, "'")
        broken = conjunction([*meet(one, a, other, b), differ(self.program.tasks, a, b)])
        message = f"two tasks write the same element: {one} and {other}"
        return Violation(self.both_domains(one.block, other.block, b), broken, message, (a, b))

    def lanes_meet(self, lanes: Lanes, one: Site, other: Site) -> Violation:
        a = self.variables(one.block)
        b = self.variables(other.block, "'") | {loop.name: a[loop.name] for loop in lanes.around.loops}
        broken = conjunction([*meet(one, a, other, b), differ(lanes.loops, a, b)])
        message = f"two lanes meet at one element: {one} and {other}"
        return Violation(self.both_domains(one.block, other.block, b, lanes), broken, message, (a, b))

    def both_domains(self, one: Block, other: Block, b: dict, lanes: Lanes | None = None) -> list:
        """The conditions on two iterations; one list for all pairs of the same blocks."""
        key = (one, other, lanes)
        if key not in self.domains:
            self.domains[key] = [*self.domain(one), *in_domain(other, b)]
        return self.domains[key]

    def lane_pairs(self):
        """Each vector loop with a store and another access, of a buffer that lives longer than a lane."""
        for lanes in self.program.lanes:
            sites = [s for s in self.program.sites if lanes.loops[0] in s.loops and s.how != "fetch"]
            sites = distinct([s for s in sites if not within(s.buffer, lanes)])
            stores = [s for s in sites if s.how == "store"]
            pairs = itertools.combinations_with_replacement(stores, 2)
            pairs = itertools.chain(pairs, itertools.product(stores, [s for s in sites if s.how != "store"]))
            yield from ((lanes, one, other) for one, other in pairs if one.buffer is other.buffer)

    # -- some iteration writes

    def covered(self, buffer: Buffer) -> Verdict:
        target = [z3.Int(f"element.{dimension}") for dimension in range(len(buffer.extents))]
        env = {BATCH: self.batch} | {str(e): e for e in target}
        box = [c for e, extent in zip(target, buffer.extents) for c in inside(e, extent, env)]
        stores = self.program.stores(buffer)
        pool = [Cover(w) for store in stores for w in witnesses(store)]
        first = {BATCH: 1} | {str(e): extent.start for e, extent in zip(target, buffer.extents)}
        start = (first, [first[str(e)] for e in target])
        message = f"{buffer.kind} `{buffer.name}` is not written"
        return self.cover(Demand(box, env, target, stores, pool, message, start))

    def written_before(self, load: Site) -> Verdict:
        env = self.variables(load.block)
        target, _ = element(load, env)
        # Where there is no element, none is read, or `bounds` is refuted.
        existing = [c for t, extent in zip(target, load.buffer.extents) for c in inside(t, extent, env)]
        stores = self.program.stores(load.buffer)
        pool = [cover for store in stores for cover in covers_before(store, load)]
        conditions = [*self.domain(load.block), *existing]
        first = {BATCH: 1} | {loop.name: loop.first for loop in load.loops}
        start = (first, element(load, first)[0])
        message = f"{load} reads an undefined element"
        return self.cover(Demand(conditions, env, target, stores, pool, message, start, load))

    def cover(self, demand: Demand) -> Verdict:
        """Whether some witness always meets the demand; those that a model asks for are tried one by one."""
        solver = self.solver()
        solver.add(self.batch >= 0, *demand.conditions)
        likeliest = demand.witness(*demand.start)
        if likeliest is not None:
            self.exclude(solver, demand, likeliest)
        for _ in range(MOST_WITNESSES):
            self.count += 1
            result = solver.check()
            if result == z3.unsat:
                return Verdict(PROVED, "smt")
            if result == z3.unknown:
                return Verdict(UNPROVED, "smt", [f"{demand.message}? The solver gave up"])
            model = Model(solver.model())
            outer, wanted = model.of(demand.env), [model.integer(t) for t in demand.target]
            used = demand.witness(outer, wanted)
            if used is None:
                return self.uncovered(demand, outer, wanted)
            self.exclude(solver, demand, used)
        return Verdict(UNPROVED, "smt", [f"{demand.message}? It takes more than {MOST_WITNESSES} witnesses"])

    def exclude(self, solver: z3.Solver, demand: Demand, cover: Cover) -> None:
        """Asks from now on only for what this witness does not cover."""
        demand.pool.remove(cover)
        solver.add(z3.Not(conjunction(cover.conditions(demand.env, demand.target))))

    def uncovered(self, demand: Demand, outer: dict[str, int], wanted: list[int]) -> Verdict:
        """No witness covers this element: it is refuted if no iteration does."""
        message = f"{demand.message} at {', '.join(f'{name}={number}' for name, number in outer.items())}"
        for store in demand.stores:
            env = self.variables(store.block, "'") | {BATCH: z3.IntVal(outer[BATCH])}
            same = [e == w for e, w in zip(element(store, env)[0], wanted)]
            order = [] if demand.load is None else [earlier(store, env, demand.load, outer)]
            if self.query([*in_domain(store.block, env), *same, *order]) is not False:
                return Verdict(UNPROVED, "smt", [f"{message}? {store} may write it, but no witness shows when"])
        return Verdict(REFUTED, "smt", [message])

    # -- the solver

    def variables(self, block: Block, mark: str = "") -> dict:
        return {BATCH: self.batch} | {loop.name: z3.Int(loop.name + mark) for loop in block.loops}

    def domain(self, block: Block, mark: str = "") -> list:
        """The conditions under which an iteration of a block runs, over its `variables`."""
        if (block, mark) not in self.domains:
            self.domains[block, mark] = in_domain(block, self.variables(block, mark))
        return self.domains[block, mark]

    def solver(self) -> z3.Solver:
        solver = z3.SimpleSolver()
        solver.set("rlimit", self.steps)
        return solver

    def none(self, violations: Iterable[Violation]) -> Verdict:
        """That no violation is possible: asked at once for all of the same conditions, one by one if one is."""
        together: dict[int, list[Violation]] = {}
        for violation in violations:
            together.setdefault(id(violation.conditions), []).append(violation)
        verdicts = []
        for group in together.values():
            broken = disjunction([violation.broken for violation in group])
            if self.query([*group[0].conditions, broken]) is not False:
                verdicts += [self.judge(violation) for violation in group]
        return Verdict.all("smt", verdicts)

    def query(self, conditions: list):
        """A model of the conditions, False if there is none, None if the solver does not know."""
        self.count += 1
        solver = self.solver()
        solver.add(self.batch >= 0, *conditions)
        result = solver.check()
        if result == z3.sat:
            return Model(solver.model())
        return False if result == z3.unsat else None

    def judge(self, violation: Violation) -> Verdict:
        """The verdict on one violation."""
        found = self.query([*violation.conditions, violation.broken])
        if found is False:
            return Verdict(PROVED, "smt")
        if found is None:
            return Verdict(UNPROVED, "smt", [f"{violation.message}? The solver gave up"])
        runs = [", ".join(f"{name}={number}" for name, number in found.of(env).items()) for env in violation.envs]
        return Verdict(REFUTED, "smt", [f"{violation.message} at {' and at '.join(runs)}"])


@dataclass
class Violation:
    """What must not be: `broken` under the conditions. The variables of the iterations are shown if it is."""

    conditions: list
    broken: z3.BoolRef
    message: str
    envs: tuple[dict, ...]


class Model:
    """The integers of a model."""

    def __init__(self, model: z3.ModelRef):
        self.model = model

    def integer(self, term) -> int:
        return term if isinstance(term, int) else self.model.eval(term, model_completion=True).as_long()

    def of(self, env: dict) -> dict[str, int]:
        return {name: self.integer(term) for name, term in env.items()}


@dataclass
class Demand:
    """Whatever `env` is under the conditions, one of the stores must write the target; before the load, if any."""

    conditions: list
    env: dict
    target: list
    stores: list[Site]
    pool: list[Cover]
    message: str
    # Values to find the first witness with, which spares a query if they satisfy the conditions.
    start: tuple[dict, list]
    load: Site | None = None

    def witness(self, outer: dict[str, int], wanted: list[int]) -> Cover | None:
        """A witness that covers the target for these values."""
        likely = (cover for cover in self.pool if cover.may_write(wanted))
        return next((cover for cover in likely if all(cover.conditions(outer, wanted))), None)


@dataclass
class Cover:
    """A witness, and the variable in which it is earlier than the reader, if it is in one."""

    witness: Witness
    earlier: str | None = None

    def may_write(self, target: list[int]) -> bool:
        """Whether no index is a number other than the target's: a quick test."""
        pairs = zip(self.witness.site.access.index, target)
        return all(index.terms or index.constant == number for index, number in pairs)

    def conditions(self, outer: dict, target: list) -> list:
        """That the witness runs, writes the target, and comes early enough."""
        env = self.witness.iteration(outer, target)
        site = self.witness.site
        written = [value(index, env) == t for index, t in zip(site.access.index, target)]
        order = [] if self.earlier is None else [env[self.earlier] < outer[self.earlier]]
        return [*in_domain(site.block, env), *written, *order]


def covers_before(store: Site, load: Site):
    """Witnesses of a store that come before a load: in the same iteration of all loops around both, where
    the store stands first, or in an earlier one of some loop inside the lifetime of the buffer."""
    shared = shared_loops(store, load)
    outer = len(store.buffer.lifetime.loops)
    if stands_before(store, load):
        yield from (Cover(w) for w in witnesses(store, tuple(loop.name for loop in shared)))
    for depth in reversed(range(outer, len(shared))):
        known = tuple(loop.name for loop in shared[:depth])
        rest = frozenset(loop.name for loop in shared[depth:])
        at = shared[depth].name
        yield from (Cover(w, at) for w in witnesses(store, known, at, rest))


def shared_loops(one: Site, other: Site) -> list:
    common = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one.path, other.path))
    return [item for item, _ in common if not isinstance(item, int)]


def stands_before(one: Site, other: Site) -> bool:
    """Whether one site comes first in an iteration of all loops around both."""
    a, b = next((a, b) for a, b in zip(one.path, other.path) if a != b)
    return a < b


def earlier(store: Site, env: dict, load: Site, outer: dict):
    """That the store's iteration comes before the load's, in the same lifetime of the buffer."""
    shared = [loop.name for loop in shared_loops(store, load)]
    fixed = len(store.buffer.lifetime.loops)
    same = [env[name] == outer[name] for name in shared[:fixed]]
    order = z3.BoolVal(stands_before(store, load))
    for name in reversed(shared[fixed:]):
        order = z3.Or(env[name] < outer[name], z3.And(env[name] == outer[name], order))
    return conjunction([*same, order])


def conjunction(conditions: list):
    return z3.And([z3.BoolVal(True), *conditions])


def disjunction(conditions: list):
    return z3.Or([z3.BoolVal(False), *conditions])


def meet(one: Site, a: dict, other: Site, b: dict) -> list:
    """That two iterations access one element."""
    first, when = element(one, a)
    second, then = element(other, b)
    return [*when, *then, *(x == y for x, y in zip(first, second))]


def differ(loops: Iterable[Loop], a: dict, b: dict):
    return disjunction([a[loop.name] != b[loop.name] for loop in loops])


def ranges_of(sums: Iterable[Sum], block: Block) -> tuple:
    """The ranges of the variables of some sums."""
    named = {name for index in sums for _, name in index.terms}
    return tuple((loop.name, loop.first, loop.end) for loop in block.loops if loop.name in named)


def address_key(site: Site) -> tuple:
    """What the integers of an address depend on."""
    return site.buffer.extents, site.how in FOLDED, site.access.index, ranges_of(site.access.index, site.block)


def distinct(sites: list[Site]) -> list[Site]:
    return list({site.key: site for site in sites}.values())


def within(buffer: Buffer, lanes: Lanes) -> bool:
    return buffer.lifetime is not None and lanes.loops[0] in buffer.lifetime.loops
