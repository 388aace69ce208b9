"""Changes to what is served while it is served: activate, promote, roll back, unload. One at a time.

A version is loaded and verified beside the one that answers, exactly as at a start. Only when it has answered its
golden vectors on this machine is it written down as active, and only when that is on the disk is it served. Whatever
goes wrong before, the old one goes on, and the failure is kept for whoever asks.

Versions never fall but by going back: else nobody could tell from two answers which model is the newer one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from server.errors import ChangeRefusedError, ModelFileError, StrokeError
from server.models.active import ActiveModel, Canary, Release, change_active, read_active
from server.models.contract import is_identifier
from server.models.engines.engine import EngineOptions
from server.models.family import CANARY, SHADOW, STABLE, Family, Served
from server.models.registry import ModelRegistry, load_served, make_quiet
from server.models.repository import Place, read_release, sort_version
from server.models.signature import TrustedKey

logger = logging.getLogger(__name__)

ACTIVATE, PROMOTE, ROLL_BACK, UNLOAD = "activate", "promote", "rollback", "unload"
ACTIONS = (ACTIVATE, PROMOTE, ROLL_BACK, UNLOAD)
MOST_FAILURES = 10
BUSY_SECONDS = 1.0
"""Hint to those who come while another change is made."""

Report = Callable[[str], None]
"""Is told in a few words how far a change is; from the thread that makes it."""


@dataclass(frozen=True)
class Failure:
    """A change that was not made."""

    time: float
    """In seconds since 1970."""

    action: str
    name: str
    version: str
    """Empty where the action needs none."""

    reason: str
    message: str


class Activator:
    """Makes changes. To be called from any thread, but from none that has something else to do: it reads and computes.

    Attributes:
        root: the models folder.
        read_keys: see ``__init__``.
        on_change: called after each change that was made, in the thread that made it.
        counts: how many changes were made or refused, by action and ``ok`` or the reason.
        failures: the last ones, oldest first.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        root: Path,
        options: EngineOptions,
        read_keys: Callable[[], Sequence[TrustedKey] | None] = lambda: None,
        check: Callable[[str, str], None] = lambda name, version: None,
    ) -> None:
        """Changes nothing yet.

        Args:
            registry: what is served; changed by nobody else from now on, once it is loaded.
            root: the models folder.
            options: how models are run.
            read_keys: returns the keys of which one must have signed a model, or None: it need not be signed. Asked
                anew for each change. Raises ModelFileError.
            check: says of a name and version whether a restart could serve it with the settings of the server. Raises
                ModelFileError.
        """
        self.read_keys = read_keys
        self._check = check
        self.root = root
        self.on_change: Callable[[], None] = lambda: None
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.failures: deque[Failure] = deque(maxlen=MOST_FAILURES)
        self._registry = registry
        self._options = options
        self._lock = threading.Lock()
        self._unloaded: dict[str, Release] = {}
        """What was stable of those names."""

    def activate(
        self, name: str, version: str, channel: str = STABLE, percent: float = 0.0, report: Report = lambda text: None
    ) -> str:
        """Serves another version, in one of its channels. Returns a sentence about what is served now.

        Args:
            name: of the model, which the server was started with.
            version: lies in the models folder.
            channel: ``STABLE``, ``CANARY`` or ``SHADOW``.
            percent: of the images, for a canary.
            report: is told how far it is.

        Raises:
            ChangeRefusedError: it is not done, for the reason given; what was served is served on.
            UnavailableError: reason SERVER_STARTING.
        """
        return self._change(ACTIVATE, name, version, lambda: self._activate(name, version, channel, percent, report))

    def promote(self, name: str, report: Report = lambda text: None) -> str:
        """Makes the canary stable, or the shadow where there is no canary. See ``activate``."""
        return self._change(PROMOTE, name, "", lambda: self._promote(name, report))

    def roll_back(self, name: str, report: Report = lambda text: None) -> str:
        """Makes stable again what was so before. See ``activate``."""
        return self._change(ROLL_BACK, name, "", lambda: self._roll_back(name, report))

    def unload(self, name: str) -> str:
        """Ends the trials of a model, canary and shadow; of one that has none, serves it no longer, unless it is the
        default. See ``activate``."""
        return self._change(UNLOAD, name, "", lambda: self._unload(name))

    def _change(self, action: str, name: str, version: str, work: Callable[[], str]) -> str:
        """Makes a change unless another one is being made, and keeps account of it."""
        try:
            if not self._lock.acquire(blocking=False):
                raise ChangeRefusedError(
                    "CHANGE_IN_PROGRESS",
                    "Another change of what is served is being made: try again when it is through.",
                    retry_after=BUSY_SECONDS,
                )
            try:
                said = work()
            finally:
                self._lock.release()
        except StrokeError as error:
            self._note(action, name, version, error)
            raise
        except (Exception, MemoryError) as error:
            logger.error("%s of %s has failed", action, name[:100], exc_info=error)
            refusal = ChangeRefusedError("CHANGE_FAILED", f"It could not be done ({type(error).__name__}).")
            self._note(action, name, version, refusal)
            raise refusal from None
        self.counts[action, "ok"] += 1
        self.on_change()
        logger.info("%s: %s", action, said)
        return said

    def _note(self, action: str, name: str, version: str, error: StrokeError) -> None:
        self.counts[action, error.reason] += 1
        self.failures.append(Failure(time.time(), action, name[:100], version[:100], error.reason, error.message))
        logger.warning("%s of %s is refused: %s [%s]", action, name[:100], error.message, error.reason)

    def _activate(self, name: str, version: str, channel: str, percent: float, report: Report) -> str:
        family = self._find(name)
        if not is_identifier(version):
            raise ChangeRefusedError("VERSION_INVALID", f"{version[:100]!r} is not the name of a version.")
        if channel == CANARY and not 0 < percent < 100:
            raise ChangeRefusedError(
                "PERCENT_INVALID", "A canary answers more than 0 and less than 100 % of the images."
            )
        release = self._read(name, version)
        stable = family.stable.release if family else self._unloaded[name]
        entry = self._read_entry(name, stable)
        for known in entry.known:
            if known.version == version and known.digest != release.digest:
                raise ChangeRefusedError(
                    "VERSION_REUSED",
                    f"{name} {version} was active with other files: answers of two models would have the same version. "
                    "Convert the new one as a new version.",
                )
        if release == stable:
            if channel != STABLE:
                raise ChangeRefusedError("VERSION_IS_STABLE", f"{name} {version} is stable: it needs no trial.")
            if family is not None:
                self._write(name, stable, lambda entry: entry)  # so that a restart serves nothing newer
                return f"{name} {version} is stable already."
        elif channel != SHADOW:
            check_rises(name, stable.version, version)
        if channel == STABLE:
            return self._serve_stable(name, stable, release, report)
        if family is None:
            raise ChangeRefusedError(
                "MODEL_NOT_SERVED", f"{name} was unloaded: there is nothing to try {version} beside."
            )
        served = self._load(name, release, channel, report)
        if channel == CANARY:
            self._write(name, stable, lambda entry: replace(entry, canary=Canary(release, percent)))
            self._registry.put(replace(family, canary=served, percent=percent))
            return f"{name} {version} answers {percent:g} % of the images, {stable.version} the others."
        self._write(name, stable, lambda entry: replace(entry, shadow=release))
        self._registry.put(replace(family, shadow=served))
        return f"{name} {version} scores images beside {stable.version}, which answers."

    def _serve_stable(self, name: str, stable: Release, release: Release, report: Report) -> str:
        served = self._load(name, release, STABLE, report)
        self._write(name, stable, lambda entry: entry.follow(release) if release != stable else entry)
        self._registry.put(Family(served))
        self._unloaded.pop(name, None)
        return f"{name} {release.version} is stable; before, {stable.version} was."

    def _promote(self, name: str, report: Report) -> str:
        family = self._find(name) or refuse_unknown(name)
        stable = family.stable.release
        if family.canary is None and family.shadow is None:
            raise ChangeRefusedError("NOTHING_ON_TRIAL", f"{name} has neither a canary nor a shadow to promote.")
        if family.canary is None:
            assert family.shadow is not None
            check_rises(name, stable.version, family.shadow.release.version)
            # It runs in one thread as a shadow, so it is loaded anew.
            return self._serve_stable(name, stable, family.shadow.release, report)
        canary = family.canary
        self._write(name, stable, lambda entry: entry.follow(canary.release))
        self._registry.put(Family(canary))
        return f"{name} {canary.release.version} is stable; before, {stable.version} was."

    def _roll_back(self, name: str, report: Report) -> str:
        family = self._find(name) or refuse_unknown(name)
        stable = family.stable.release
        entry = self._read_entry(name, stable)
        if not entry.history:
            raise ChangeRefusedError(
                "NOTHING_BEFORE", f"{name} {entry.stable.version} is the first that was active: nothing was before it."
            )
        release = entry.history[-1]
        # At the usual priority: whoever goes back is in a hurry.
        served = self._load(name, release, ROLL_BACK, report)
        self._write(name, stable, lambda entry: entry.go_back())
        self._registry.put(Family(served))
        return f"{name} {release.version} is stable again, {stable.version} no longer."

    def _unload(self, name: str) -> str:
        family = self._registry.snapshot.families.get(name) or refuse_unknown(name)
        is_lost = any((name, channel) in self._registry.faults for channel in (CANARY, SHADOW))
        if family.canary is not None or family.shadow is not None or is_lost:
            self._write(name, family.stable.release, lambda entry: replace(entry, canary=None, shadow=None))
            self._registry.put(replace(family, canary=None, percent=0.0, shadow=None))
            return f"{name} {family.stable.release.version} answers alone."
        if family is self._registry.snapshot.default:
            raise ChangeRefusedError("MODEL_IS_DEFAULT", f"{name} answers requests without a name: it stays.")
        self._registry.remove(name)
        self._unloaded[name] = family.stable.release
        return f"{name} is served no longer, until it is activated or the server is started again."

    def _find(self, name: str) -> Family | None:
        """What is served under a name; None: it was unloaded. Raises ChangeRefusedError where nothing can be served."""
        family = self._registry.snapshot.families.get(name)
        if family is None and name not in self._unloaded:
            refuse_unknown(name)
        if family is not None and family.is_pinned:
            raise ChangeRefusedError(
                "MODEL_PINNED",
                f"The server was started with the version of {name} in --model, and would serve that again after a "
                f"restart: start it with --model {name} first.",
            )
        return family

    def _read(self, name: str, version: str) -> Release:
        try:
            return read_release(self.root, self.root / name / version)[0]
        except ModelFileError as error:
            raise ChangeRefusedError(error.reason, error.message) from None

    def _load(self, name: str, release: Release, channel: str, report: Report) -> Served:
        """Loads and verifies a release; answers go before it."""
        report(f"loading and verifying {name} {release.version}")
        options = self._options if channel == ROLL_BACK else replace(self._options, is_aside=True)
        if channel == SHADOW:
            options = make_quiet(options)
        try:
            self._check(name, release.version)
            place = Place(self.root / name / release.version, release=release)
            served = load_served(self.root, place, options, self.read_keys())
        except ModelFileError as error:
            raise ChangeRefusedError(error.reason, error.message) from None
        report(f"verified {name} {release.version}: its files, its contract and its answers on this machine")
        return served

    def _read_entry(self, name: str, stable: Release) -> ActiveModel:
        """What ``active.json`` says of a model, which must be what is served."""
        try:
            return expect_entry(read_active(self.root).models.get(name), name, stable)
        except ModelFileError as error:
            raise ChangeRefusedError(error.reason, error.message) from None

    def _write(self, name: str, stable: Release, change: Callable[[ActiveModel], ActiveModel]) -> None:
        """Changes ``active.json``, before what is served is changed."""
        try:
            change_active(self.root, name, lambda entry: change(expect_entry(entry, name, stable)))
        except ModelFileError as error:
            raise ChangeRefusedError(error.reason, error.message) from None


