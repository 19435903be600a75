"""Where nests come from: plain texts, snapshots, `.conv` files and streams of kernels.

A case is the nests of one kernel. A plain text (`.nest`, or what `convgen print --stage lower` prints) and a
snapshot are one case; so is each `nest:` section of a `.conv` file. A stream is one case after each line

    #! label

A nest that a `.conv` file expects to be refused (`# error:`) is left out; one that is never lowered, since its
file tests the parser alone or expects the schedule to be refused, is only parsed. Both are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# What is done with a case.
CHECKED, PARSED, REFUSED = "checked", "only parsed", "refused by its test"

SECTIONS = ("problem:", "schedule:", "nest:", "expect:")
MARKER = "#! "


@dataclass(frozen=True)
class Case:
    """The text of the nests of a kernel, and where it begins."""

    label: str
    text: str
    first_line: int = 1
    use: str = CHECKED


def read(path: Path) -> list[Case]:
    text = path.read_text()
    match path.suffix:
        case ".conv":
            return list(sections(path, text.splitlines()))
        case ".snap":
            _, header, nests = text.split("---\n", 2)
            return [Case(str(path), nests, header.count("\n") + 3)]
        case _:
            return [Case(str(path), text)]


def sections(path: Path, lines: list[str]) -> Iterator[Case]:
    """The `nest:` sections of a `.conv` file."""
    lowered = lines[1] != "test parse" and not any("# error:" in line for line in lines)
    starts = [at for at, line in enumerate(lines) if line in SECTIONS]
    for at, end in zip(starts, [*starts[1:], len(lines)]):
        if lines[at] != "nest:":
            continue
        text = "\n".join(lines[at + 1 : end])
        use = REFUSED if "# error:" in text else CHECKED if lowered or lines[1] == "test verify" else PARSED
        yield Case(f"{path}:{at + 2}", text, at + 2, use)


def stream(lines: Iterable[str]) -> Iterator[Case]:
    """The cases of a stream; what stands before the first marker must be blank."""
    label, found = None, []
    for line in lines:
        if line.startswith(MARKER):
            if label is not None:
                yield Case(label, "".join(found))
            label, found = line[len(MARKER) :].strip(), []
        elif label is not None:
            found.append(line)
        elif line.strip():
            raise ValueError(f"a stream begins with a line `{MARKER}label`, not with `{line.strip()}`")
    if label is not None:
        yield Case(label, "".join(found))
