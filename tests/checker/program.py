"""A nest with its names resolved: the sites at which it touches memory, each with all that surrounds it.

Promises: `resolve` refuses a nest whose names break the rules of the language reference (scopes, ids bound
once, roles of buffers, the place of `parallel` and `vector` loops, stripes). What it returns is flat: a
`Site` for each load, store and fetch, which holds its path, that is the loops and positions from the body
down to it. The order of execution is the lexicographic order of paths.

Does not: look at ranges, guards or the values of indices. That is the business of `smt` and `enumerate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from syntax import Access, Declaration, Guard, If, Let, Loop, Nest, Statement, Store

READ_IN_PACK = {"weights"}
READ_IN_BODY = {"input", "gradient", "bias", "scale", "residual", "packed"}
WITH_BATCH = {"input", "gradient", "output", "residual"}
LOCAL = {"scratch", "reg"}


class Refused(Exception):
    """The nest breaks a rule of names, roles or places."""


@dataclass(eq=False)
class Block:
    """A block in its surroundings. `path` alternates positions and loops; an `if` adds a position only."""

    path: tuple[int | Loop, ...] = ()
    guards: tuple[Guard, ...] = ()

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        return tuple(item for item in self.path if isinstance(item, Loop))


@dataclass(eq=False)
class Buffer:
    """A declared buffer, and the block whose every run begins a new lifetime of it; None if the caller's."""

    declaration: Declaration
    lifetime: Block | None = None

    @property
    def name(self) -> str:
        return self.declaration.name

    @property
    def kind(self) -> str:
        return self.declaration.kind

    @property
    def extents(self):
        return self.declaration.extents


@dataclass(eq=False)
class Site:
    """A load, store or fetch. `how` is `store`, `fetch`, `plain` or a padded load."""

    access: Access
    buffer: Buffer
    how: str
    block: Block
    path: tuple[int | Loop, ...]

    @property
    def loops(self) -> tuple[Loop, ...]:
        return self.block.loops

    @property
    def key(self) -> tuple:
        """Sites with equal keys are at the same elements in the same iterations."""
        return self.how, self.buffer, self.block.loops, self.block.guards, self.access.index

    def __str__(self) -> str:
        shown = str(self.access) if self.how in ("store", "plain") else f"{self.how}({self.access})"
        return f"line {self.access.line}: {'store' if self.how == 'store' else 'load'} `{shown}`"


@dataclass(eq=False)
class Lanes:
    """A vector loop, or two where the inner is all there is in the outer one, and the block around them."""

    loops: tuple[Loop, ...]
    around: Block


@dataclass
class Program:
    """The resolved nest."""

    name: str
    output: Buffer | None = None
    packed: list[Buffer] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    lanes: list[Lanes] = field(default_factory=list)
    tasks: tuple[Loop, ...] = ()
    guards: list[tuple[Guard, Block]] = field(default_factory=list)

    def stores(self, buffer: Buffer) -> list[Site]:
        return [site for site in self.sites if site.buffer is buffer and site.how == "store"]


def resolve(nest: Nest) -> Program:
    """Resolves all names; raises `Refused`."""
    return Resolver(nest).run()


