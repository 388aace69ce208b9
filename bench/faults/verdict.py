"""What was seen of a fault, and whether it is as promised."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """A figure, and whether it is as promised."""

    text: str
    is_kept: bool


@dataclass
class Verdict:
    """What was seen of one fault."""

    findings: list[Finding] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Parts that this machine cannot do, each with why."""

    def check(self, is_kept: bool, text: str) -> None:
        """Takes a figure that keeps a promise, or breaks it."""
        self.findings.append(Finding(text, bool(is_kept)))

    def note(self, text: str) -> None:
        """Takes a figure about which nothing was promised."""
        self.findings.append(Finding(text, True))

    def skip(self, why: str) -> None:
        """Says what cannot be done here."""
        self.skipped.append(why)

    @property
    def is_kept(self) -> bool:
        """Whether no promise was broken."""
        return all(finding.is_kept for finding in self.findings)

    @property
    def state(self) -> str:
        """One word about it."""
        if not self.is_kept:
            return "BROKEN"
        return "kept" if self.findings else "skipped"

    def describe(self) -> str:
        """All figures in a line; those that break a promise say so."""
        texts = [finding.text if finding.is_kept else f"BROKEN: {finding.text}" for finding in self.findings]
        return "; ".join([*texts, *(f"not done: {why}" for why in self.skipped)])
