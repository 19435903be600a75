"""Checks the links of README.md, CONTRIBUTING.md and the chapters of the book.

Every relative link must point to an existing file, every `#anchor` to a heading of that file, and every
chapter must be in SUMMARY.md. Links to other sites are not fetched. Exits with 1 if a link is broken.
"""

import pathlib
import re
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOOK = ROOT / "docs" / "src"

FENCE = re.compile(r"^\s*(```+|~~~+)")
CODE = re.compile(r"(`+)(.+?)\1")
LINK = re.compile(r"\]\(\s*<?([^()\s>]+(?:\([^()]*\))?)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\s*\[[^\]]+\]:\s+(\S+)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$")
SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:")


def prose(path):
    """The lines outside of code blocks, with their numbers."""
    fence = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark = FENCE.match(line)
        if fence is None and mark:
            fence = mark[1]
        elif fence is not None:
            if mark and line.strip().startswith(fence) and line.strip(" `~") == "":
                fence = None
        else:
            yield number, line


def anchor(heading):
    """The id of a heading, as GitHub and mdBook make it."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    kept = (c for c in text.lower() if c.isalnum() or c in "_- ")
    return "".join(kept).replace(" ", "-")


def anchors(path):
    """The ids of all headings; equal ones are numbered."""
    found, counts = set(), {}
    for _, line in prose(path):
        heading = HEADING.match(line)
        if heading:
            name = anchor(heading[1])
            count = counts.get(name, 0)
            counts[name] = count + 1
            found.add(name if count == 0 else f"{name}-{count}")
    return found


def links(path):
    """The targets of all links, with their lines."""
    for number, line in prose(path):
        for target in LINK.findall(CODE.sub(lambda code: "`" * len(code[0]), line)):
            yield number, target
        reference = REFERENCE.match(line)
        if reference:
            yield number, reference[1]


def fault(path, target):
    """What is wrong with a link, or nothing."""
    if SCHEME.match(target) or target.startswith("//"):
        return None
    file, _, name = target.partition("#")
    place = (path.parent / urllib.parse.unquote(file)).resolve() if file else path
    if not place.is_relative_to(ROOT):
        return "lies outside of the repository"
    if not place.exists():
        return "no such file"
    if path.parent == BOOK and not place.is_relative_to(BOOK):
        return "lies outside of the book, which does not have it when it is built"
    if name and (place.suffix != ".md" or name not in anchors(place)):
        return f"no heading has the id `{name}`"
    return None


def main():
    chapters = sorted(BOOK.glob("*.md"))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *chapters]
    checked, broken = 0, []
    for page in pages:
        for number, target in links(page):
            checked += 1
            reason = fault(page, target)
            if reason:
                broken.append(f"{page.relative_to(ROOT)}:{number}: `{target}`: {reason}")
    summary = BOOK / "SUMMARY.md"
    listed = {target.partition("#")[0] for _, target in links(summary)}
    for chapter in chapters:
        if chapter != summary and chapter.name not in listed:
            broken.append(f"docs/src/{chapter.name}: not in SUMMARY.md")
    print("\n".join([*broken, f"{checked} links in {len(pages)} pages, {len(broken)} broken"]))
    return 1 if broken or checked == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
