"""The text of a nest, and its abstract syntax.

Written from the grammar under "Nests" in the documentation of `convgen-ir`, and from nothing else: it
shares no code with the parser of convgen. It reads every nest of that grammar, and refuses other texts
with a line number. It gives names no meaning: scopes are the business of `program`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

KEYWORDS = frozenset(
    "nest pack for reduce parallel unroll vector in ahead fetch where cut and if let scratch reg "
    "micro_kernel N".split()
)
ROLES = ("input", "gradient", "weights", "bias", "scale", "residual", "output", "packed")
PADDED_LOADS = ("pad", "reflect", "replicate", "circular")
OPERANDS = {"neg": 1, "abs": 1, "round": 1, "pow2": 1, "add": 2, "sub": 2, "mul": 2, "div": 2, "max": 2, "min": 2,
            "fma": 3}  # fmt: skip

TOKEN = re.compile(
    r"(?P<space>[ \t\r]+|\#[^\n]*)|(?P<line>\n)|(?P<word>[A-Za-z_][A-Za-z0-9_.]*)"
    r"|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<sign>\.\.|>=|[{}\[\]()<,=+*-])"
)


class SyntaxFault(Exception):
    """A text that is no nest."""


@dataclass(frozen=True)
class Sum:
    """`constant + sum of coefficient * variable`, each variable once."""

    constant: int
    terms: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        parts = [name if c == 1 else f"-{name}" if c == -1 else f"{c}*{name}" for c, name in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return "+".join(parts).replace("+-", "-")


@dataclass(frozen=True)
class Guard:
    """`sum < bound` or `sum >= bound`."""

    sum: Sum
    less: bool
    bound: int

    def __str__(self) -> str:
        return f"{self.sum} {'<' if self.less else '>='} {self.bound}"


@dataclass(frozen=True)
class Access:
    """An element of a buffer."""

    buffer: str
    index: tuple[Sum, ...]
    line: int

    def __str__(self) -> str:
        return f"{self.buffer}[{','.join(map(str, self.index))}]"


@dataclass(frozen=True)
class Load:
    """A load: `plain`, or one of PADDED_LOADS."""

    access: Access
    how: str

    def __str__(self) -> str:
        return str(self.access) if self.how == "plain" else f"{self.how}({self.access})"


@dataclass(frozen=True)
class Value:
    """What the checker keeps of a value: its loads, and the names it uses, from left to right."""

    loads: tuple[Load, ...] = ()
    names: tuple[tuple[str, int], ...] = ()

    def then(self, other: Value) -> Value:
        return Value(self.loads + other.loads, self.names + other.names)


@dataclass(frozen=True)
class Extent:
    """A dimension: `size` is None for `N`. `start` and `step` are the stripe `from start by step`."""

    size: int | None
    start: int = 0
    step: int = 1

    @property
    def striped(self) -> bool:
        return (self.start, self.step) != (0, 1)


@dataclass(eq=False)
class Declaration:
    """A buffer: of the caller or packed (`kind` is the role), or a `scratch` or `reg` statement."""

    kind: str
    name: str
    extents: tuple[Extent, ...]
    line: int


@dataclass(eq=False)
class Loop:
    """A loop over `first <= name < end`; `end` is None for `N`."""

    mode: str
    name: str
    first: int
    end: int | None
    fetches: tuple[Access, ...]
    guards: tuple[Guard, ...]
    body: list[Statement]
    line: int


@dataclass(eq=False)
class If:
    guards: tuple[Guard, ...]
    body: list[Statement]
    line: int


@dataclass(eq=False)
class Let:
    name: str
    value: Value
    line: int


@dataclass(eq=False)
class Store:
    access: Access
    value: Value
    line: int


Statement = Loop | If | Declaration | Let | Store


@dataclass(eq=False)
class Nest:
    name: str
    given: list[Declaration] = field(default_factory=list)
    pack: list[Statement] = field(default_factory=list)
    body: list[Statement] = field(default_factory=list)


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    line: int


def tokens(text: str, first_line: int) -> list[Token]:
    found, at, line = [], 0, first_line
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise SyntaxFault(f"line {line}: unexpected `{text[at]}`")
        if match.lastgroup == "line":
            line += 1
        elif match.lastgroup != "space":
            found.append(Token(match.lastgroup, match.group(), line))
        at = match.end()
    return found


def parse_nests(text: str, first_line: int = 1) -> list[Nest]:
    """All nests of a text, one after the other. Lines are counted from `first_line`."""
    parser = Parser(tokens(text, first_line))
    nests = []
    while not parser.at_end():
        nests.append(parser.nest())
    return nests


class Parser:
    """Recursive descent, one method a rule of the grammar."""

    def __init__(self, found: list[Token]):
        self.tokens = found + [Token("end", "end of text", found[-1].line if found else 1)]
        self.next = 0

    def at_end(self) -> bool:
        return self.peek().kind == "end"

    def peek(self, ahead: int = 0) -> Token:
        return self.tokens[min(self.next + ahead, len(self.tokens) - 1)]

    def take(self) -> Token:
        token = self.peek()
        self.next += 1
        return token

    def fault(self, expected: str) -> SyntaxFault:
        token = self.peek()
        return SyntaxFault(f"line {token.line}: expected {expected}, found `{token.text}`")

    def accept(self, text: str) -> bool:
        if self.peek().kind in ("word", "sign") and self.peek().text == text:
            self.next += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.fault(f"`{text}`")

    def name(self) -> str:
        if self.peek().kind != "word" or self.peek().text in KEYWORDS:
            raise self.fault("a name")
        return self.take().text

    def integer(self) -> int:
        if self.peek().kind != "number" or not self.peek().text.isdigit():
            raise self.fault("an integer")
        return int(self.take().text)

    def signed(self) -> int:
        return -self.integer() if self.accept("-") else self.integer()

    def nest(self) -> Nest:
        self.expect("nest")
        if self.peek().kind != "word":
            raise self.fault("the name of the nest")
        nest = Nest(self.take().text)
        self.expect("{")
        while self.peek().text in ROLES and self.peek(1).kind == "word":
            nest.given.append(self.given())
        if self.accept("pack"):
            nest.pack = self.block()
        nest.body = self.rest_of_block()
        return nest

    def given(self) -> Declaration:
        role = self.take()
        named = not (self.peek().text == "f32" and self.peek(1).text == "[")
        name = self.name() if named else role.text
        return Declaration(role.text, name, self.type(), role.line)

    def type(self) -> tuple[Extent, ...]:
        self.expect("f32")
        self.expect("[")
        return tuple(self.separated("]", self.extent))

    def separated(self, end: str, item) -> list:
        """`[item {"," item}] end`."""
        items = []
        if self.accept(end):
            return items
        while True:
            items.append(item())
            if self.accept(end):
                return items
            self.expect(",")

    def extent(self) -> Extent:
        size = None if self.accept("N") else self.integer()
        start = self.integer() if self.accept("from") else 0
        step = self.integer() if self.accept("by") else 1
        return Extent(size, start, step)

    def block(self) -> list[Statement]:
        self.expect("{")
        return self.rest_of_block()

    def rest_of_block(self) -> list[Statement]:
        statements = []
        while not self.accept("}"):
            statements.append(self.statement())
        return statements

    def statement(self) -> Statement:
        token = self.peek()
        if token.text in ("for", "reduce", "parallel", "unroll", "vector"):
            return self.loop()
        if self.accept("if"):
            return If(self.guards(), self.block(), token.line)
        if self.accept("micro_kernel"):
            # A mark: the block inside.
            return If((), self.block(), token.line)
        if token.text in ("scratch", "reg"):
            self.take()
            return Declaration(token.text, self.name(), self.type(), token.line)
        if self.accept("let"):
            name = self.name()
            self.expect("=")
            return Let(name, self.value(), token.line)
        access = self.access()
        self.expect("=")
        return Store(access, self.value(), token.line)

    def loop(self) -> Loop:
        mode = self.take()
        if mode.text in ("parallel", "unroll", "vector"):
            self.accept("reduce")
        name = self.name()
        self.expect("in")
        first = self.signed()
        self.expect("..")
        end = None if self.accept("N") else self.signed()
        if self.accept("ahead"):
            self.integer()
        fetches = []
        while self.accept("fetch"):
            self.integer()
            fetches.append(self.access())
        guards = self.guards() if self.accept("where") or self.accept("cut") else ()
        return Loop(mode.text, name, first, end, tuple(fetches), guards, self.block(), mode.line)

    def guards(self) -> tuple[Guard, ...]:
        guards = [self.guard()]
        while self.accept("and"):
            guards.append(self.guard())
        return tuple(guards)

    def guard(self) -> Guard:
        left = self.sum()
        less = self.accept("<")
        if not less:
            self.expect(">=")
        return Guard(left, less, self.signed())

    def access(self) -> Access:
        line = self.peek().line
        name = self.name()
        self.expect("[")
        return Access(name, tuple(self.separated("]", self.sum)), line)

    def sum(self) -> Sum:
        constant, terms = 0, []
        sign = -1 if self.accept("-") else 1
        while True:
            coefficient, name = self.term()
            if name is None:
                constant += sign * coefficient
            else:
                terms.append((sign * coefficient, name))
            if self.accept("+"):
                sign = 1
            elif self.accept("-"):
                sign = -1
            else:
                break
        if len({name for _, name in terms}) != len(terms):
            raise self.fault("a sum with each variable once, before this place")
        return Sum(constant, tuple(terms))

    def term(self) -> tuple[int, str | None]:
        if self.peek().kind == "number":
            factor = self.integer()
            return factor, self.name() if self.accept("*") else None
        name = self.name()
        return self.integer() if self.accept("*") else 1, name

    def value(self) -> Value:
        token = self.peek()
        if token.kind == "number" or token.text == "-":
            self.accept("-")
            if self.take().kind != "number":
                raise self.fault("a number")
            return Value()
        if self.peek(1).text == "(":
            return self.operation()
        if self.peek(1).text == "[":
            return Value(loads=(Load(self.access(), "plain"),))
        return Value(names=((self.name(), token.line),))

    def operation(self) -> Value:
        name = self.name()
        self.expect("(")
        if name in PADDED_LOADS:
            access = self.access()
            self.expect(")")
            return Value(loads=(Load(access, name),))
        if name == "select":
            operands = self.operands(["<", ",", ",", ")"])
        elif name in OPERANDS:
            operands = self.operands([","] * (OPERANDS[name] - 1) + [")"])
        else:
            raise self.fault(f"an operation before this place, not `{name}`")
        return operands

    def operands(self, ends: list[str]) -> Value:
        """Values, each with what follows it."""
        together = Value()
        for end in ends:
            together = together.then(self.value())
            self.expect(end)
        return together
