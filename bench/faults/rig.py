"""What every fault needs: servers, load, somebody who watches, golden answers, a history, and a place to work."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.faults.callers import Caller, LibraryCaller, StubCaller, close_all
from bench.faults.checker import SLACK_SECONDS, Violation, check
from bench.faults.golden import Golden, add_served, make_images
from bench.faults.history import History
from bench.faults.load import HeldLoad, measure_rate
from bench.faults.server import Server
from bench.faults.verdict import Verdict
from bench.faults.witness import Sample, Witness, look

SHARE = 0.6
"""Of saturation, that a held load offers."""

DEADLINE = 10.0
"""Seconds that callers of a held load wait: the client's default."""

HEALTH_SECONDS = 0.2
"""How soon a server says how it is, whatever is done to it."""

MOST_SHOWN = 3
"""Violations that a verdict shows; the history that is saved has all."""

OWN_FAULTS = re.compile(r"Traceback|internal error id=|memory is short id=")
"""What the log says where the server itself has failed."""


@dataclass(frozen=True)
class Scale:
    """How much is done, and how exactly times are judged."""

    is_smoke: bool = False
    room: float = 1.0
    """Times may be so many times as long as promised: more than 1 where others use the machine as well."""

    seed: int = 0
    models: Path = Path("models")
    images: Path = Path("samples")

    def choose(self, full: int, smoke: int) -> int:
        """How often something is done."""
        return smoke if self.is_smoke else full


@dataclass(frozen=True)
class Scene:
    """A server that is loaded and watched."""

    server: Server
    load: HeldLoad
    witness: Witness
    before: Sample
    """What it had after its first answers."""


@dataclass
class Shared:
    """What all faults of a run share, for it takes long to find out."""

    golden: Golden = field(default_factory=Golden)
    images: list[bytes] = field(default_factory=list)
    rate: float = 0.0
    """Answers a second at saturation, of a server and callers on the same processors."""


@dataclass(frozen=True)
class Fault:
    """Something that is done to a server."""

    name: str
    """As the command line has it."""

    done: str
    promise: str
    inject: Callable[[Rig], None]
    """Does it, and tells ``rig.verdict`` what was seen."""

    in_smoke: bool = False
    """Whether ``--smoke`` does it, too, in its short form."""