def expect_entry(entry: ActiveModel | None, name: str, stable: Release) -> ActiveModel:
    """The entry of a model; the first one where there is none yet.

    Raises:
        ChangeRefusedError: reason ACTIVE_CHANGED: it is about something else than what is stable here.
    """
    if entry is None:
        return ActiveModel(stable)
    if entry.stable != stable:
        raise ChangeRefusedError(
            "ACTIVE_CHANGED",
            f"active.json says that {name} {entry.stable.version} is active, and this server serves {stable.version}: "
            "another server has changed it. Restart this one.",
        )
    return entry


def check_rises(name: str, stable: str, version: str) -> None:
    """Checks that a version is newer than the stable one.

    Raises:
        ChangeRefusedError: reasons VERSION_FALLS, MODEL_AMBIGUOUS.
    """
    if sort_version(version) == sort_version(stable):
        raise ChangeRefusedError(
            "MODEL_AMBIGUOUS", f"{name} {version} and {stable}, which is stable, are the same version."
        )
    if sort_version(version) < sort_version(stable):
        raise ChangeRefusedError(
            "VERSION_FALLS",
            f"{name} {version} is older than {stable}, which is stable. Versions fall by going back alone: "
            f"python -m server model rollback {name}",
        )


def refuse_unknown(name: str) -> NoReturn:
    raise ChangeRefusedError(
        "MODEL_NOT_SERVED", f"No model {name[:100]!r} is served here: name it in --model, and start the server again."
    )
