"""Judges a history of calls, in the manner of Jepsen: whatever was done to the server, these must hold.

- Every call ends exactly once, within its deadline and a little.
- Every answer is, to the bit, what its model says of its image, and carries the call's own id and the image's digest.
- Nothing answers that was not declared good before.
- One caller never sees a version older than one that it has seen, unless it was rolled back in between.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from bench.faults.history import OK, Declared, Ended, Entry, Sent
from server.models.repository import sort_version

SLACK_SECONDS = 0.25
"""How much later than its deadline a call may end: promise 1."""

Golden = Mapping[tuple[str, str], tuple[float, ...]]
"""What a model must answer: by the digests of model and image, as float32."""


@dataclass(frozen=True)
class Violation:
    """Something that must not be."""

    rule: str
    """``ends once``, ``in time``, ``right answer``, ``own answer``, ``good model``, ``version``."""

    call: str
    text: str


def check(entries: Sequence[Entry], golden: Golden, *, slack: float = SLACK_SECONDS) -> list[Violation]:
    """All violations in a history.

    Args:
        entries: in any order.
        golden: the answers of all models to all images.
        slack: seconds that a call may end after its deadline.
    """
    sent = [entry for entry in entries if isinstance(entry, Sent)]
    ended = [entry for entry in entries if isinstance(entry, Ended)]
    declared = sorted((entry for entry in entries if isinstance(entry, Declared)), key=lambda entry: entry.at)
    calls = {entry.call: entry for entry in sent}
    answers = [entry for entry in ended if entry.status == OK and entry.call in calls]
    return [
        *check_ends(sent, ended),
        *check_times(calls, ended, slack),
        *check_answers(calls, answers, golden),
        *check_models(answers, declared),
        *check_versions(calls, answers, declared),
    ]


def check_ends(sent: Sequence[Sent], ended: Sequence[Ended]) -> list[Violation]:
    """Exactly one end for each call, and none without one."""
    ends = Counter(entry.call for entry in ended)
    begun = Counter(entry.call for entry in sent)
    found = [Violation("ends once", call, f"begun {count} times") for call, count in begun.items() if count > 1]
    found += [Violation("ends once", call, f"ended {ends[call]} times") for call in begun if ends[call] != 1]
    found += [Violation("ends once", call, "ended and was never begun") for call in ends if call not in begun]
    return found


def check_times(calls: Mapping[str, Sent], ended: Sequence[Ended], slack: float) -> list[Violation]:
    """Within the deadline and ``slack``; and not before it has begun."""
    found = []
    for entry in ended:
        call = calls.get(entry.call)
        if call is None:
            continue
        seconds = entry.at - call.at
        if not 0 <= seconds <= call.deadline + slack:
            text = f"{entry.status} after {seconds:.3f} s with a deadline of {call.deadline:g} s"
            found.append(Violation("in time", entry.call, text))
    return found


def check_answers(calls: Mapping[str, Sent], answers: Sequence[Ended], golden: Golden) -> list[Violation]:
    """To the bit what the model says of the image, under the call's id and the image's digest."""
    found = []
    for entry in answers:
        call = calls[entry.call]
        if entry.answer_id != entry.call:
            found.append(Violation("own answer", entry.call, f"has the id of another call, {entry.answer_id!r}"))
        if entry.sha256 != call.sha256:
            found.append(Violation("own answer", entry.call, "is about another image"))
        wanted = golden.get((entry.digest, call.sha256))
        if wanted is None:
            found.append(Violation("right answer", entry.call, f"is from an unknown model {entry.digest[:12]}"))
        elif pack(entry.scores) != pack(wanted):
            found.append(Violation("right answer", entry.call, f"says {entry.scores}, should say {wanted}"))
    return found


def check_models(answers: Sequence[Ended], declared: Sequence[Declared]) -> list[Violation]:
    """Only what was declared good before the answer came."""
    first: dict[tuple[str, str], float] = {}
    for entry in declared:
        first.setdefault((entry.version, entry.digest), entry.at)
    return [
        Violation("good model", entry.call, f"version {entry.version} ({entry.digest[:12]}) was never declared good")
        for entry in answers
        if first.get((entry.version, entry.digest), float("inf")) > entry.at
    ]


def check_versions(
    calls: Mapping[str, Sent], answers: Sequence[Ended], declared: Sequence[Declared]
) -> list[Violation]:
    """One caller's answers, as far as one call began after the other had ended, never go back, unless a rollback may
    have been made between the beginning of the one and the end of the other."""
    rollbacks = [entry for entry in declared if entry.is_rollback]
    begins = sorted(entry.at for entry in rollbacks)
    dones = sorted(max(entry.at, entry.until) for entry in rollbacks)
    # No rollback can lie between two answers if as many were done before the one's beginning as had begun before the
    # other's end.
    eras: dict[tuple[str, int], list[Ended]] = {}
    for entry in sorted(answers, key=lambda entry: entry.at):
        call = calls[entry.call]
        eras.setdefault((call.client, bisect_left(dones, call.at)), []).append(entry)
    highest = {era: list(accumulate(before, find_higher)) for era, before in eras.items()}
    ends = {era: [one.at for one in before] for era, before in eras.items()}
    found = []
    for entry in answers:
        call = calls[entry.call]
        era = (call.client, bisect_right(begins, entry.at))
        before = bisect_right(ends.get(era, []), call.at)
        top = highest[era][before - 1] if before else None
        if top is not None and sort_version(entry.version) < sort_version(top.version):
            text = f"version {entry.version} after {top.version} ({top.call}), without a rollback"
            found.append(Violation("version", entry.call, text))
    return found


def find_higher(one: Ended, other: Ended) -> Ended:
    """The answer of the higher version."""
    return max(one, other, key=lambda entry: sort_version(entry.version))


def pack(scores: Sequence[float]) -> bytes:
    """The bits of float32 numbers: NaN is not itself, and -0 is not 0."""
    return struct.pack(f"<{len(scores)}f", *scores)