class Resolver:
    """One walk over the pack block, one over the body."""

    def __init__(self, nest: Nest):
        self.nest = nest
        self.program = Program(nest.name)
        self.in_pack = False

    def run(self) -> Program:
        table = self.table()
        self.program.tasks = task_loops(self.nest.body)
        self.in_pack = True
        # The pack block is a program of its own: position 0 of a text whose position 1 is the body.
        self.block(self.nest.pack, Block((0,)), table)
        self.in_pack = False
        self.block(self.nest.body, Block((1,)), table)
        return self.program

    def table(self) -> dict[str, object]:
        names: dict[str, object] = {}
        for declaration in self.nest.given:
            check_extents(declaration)
            if declaration.name in names:
                raise Refused(f"line {declaration.line}: `{declaration.name}` is declared twice")
            buffer = Buffer(declaration)
            names[declaration.name] = buffer
            if declaration.kind == "packed":
                self.program.packed.append(buffer)
            if declaration.kind == "output":
                if self.program.output is not None:
                    raise Refused(f"line {declaration.line}: a second output")
                self.program.output = buffer
        for role in ("input", "gradient"):
            if sum(d.kind == role for d in self.nest.given) > 1:
                raise Refused(f"a nest has one `{role}`")
        if self.program.output is None:
            raise Refused("the nest has no output")
        return names

    def block(self, statements: list[Statement], block: Block, names: dict[str, object]) -> None:
        names = dict(names)
        for position, statement in enumerate(statements):
            self.statement(statement, block, position, names)

    def statement(self, statement: Statement, block: Block, position: int, names: dict[str, object]) -> None:
        path = (*block.path, position)
        match statement:
            case Declaration():
                self.declare(statement, block, names)
            case Let():
                self.loads(statement.value, block, path, names)
                bind(names, statement.name, statement, statement.line)
            case Store():
                operands = self.loads(statement.value, block, path, names)
                self.site(statement.access, "store", block, (*path, operands), names)
            case If():
                inner = Block(path, block.guards + statement.guards)
                self.guarded(statement.guards, block, names, statement.line)
                self.block(statement.body, inner, names)
            case Loop():
                self.loop(statement, block, path, names)

    def declare(self, declaration: Declaration, block: Block, names: dict[str, object]) -> None:
        check_extents(declaration)
        bind(names, declaration.name, Buffer(declaration, block), declaration.line)

    def loop(self, loop: Loop, block: Block, path: tuple, names: dict[str, object]) -> None:
        if loop.mode == "parallel" and loop not in self.program.tasks:
            raise Refused(f"line {loop.line}: parallel loop `{loop.name}` is not outermost and alone in its block")
        names = dict(names)
        bind(names, loop.name, loop, loop.line)
        inner = Block((*path, loop), block.guards + loop.guards)
        self.guarded(loop.guards, Block((*path, loop), block.guards), names, loop.line)
        for fetched in loop.fetches:
            self.site(fetched, "fetch", inner, inner.path, names)
        if loop.mode == "vector" and not any(outer.mode == "vector" for outer in block.loops):
            self.program.lanes.append(Lanes(lane_loops(loop), block))
        self.block(loop.body, inner, names)

    def guarded(self, guards: tuple[Guard, ...], block: Block, names: dict[str, object], line: int) -> None:
        for guard in guards:
            self.variables(guard.sum, names, line)
            self.program.guards.append((guard, block))

    def loads(self, value, block: Block, path: tuple, names: dict[str, object]) -> int:
        """Resolves the operands of a value; how many loads there are."""
        for name, line in value.names:
            if not isinstance(names.get(name), Let):
                raise Refused(f"line {line}: `{name}` is no value that is bound here")
        for operand, load in enumerate(value.loads):
            self.site(load.access, load.how, block, (*path, operand), names)
        return len(value.loads)

    def site(self, access: Access, how: str, block: Block, path: tuple, names: dict[str, object]) -> None:
        buffer = names.get(access.buffer)
        if not isinstance(buffer, Buffer):
            raise Refused(f"line {access.line}: `{access.buffer}` is no buffer that is declared here")
        if len(access.index) != len(buffer.extents):
            raise Refused(f"line {access.line}: `{access}` has not one index a dimension")
        for index in access.index:
            self.variables(index, names, access.line)
        self.role(buffer, how, access)
        self.program.sites.append(Site(access, buffer, how, block, path))

    def variables(self, index, names: dict[str, object], line: int) -> None:
        for _, name in index.terms:
            if not isinstance(names.get(name), Loop):
                raise Refused(f"line {line}: `{name}` is no loop variable that is bound here")

    def role(self, buffer: Buffer, how: str, access: Access) -> None:
        if how == "fetch":
            allowed = buffer.kind != "reg"
        elif buffer.kind in LOCAL:
            allowed = buffer.kind == "scratch" or how in ("plain", "store")
        elif how == "store":
            allowed = buffer.kind == ("packed" if self.in_pack else "output")
        elif self.in_pack:
            allowed = buffer.kind in READ_IN_PACK
        else:
            allowed = buffer.kind in READ_IN_BODY or (buffer.kind == "weights" and not self.program.packed)
        if not allowed:
            raise Refused(f"line {access.line}: `{access}`: no access of this kind to `{buffer.kind}` here")


def bind(names: dict[str, object], name: str, meaning: object, line: int) -> None:
    if name in names:
        raise Refused(f"line {line}: `{name}` is bound again inside its own scope")
    names[name] = meaning


def check_extents(declaration: Declaration) -> None:
    for dimension, extent in enumerate(declaration.extents):
        batch = extent.size is None
        if batch and (dimension > 0 or declaration.kind not in WITH_BATCH):
            raise Refused(f"line {declaration.line}: `N` is no extent of this dimension of `{declaration.name}`")
        if extent.striped and (declaration.kind != "output" or batch or extent.step < 1 or extent.start >= extent.size):
            raise Refused(f"line {declaration.line}: `{declaration.name}` has no such stripes")


def task_loops(body: list[Statement]) -> tuple[Loop, ...]:
    """The chain of parallel loops that begins with the body, each alone in its block."""
    chain = []
    while len(body) == 1 and isinstance(body[0], Loop) and body[0].mode == "parallel":
        chain.append(body[0])
        body = body[0].body
    return tuple(chain)


def lane_loops(loop: Loop) -> tuple[Loop, ...]:
    """The vector loop, with the one it consists of; raises `Refused` where there is another loop inside."""
    loops = (loop,)
    if len(loop.body) == 1 and isinstance(loop.body[0], Loop) and loop.body[0].mode == "vector":
        loops = (loop, loop.body[0])
    if has_loop(loops[-1].body):
        raise Refused(f"line {loop.line}: vector loop `{loop.name}` is not innermost")
    return loops


def has_loop(statements: list[Statement]) -> bool:
    return any(isinstance(s, Loop) or (isinstance(s, If) and has_loop(s.body)) for s in statements)
