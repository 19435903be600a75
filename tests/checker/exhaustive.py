"""Proofs by executing every iteration of a small nest, over arrays of all iterations at once.

Promises: the same properties as `smt`, by another method that shares only the parser and the scopes with it.
A property is `proved` if it holds in every iteration for 0, 1 and 2 images; where a nest has more iterations
than LIMIT, or its images are not alike, everything is `unproved`.

Why 0, 1 and 2 images are enough: images are alike if each variable that runs over `0..N` is in no guard and in
no index but, alone, in the leading one of a buffer with the extent `N`. Then every image does the same to
elements that differ in the image only. What holds for one image, and for one image beside another, holds for
each and for each pair; what the first one writes in scratch, a later one finds written.

Does not: check the size of integers, which does not depend on what is executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from program import Block, Buffer, Lanes, Program, Site
from report import PROVED, REFUTED, UNPROVED, Verdict
from syntax import Guard, Loop, Sum

# Iterations of blocks, accesses and elements that are held in memory, for one number of images.
LIMIT = 400_000

BATCHES = (0, 1, 2)

FOLDS = ("reflect", "replicate", "circular")

# Iterations and elements are numbered in 64 bits.
MOST_NUMBERS = 2**62


class TooLarge(Exception):
    """More iterations than LIMIT."""


@dataclass
class Rows:
    """The iterations of a block: a column for each variable."""

    count: int
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def take(self, kept: np.ndarray) -> Rows:
        return Rows(len(kept), {name: column[kept] for name, column in self.columns.items()})

    def value(self, index: Sum) -> np.ndarray:
        total = np.full(self.count, index.constant, dtype=np.int64)
        for coefficient, name in index.terms:
            total += coefficient * self.columns[name]
        return total

    def holds(self, guard: Guard) -> np.ndarray:
        left = self.value(guard.sum)
        return left < guard.bound if guard.less else left >= guard.bound

    def show(self, row: int) -> str:
        return ", ".join(f"{name}={column[row]}" for name, column in self.columns.items())


class Execution:
    """All iterations of a nest for one number of images."""

    def __init__(self, program: Program, images: int):
        self.program = program
        self.images = images
        self.blocks: dict[Block, Rows] = {}
        self.total = 0

    def spend(self, count: int) -> None:
        self.total += count
        if self.total > LIMIT:
            raise TooLarge

    def block(self, block: Block) -> Rows:
        if block not in self.blocks:
            self.blocks[block] = self.execute(block)
        return self.blocks[block]

    def execute(self, block: Block) -> Rows:
        """The iterations of a block; each guard is applied as soon as its variables are known."""
        rows, pending = Rows(1), list(block.guards)
        for loop in (None, *block.loops):
            if loop is not None:
                rows = self.iterate(rows, loop)
            for guard in [g for g in pending if all(name in rows.columns for _, name in g.sum.terms)]:
                pending.remove(guard)
                rows = rows.take(np.flatnonzero(rows.holds(guard)))
        return rows

    def iterate(self, rows: Rows, loop: Loop) -> Rows:
        end = self.images if loop.end is None else loop.end
        length = max(0, end - loop.first)
        self.spend(rows.count * length)
        inner = rows.take(np.repeat(np.arange(rows.count), length))
        inner.columns[loop.name] = np.tile(np.arange(length, dtype=np.int64) + loop.first, rows.count)
        return inner

    def extents(self, buffer: Buffer) -> list[int]:
        return [self.images if extent.size is None else extent.size for extent in buffer.extents]

    def elements(self, site: Site) -> Elements:
        """What a site accesses, flat, in each of its iterations in which it accesses an element."""
        rows = self.block(site.block)
        self.spend(rows.count)
        index = [rows.value(i) for i in site.access.index]
        extents = self.extents(site.buffer)
        if site.how in FOLDS:
            index = [fold(site.how, i, extent) for i, extent in zip(index, extents)]
        inside = np.ones(rows.count, dtype=bool)
        for i, extent in zip(index, extents):
            inside &= (i >= 0) & (i < extent)
        flat = np.zeros(rows.count, dtype=np.int64)
        for i, extent in zip(index, extents):
            flat = flat * extent + i
        return Elements(site, rows, flat, inside)


@dataclass
class Elements:
    """The flat element of each iteration of a site, and whether it is one at all."""

    site: Site
    rows: Rows
    flat: np.ndarray
    inside: np.ndarray

    def existing(self) -> Elements:
        """Only those iterations in which an element is accessed."""
        kept = np.flatnonzero(self.inside)
        return Elements(self.site, self.rows.take(kept), self.flat[kept], self.inside[kept])

    def numbers(self, loops: tuple[Loop, ...], size: int = 1) -> np.ndarray:
        """The iterations of some loops, as one number each; `size` of them must have numbers, too."""
        number = np.zeros(self.rows.count, dtype=np.int64)
        for loop in loops:
            span = (loop.end - loop.first) if loop.end is not None else max(BATCHES)
            size *= span
            number = number * span + (self.rows.columns[loop.name] - loop.first)
        if size > MOST_NUMBERS:
            raise TooLarge
        return number

    def keys(self, loops: tuple[Loop, ...], size: int) -> np.ndarray:
        """The element of a buffer of that size together with the iteration of some loops."""
        return self.numbers(loops, size) * size + self.flat


def fold(how: str, index: np.ndarray, size: int) -> np.ndarray:
    if how == "reflect":
        index = (size - 1) - np.abs((size - 1) - np.abs(index))
    elif how == "circular":
        index = np.where(index < 0, index + size, np.where(index >= size, index - size, index))
    return np.clip(index, 0, size - 1)


class Exhaustive:
    """All proofs of one nest; each returns a verdict like its namesake in `smt.Prover`."""

    def __init__(self, program: Program):
        self.program = program
        self.reason = None if images_alike(program) else "its images are not alike"
        self.executions = []
        self.accesses: list[list[Elements]] = []
        if self.reason is None:
            self.execute_all()

    def execute_all(self) -> None:
        sites = [site for site in self.program.sites if site.how != "fetch"]
        try:
            for images in BATCHES if has_batch(self.program) else BATCHES[:1]:
                execution = Execution(self.program, images)
                execution.spend(sum(self.size(execution, buffer) for buffer in self.written()))
                self.executions.append(execution)
                self.accesses.append([execution.elements(site) for site in sites])
        except TooLarge:
            self.reason = f"more than {LIMIT} iterations"

    def written(self) -> list[Buffer]:
        return [self.program.output, *self.program.packed]

    def size(self, execution: Execution, buffer: Buffer) -> int:
        size = 1
        for extent in execution.extents(buffer):
            size *= extent
        return size

    def each(self, prove) -> Verdict:
        """The verdict on all numbers of images."""
        if self.reason is not None:
            return Verdict(UNPROVED, "enumeration", [f"not enumerated: {self.reason}"])
        faults = []
        try:
            for execution, accesses in zip(self.executions, self.accesses):
                faults += [f"with {execution.images} images: {fault}" for fault in prove(execution, accesses)]
        except TooLarge:
            return Verdict(UNPROVED, "enumeration", ["not enumerated: the iterations of its loops have no numbers"])
        return Verdict(REFUTED if faults else PROVED, "enumeration", faults)

    def bounds(self) -> Verdict:
        return self.each(self.out_of_bounds)

    def tasks(self) -> Verdict:
        return self.each(self.shared_by_tasks)

    def lanes(self) -> Verdict:
        return self.each(self.shared_by_lanes)

    def coverage(self) -> Verdict:
        return self.each(self.not_written)

    def defined(self) -> Verdict:
        return self.each(self.undefined)

    def out_of_bounds(self, execution: Execution, accesses: list[Elements]):
        for access in accesses:
            if access.site.how == "pad":
                continue
            bad = ~access.inside | ~self.on_stripe(access)
            if bad.any():
                yield f"{access.site} is out of bounds at {access.rows.show(int(np.argmax(bad)))}"

    def on_stripe(self, access: Elements) -> np.ndarray:
        good = np.ones(access.rows.count, dtype=bool)
        for index, extent in zip(access.site.access.index, access.site.buffer.extents):
            if extent.striped:
                position = access.rows.value(index) - extent.start
                good &= (position >= 0) & (position % extent.step == 0)
        return good

    def stores(self, accesses: list[Elements], buffer: Buffer) -> list[Elements]:
        return [a.existing() for a in accesses if a.site.buffer is buffer and a.site.how == "store"]

    def shared_by_tasks(self, execution: Execution, accesses: list[Elements]):
        stores = self.stores(accesses, self.program.output)
        least, most = extremes([(s.flat, s.numbers(self.program.tasks)) for s in stores])
        meeting = np.flatnonzero(least[1] != most[1])
        if len(meeting):
            yield f"two tasks write element {least[0][meeting[0]]} of the output"

    def not_written(self, execution: Execution, accesses: list[Elements]):
        for buffer in self.written():
            missing = stripe(execution, buffer)
            for store in self.stores(accesses, buffer):
                missing[store.flat] = False
            if missing.any():
                yield f"{buffer.kind} `{buffer.name}`: element {int(np.argmax(missing))} is not written"

    def shared_by_lanes(self, execution: Execution, accesses: list[Elements]):
        for lanes in self.program.lanes:
            inside = [a.existing() for a in accesses if lanes.loops[0] in a.site.loops]
            for buffer in {a.site.buffer for a in inside if a.site.how == "store"}:
                if buffer.lifetime is None or lanes.loops[0] not in buffer.lifetime.loops:
                    yield from self.lanes_meet(execution, lanes, [a for a in inside if a.site.buffer is buffer])

    def lanes_meet(self, execution: Execution, lanes: Lanes, accesses: list[Elements]):
        size = self.size(execution, accesses[0].site.buffer)
        pairs = [(a.keys(lanes.around.loops, size), a.numbers(lanes.loops)) for a in accesses]
        stores = [pair for access, pair in zip(accesses, pairs) if access.site.how == "store"]
        least, most = extremes(stores)
        if (least[1] != most[1]).any():
            yield f"two lanes of `{lanes.loops[0].name}` write one element of `{accesses[0].site.buffer.name}`"
        for access, (keys, lane) in zip(accesses, pairs):
            writer = look_up(least, keys, lane)
            if (writer != lane).any():
                row = access.rows.show(int(np.argmax(writer != lane)))
                yield f"{access.site} meets what another lane writes at {row}"

    def undefined(self, execution: Execution, accesses: list[Elements]):
        local = [a.existing() for a in accesses if a.site.buffer.lifetime is not None]
        for buffer in dict.fromkeys(a.site.buffer for a in local):
            yield from self.read_too_early(execution, [a for a in local if a.site.buffer is buffer])

    def read_too_early(self, execution: Execution, accesses: list[Elements]):
        buffer = accesses[0].site.buffer
        size = self.size(execution, buffer)
        keys = [a.keys(buffer.lifetime.loops, size) for a in accesses]
        times = order([timestamps(a) for a in accesses])
        first, _ = extremes([(k, t) for a, k, t in zip(accesses, keys, times) if a.site.how == "store"])
        for access, key, time in zip(accesses, keys, times):
            if access.site.how == "store":
                continue
            late = look_up(first, key, time) >= time
            if late.any():
                yield f"{access.site} reads an undefined element at {access.rows.show(int(np.argmax(late)))}"


def stripe(execution: Execution, buffer: Buffer) -> np.ndarray:
    """Which elements of a buffer, flat, are on its stripe."""
    on = np.ones(1, dtype=bool)
    for extent, size in zip(buffer.extents, execution.extents(buffer)):
        positions = np.arange(size)
        here = (positions >= extent.start) & ((positions - extent.start) % extent.step == 0)
        on = (on[:, None] & here[None, :]).reshape(-1)
    return on


def extremes(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[tuple, tuple]:
    """For each key, ascending, the least and the largest number that comes with it."""
    keys = np.concatenate([key for key, _ in pairs]) if pairs else np.zeros(0, dtype=np.int64)
    numbers = np.concatenate([number for _, number in pairs]) if pairs else np.zeros(0, dtype=np.int64)
    by_key = np.lexsort((numbers, keys))
    keys, numbers = keys[by_key], numbers[by_key]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = keys[1:] != keys[:-1]
    last = np.roll(new, -1)
    return (keys[new], numbers[new]), (keys[last], numbers[last])


def look_up(table: tuple[np.ndarray, np.ndarray], keys: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The numbers of the keys in a table that is sorted by key; `missing` for those that are not in it."""
    if len(table[0]) == 0:
        return missing
    at = np.minimum(np.searchsorted(table[0], keys), len(table[0]) - 1)
    return np.where(table[0][at] == keys, table[1][at], missing)


