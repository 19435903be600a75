#!/usr/bin/env python3
"""An independent checker of lowered loop nests.

    check.py FILE...          nests, snapshots and `.conv` files
    check.py --stream         kernels from standard input, each after a line `#! label`
    check.py --self-test      good/ must be proved, broken/ must be refused

It reads the printed text of nests and proves, for every number of images N >= 0:

| property | what is proved | SMT | enumeration |
|---|---|---|---|
| scopes | names, roles, the place of parallel and vector loops, as the language reference has them | by a walk | |
| bounds | each load that is not `pad` and each store is inside its buffer, or on its stripe | yes | yes |
| integers | no integer that an address (in bytes) or a guard is made of leaves 64 bits | yes | |
| tasks | two tasks never write the same element of the output | yes | yes |
| lanes | no lane of a vector loop writes what another one reads or writes in the same run of the loop | yes | yes |
| coverage | every element of the output, or of its stripe, and of each packed buffer is written | yes | yes |
| defined | each element of `scratch` and `reg` that is read was written before, in the same lifetime | yes | yes |
| stripes | the nests of a kernel write disjoint parts that make up the output | yes | |

SMT is Z3 over mathematical integers (see `smt`); enumeration executes every iteration of small nests (see
`exhaustive`) and is a second opinion: a property holds if one method proves it and the other does not refute
it. What no method decides is `unproved`, and a failure.

It assumes: the buffers of a call have at most 2^62 bytes together with all N images; the emitter computes an
index from the terms of its sum, in any order, in 64 bits. Fetches read nothing: only their addresses are held
to 64 bits.

It does not: check that a nest computes the problem, look at values of floats, or check limits of a target
(the size of scratch, of register tiles and of unrolled code, register indices that must be numbers).
It shares no code and no method with the verifier of convgen.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import files
import stripes
from exhaustive import Exhaustive
from files import CHECKED, PARSED, REFUSED, Case
from program import Refused, resolve
from report import PROVED, REFUTED, Verdict
from smt import STEPS, Prover
from syntax import Nest, SyntaxFault, parse_nests

HERE = Path(__file__).parent
# Stands for the name of a nest in the verdict on all nests of a kernel.
KERNEL = "all nests"

# Reasons shown for one property.
REASONS = 4

BY_BOTH = ("bounds", "tasks", "lanes", "coverage", "defined")


@dataclass
class Result:
    """The verdicts on a case: for each nest by property."""

    case: Case
    nests: list[tuple[str, dict[str, Verdict]]] = field(default_factory=list)
    fault: str | None = None
    queries: int = 0
    seconds: float = 0.0

    @property
    def proved(self) -> bool:
        verdicts = [v for _, properties in self.nests for v in properties.values()]
        return self.fault is None and all(v.state == PROVED for v in verdicts)

    def refuted(self) -> set[str]:
        return {name for _, properties in self.nests for name, v in properties.items() if v.state == REFUTED}

    def lines(self) -> list[str]:
        """One line a nest, then one for each thing that was not proved."""
        lines = [f"{self.case.label}: {self.fault}"] if self.fault else []
        for name, properties in self.nests:
            shown = ", ".join(f"{p} {v.state} by {v.method}" for p, v in properties.items())
            lines.append(f"{self.case.label}: {name}: {shown}")
            for what, verdict in properties.items():
                if verdict.state != PROVED:
                    lines += [f"  {what} {verdict.state}: {reason}" for reason in verdict.reasons[:REASONS]]
        return lines


def check(case: Case, steps: int) -> Result:
    """All proofs of a case."""
    start, result = time.monotonic(), Result(case)
    try:
        nests = parse_nests(case.text, case.first_line)
        if not nests:
            result.fault = "no nest"
        if case.use == CHECKED:
            outputs = [check_nest(nest, steps, result) for nest in nests]
            if len(nests) > 1 and None not in outputs:
                verdict, queries = stripes.partition(outputs, steps)
                result.nests.append((KERNEL, {"stripes": verdict}))
                result.queries += queries
    except SyntaxFault as fault:
        result.fault = f"syntax: {fault}"
    result.seconds = time.monotonic() - start
    return result


def check_nest(nest: Nest, steps: int, result: Result):
    """Adds the verdicts on a nest; the extents of its output."""
    try:
        program = resolve(nest)
    except Refused as reason:
        result.nests.append((nest.name, {"scopes": Verdict(REFUTED, "walk", [str(reason)])}))
        return None
    prover, exhaustive = Prover(program, steps), Exhaustive(program)
    verdicts = {"scopes": Verdict(PROVED, "walk"), "integers": prover.integers()}
    for name in BY_BOTH:
        verdicts[name] = getattr(prover, name)().or_else(getattr(exhaustive, name)())
    result.nests.append((nest.name, verdicts))
    result.queries += prover.count
    return program.output.extents


def run(cases: list[Case], arguments):
    """Results in the order of the cases; cases of the same text are checked once."""
    first: dict[tuple, Case] = {}
    for case in cases:
        first.setdefault((case.text, case.use), case)
    with multiprocessing.Pool(arguments.jobs) as pool:
        yield from pool.imap(partial(check, steps=arguments.steps), first.values(), chunksize=1)


class Summary:
    """Counts over all cases."""

    def __init__(self, cases: list[Case]):
        self.start = time.monotonic()
        self.uses = Counter(case.use for case in cases)
        self.copies = Counter((case.text, case.use) for case in cases)
        self.nests = Counter()
        self.methods = Counter()
        self.queries = 0
        self.slowest = (0.0, "none")

    def add(self, result: Result) -> None:
        """Counts a result, and its nests once for each case of the same text."""
        copies = self.copies[result.case.text, result.case.use]
        for name, properties in result.nests:
            proved = all(verdict.state == PROVED for verdict in properties.values())
            self.nests[proved] += copies * (name != KERNEL)
            self.methods.update(f"{p} by {v.method}" for p, v in properties.items() if v.state == PROVED)
        self.nests[False] += copies * (result.fault is not None)
        self.queries += result.queries
        self.slowest = max(self.slowest, (result.seconds, result.case.label))

    def __str__(self) -> str:
        methods = ", ".join(f"{name} {count}" for name, count in sorted(self.methods.items()))
        left = "".join(f", {self.uses[use]} {use}" for use in (PARSED, REFUSED) if self.uses[use])
        seconds = time.monotonic() - self.start
        return (
            f"proved: {methods or 'nothing'}\n"
            f"{self.uses[CHECKED]} kernels checked{left}; {len(self.copies)} distinct texts; {self.queries} queries; "
            f"slowest {self.slowest[0]:.1f} s: {self.slowest[1]}\n"
            f"{self.nests[True]} nests proved, {self.nests[False]} unproved, {seconds:.1f} seconds"
        )


def report(cases: list[Case], arguments) -> bool:
    """Checks and prints; whether all was proved."""
    summary, good = Summary(cases), True
    for result in run([case for case in cases if case.use != REFUSED], arguments):
        good &= result.proved
        summary.add(result)
        if not result.proved or (arguments.verbose and result.nests):
            print("\n".join(result.lines()), flush=True)
    print(summary)
    return good


def self_test(arguments) -> bool:
    """Whether every file of good/ is proved, and of broken/ refuted in the property its first line begins with."""
    good = [case for path in sorted((HERE / "good").glob("*.nest")) for case in files.read(path)]
    broken = [case for path in sorted((HERE / "broken").glob("*.nest")) for case in files.read(path)]
    passed = bool(good and broken)
    for result in run(good, arguments):
        if not result.proved:
            passed = False
            print("must be proved:", "\n".join(result.lines()), sep="\n")
    for result in run(broken, arguments):
        expected = result.case.text.split(":", 1)[0].removeprefix("# ")
        if expected not in result.refuted():
            passed = False
            print(f"must be refuted: {expected}", "\n".join(result.lines()), sep="\n")
        elif arguments.verbose:
            print("\n".join(result.lines()))
    print(f"self-test: {len(good)} good, {len(broken)} broken: {'passed' if passed else 'FAILED'}")
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description="Proves lowered nests memory safe, complete and free of races.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--stream", action="store_true", help="read kernels from standard input")
    parser.add_argument("--self-test", action="store_true", help="check the files of good/ and broken/")
    parser.add_argument("-j", "--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("-v", "--verbose", action="store_true", help="also show what is proved, and how")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help="limit of Z3 for one query")
    arguments = parser.parse_args()
    if arguments.self_test:
        return 0 if self_test(arguments) else 1
    cases = [case for path in arguments.files for case in files.read(path)]
    if arguments.stream:
        cases += files.stream(sys.stdin)
    if not cases:
        parser.error("nothing to check")
    return 0 if report(cases, arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
