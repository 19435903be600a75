"""Verdicts: what was proved of a nest, by which method, and what was not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

PROVED, UNPROVED, REFUTED = "proved", "unproved", "refuted"

# From the best to the worst.
STATES = (PROVED, UNPROVED, REFUTED)


@dataclass
class Verdict:
    """The state of a property, the method that decided it, and what speaks against it."""

    state: str
    method: str
    reasons: list[str] = field(default_factory=list)

    @staticmethod
    def all(method: str, parts: Iterable[Verdict]) -> Verdict:
        """The verdict on several things that must all hold."""
        together = Verdict(PROVED, method)
        for part in parts:
            together.state = max(together.state, part.state, key=STATES.index)
            together.reasons += part.reasons
        return together

    def or_else(self, other: Verdict) -> Verdict:
        """The verdict of two methods on one property. A contradiction between them is a fault of the checker."""
        states = {self.state, other.state}
        if states == {PROVED, REFUTED}:
            why = [f"{self.method} says {self.state} and {other.method} {other.state}", *self.reasons, *other.reasons]
            return Verdict(UNPROVED, f"{self.method}+{other.method}", why)
        if self.state == other.state:
            return Verdict(self.state, f"{self.method}+{other.method}", self.reasons or other.reasons)
        return self if other.state == UNPROVED else other