class Rig:
    """The place of one fault.

    Attributes:
        folder: for its files.
        random: what is done at random is done by this.
        verdict: what was seen.
    """

    def __init__(self, fault: Fault, folder: Path, scale: Scale, shared: Shared) -> None:
        self.fault = fault
        self.folder = folder
        self.scale = scale
        self.random = random.Random(f"{scale.seed} {fault.name}")
        self.history = History()
        self.verdict = Verdict()
        self.violations: list[Violation] = []
        self.judges_log = True
        """False where the server must write of a fault of its own."""

        self._shared = shared
        self._servers: list[Server] = []
        self._number = 0

    @property
    def golden(self) -> Golden:
        """Knows all images that may get an answer."""
        return self._shared.golden

    @property
    def images(self) -> list[bytes]:
        """What is sent unless a fault has something worse; all of them get an answer."""
        self.learn_images()
        return self._shared.images

    def learn_images(self) -> None:
        """Makes ``images`` golden, also for callers in another process, which read them anew."""
        if not self._shared.images:
            self._shared.images = make_images(self.scale.images)
            for image in self._shared.images:
                self.golden.add_image(image)

    def choose(self, full: int, smoke: int) -> int:
        """See ``Scale``."""
        return self.scale.choose(full, smoke)

    def allow(self, seconds: float) -> float:
        """How long something may take that is promised to take so many seconds."""
        return seconds * self.scale.room

    def check(self, is_kept: bool, text: str) -> None:
        """See ``Verdict``."""
        self.verdict.check(is_kept, text)

    def check_failures(self, load: HeldLoad, name: str = "the client's") -> None:
        """Promises that none of a load's calls has failed."""
        failures, made = load.count_failures(), len(load.calls)
        which = f" ({', '.join(f'{number} {what}' for what, number in failures.most_common(3))})" if failures else ""
        self.check(not failures and made > 0, f"{failures.total()} of {made} of {name} calls failed{which}")

    def make_flags(self, *flags: str, models: Path | None = None) -> list[str]:
        """Flags of a server, whose models become golden."""
        found = ["--admin", "off"] if "--admin" not in flags else []
        found += ["--models", str((models or self.scale.models).resolve()), "--cache", str(self.folder / "cache")]
        found += flags if "--log-level" in flags else ["--log-level", "warning", *flags]
        for model in add_served(self.golden, found):
            self.history.declare(model.spec.version, model.digest)
        return found

    @contextmanager
    def start(self, *flags: str, models: Path | None = None, **options: Any) -> Iterator[Server]:
        """Runs a server, which need not become ready; ``options`` are those of ``Server``."""
        server = Server(self.folder, self.make_flags(*flags, models=models), **options)
        self._servers.append(server)
        with server:
            yield server

    @contextmanager
    def serve(self, *flags: str, models: Path | None = None, **options: Any) -> Iterator[Server]:
        """Runs a server; it serves when the block begins.

        Raises:
            RuntimeError: it does not.
        """
        with self.start(*flags, models=models, **options) as server:
            if not server.wait_ready():
                raise RuntimeError(f"the server does not start: {server.read_log()[-500:]}")
            yield server

    def make_callers(self, kind: type[LibraryCaller] | type[StubCaller], address: str, number: int) -> list[Caller]:
        """Callers with a connection each."""
        self._number += 1
        name = f"{kind.__name__.lower().removesuffix('caller')}{self._number}"
        return [kind(f"{name}.{index}", self.history, address) for index in range(number)]

    def find_rate(self, server: Server) -> float:
        """Answers a second at saturation; measured once in a run."""
        if not self._shared.rate:
            callers = self.make_callers(StubCaller, server.address, 8)
            try:
                measure_rate(callers, self.images, 0.5)
                self._shared.rate = measure_rate(callers, self.images, 2.0)
            finally:
                close_all(callers)
        return self._shared.rate

    def load(
        self,
        server: Server,
        address: str = "",
        *,
        kind: type[LibraryCaller] | type[StubCaller] = LibraryCaller,
        share: float = SHARE,
        deadline: float = DEADLINE,
        images: Sequence[bytes] = (),
        callers: int = 4,
    ) -> HeldLoad:
        """A held load, to be used in a ``with`` statement.

        Args:
            server: whose saturation is the measure.
            address: where it goes, if not to ``server``.
            kind: of callers.
            share: of saturation.
            deadline: seconds of each call.
            images: what is sent, if not ``self.images``.
            callers: how many, each with a connection of its own.
        """
        rate = max(5.0, share * self.find_rate(server))
        made = self.make_callers(kind, address or server.address, callers)
        seed = self.random.randrange(2**32)
        return HeldLoad(made, images or self.images, rate=rate, deadline=deadline, seed=seed)

    def watch(self, server: Server) -> Witness:
        """Somebody who looks at a server, to be used in a ``with`` statement."""
        return Witness(server)

    @contextmanager
    def stage(
        self,
        *flags: str,
        share: float = 0.3,
        health: float = HEALTH_SECONDS,
        growth_mb: float = 0.0,
        threads: int = 2,
        **options: Any,
    ) -> Iterator[Scene]:
        """A server under load, whose callers must notice nothing of what is done within the block, and which has
        afterwards what it had before.

        Args:
            flags: of the server.
            share: of saturation, that is offered.
            health: seconds in which it must say how it is.
            threads: how many more it may have afterwards.
            growth_mb: how much more memory it may have afterwards; 0: nothing is promised.
            options: those of ``serve``.
        """
        with self.serve(*flags, **options) as server, self.watch(server) as witness:
            with self.load(server, share=share) as load:
                load.wait_answers(30)
                before = look(server.pid)
                assert before is not None
                yield Scene(server, load, witness, before)
                load.stop()
            self.check(not server.lives, "it did not restart" if not server.lives else f"it ended: {server.lives}")
            self.check_failures(load)
            slowest, unanswered = witness.find_health(), witness.count_unanswered()
            self.check(
                not unanswered and slowest <= self.allow(health),
                f"health within {1000 * slowest:.0f} ms ({unanswered} of {len(witness.checks)} unanswered)",
            )
            if not server.lives:
                after = witness.wait_back(before, threads=threads)
                self.check(
                    after.descriptors <= before.descriptors + 2 and after.threads <= before.threads + threads,
                    f"descriptors {before.descriptors} -> {after.descriptors}, threads {before.threads} -> "
                    f"{after.threads}",
                )
                if growth_mb:
                    grown = self.wait_memory(server, before.resident_mb + growth_mb) - before.resident_mb
                    self.check(grown <= growth_mb, f"memory {grown:+.1f} MB, at its peak {witness.peak_mb:.0f} MB")

    def wait_memory(self, server: Server, most_mb: float, seconds: float = 15.0) -> float:
        """Waits until a server has given memory back, and returns what it has in the end, in MB."""
        end = time.monotonic() + seconds
        while True:
            now = look(server.pid)
            if now is None or now.resident_mb <= most_mb or time.monotonic() > end:
                return now.resident_mb if now is not None else 0.0
            time.sleep(0.25)

    def pause(self, least: float, most: float) -> None:
        """Lets some time pass, so that what comes next comes at any moment of what goes on."""
        time.sleep(self.random.uniform(least, most))

    def judge(self) -> Verdict:
        """What holds of every fault: the history, and a log without faults of the server's own."""
        self.violations = check(self.history.list_entries(), self.golden, slack=self.allow(SLACK_SECONDS))
        calls = sum(type(entry).__name__ == "Sent" for entry in self.history.list_entries())
        if calls:
            shown = "".join(f"; {one.rule}: {one.call} {one.text}" for one in self.violations[:MOST_SHOWN])
            self.check(not self.violations, f"history of {calls} calls: {len(self.violations)} violations{shown}")
        found = [line for server in self._servers for line in server.read_log().splitlines() if OWN_FAULTS.search(line)]
        if found and self.judges_log:
            self.check(False, f"{len(found)} faults of its own in its log, such as {found[0][:200]!r}")
        killed = [life.code for server in self._servers for life in server.lives if is_crash(life.code)]
        if killed:
            self.check(False, f"the server crashed: exit codes {killed[:5]}")
        return self.verdict


def is_crash(code: int) -> bool:
    """Whether a process ended by itself as none should; SIGKILL and SIGTERM come from faults."""
    return code in {-number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)}