def timestamps(access: Elements) -> np.ndarray:
    """The path of each iteration: positions and values of loop variables, a row each."""
    site, rows = access.site, access.rows
    columns = [rows.columns[i.name] if isinstance(i, Loop) else np.full(rows.count, i) for i in site.path]
    return np.stack(columns, axis=1) if columns else np.zeros((rows.count, 0), dtype=np.int64)


def order(paths: list[np.ndarray]) -> list[np.ndarray]:
    """The rank of each path among all of them. Two paths differ before one of them ends, or are one."""
    width = max(path.shape[1] for path in paths)
    padded = [np.pad(path, ((0, 0), (0, width - path.shape[1]))) for path in paths]
    together = np.concatenate(padded)
    ranks = np.empty(len(together), dtype=np.int64)
    ranks[np.lexsort(together.T[::-1])] = np.arange(len(together))
    ends = np.cumsum([len(path) for path in paths])[:-1]
    return np.split(ranks, ends)


def has_batch(program: Program) -> bool:
    of_buffers = any(extent.size is None for site in program.sites for extent in site.buffer.extents)
    return of_buffers or any(extent.size is None for extent in program.output.extents) or any(batch_loops(program))


def batch_loops(program: Program):
    return (loop for site in program.sites for loop in site.loops if loop.end is None)


def images_alike(program: Program) -> bool:
    """Whether each variable over `0..N` is only, and alone, the leading index of buffers with that extent."""

    def over_batch(block: Block, index: Sum) -> bool:
        batch = {loop.name for loop in block.loops if loop.end is None}
        return any(name in batch for _, name in index.terms)

    if any(loop.first != 0 for loop in batch_loops(program)):
        return False
    if any(over_batch(block, guard.sum) for guard, block in program.guards):
        return False
    return all(image_alone(site, over_batch) for site in program.sites)


def image_alone(site: Site, over_batch) -> bool:
    indices = list(site.access.index)
    if site.buffer.extents and site.buffer.extents[0].size is None:
        leading = indices.pop(0)
        if not (over_batch(site.block, leading) and leading.constant == 0 and [c for c, _ in leading.terms] == [1]):
            return False
    return not any(over_batch(site.block, index) for index in indices)
