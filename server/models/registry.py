"""The models that are served: verified, and looked up by name, version or label.

What is served is one object that never changes, and a change puts another one in its place: whoever looks a model up
sees all of a change or nothing of it, and keeps what was found until its request has ended. So a model that is replaced
leaves with its last request.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from server.errors import ModelFileError, ModelNotFoundError, UnavailableError
from server.machine.memory import read_resident_bytes
from server.models.active import Active, Release
from server.models.engines.engine import DEFAULT_OPTIONS, EngineOptions
from server.models.family import CANARY, SHADOW, Family, Route, Served, Snapshot, Usage
from server.models.repository import Place, find_places, read_active_for, read_release, sort_version
from server.models.runtime import FILES, OnnxModel, load_model
from server.models.signature import TrustedKey

logger = logging.getLogger(__name__)


class ModelRegistry:
    """Models by name and version. Empty, and so answering UnavailableError, until ``load`` is through.

    Attributes:
        faults: sentences about versions on trial that could not be brought back at the start, by name and channel.
        last_departure: when a model was last given up, in seconds of ``time.monotonic``.
    """

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self.faults: dict[tuple[str, str], ModelFileError] = {}
        self.last_departure = 0.0

    def load(
        self,
        root: Path,
        wanted: str,
        options: EngineOptions = DEFAULT_OPTIONS,
        trusted: Sequence[TrustedKey] | None = None,
    ) -> None:
        """Loads and verifies models; either all that are wanted are served afterwards, or none.

        Args:
            root: folder of ``<name>/<version>/``.
            wanted: ``NAME`` or ``NAME/VERSION``, several separated by commas, the first being the default; empty:
                the only model in ``root``. Without a version it is the one that is active (``active.json``), or the
                newest that is whole.
            options: how to run them.
            trusted: keys of which one must have signed each; None: they need not be signed.

        Raises:
            ModelFileError: nothing to serve, an ambiguous wish, or any model that cannot be served.
        """
        active = read_active_for(root, wanted)
        families: dict[str, Family] = {}
        for place in find_places(root, wanted, active):
            for fault in place.skipped:
                logger.warning("a newer version is not whole and is passed over: %s", fault)
            served = load_served(root, place, options, trusted)
            family = families.get(place.folder.parent.name)
            if family is not None:
                family = replace(family, others=(*family.others, served), is_pinned=True)
            else:
                family = Family(served, is_pinned=place.is_pinned)
                if place.release is not None:
                    family = self._load_trials(root, family, active, options, trusted)
                elif place.is_pinned and family.name in active.models:
                    stable = active.models[family.name].stable
                    logger.warning(
                        "--model says %s %s: it is served, not %s, which is active", *where(place), stable.version
                    )
            families[family.name] = family
        self.replace(Snapshot(families, next(iter(families.values()))))

    def _load_trials(
        self, root: Path, family: Family, active: Active, options: EngineOptions, trusted: Sequence[TrustedKey] | None
    ) -> Family:
        """Loads the canary and the shadow that were active. One that is lost keeps nobody from being served."""
        entry = active.models[family.name]
        if entry.canary is not None:
            canary = self._load_trial(root, family, CANARY, entry.canary.release, options, trusted)
            family = replace(family, canary=canary, percent=entry.canary.percent if canary else 0.0)
        if entry.shadow is not None:
            shadow = self._load_trial(root, family, SHADOW, entry.shadow, make_quiet(options), trusted)
            family = replace(family, shadow=shadow)
        return family

    def _load_trial(
        self,
        root: Path,
        family: Family,
        channel: str,
        release: Release,
        options: EngineOptions,
        trusted: Sequence[TrustedKey] | None,
    ) -> Served | None:
        place = Place(root / family.name / release.version, release=release)
        try:
            return load_served(root, place, options, trusted)
        except ModelFileError as error:
            logger.error("the %s of %s is not served: %s [%s]", channel, family.name, error.message, error.reason)
            self.faults[family.name, channel] = error
            return None

    def replace(self, snapshot: Snapshot) -> None:
        """Serves something else from now on."""
        before = [served for _, served in self.channels]
        self._snapshot = snapshot
        for _, served in self.channels:
            if served not in before:
                weakref.finalize(served.model, self._note_departure).atexit = False

    def put(self, family: Family) -> None:
        """Serves something else under one name."""
        snapshot = self.snapshot
        before = snapshot.families.get(family.name)
        is_new = before is None or before.stable is not family.stable or not (family.canary or family.shadow)
        for channel in (CANARY, SHADOW):
            if is_new or channel in dict(family.channels):
                self.faults.pop((family.name, channel), None)
        families = {**snapshot.families, family.name: family}
        self.replace(Snapshot(families, families[snapshot.default.name]))

    def remove(self, name: str) -> None:
        """Serves one name no longer, which is not the default."""
        snapshot = self.snapshot
        families = {key: family for key, family in snapshot.families.items() if key != name}
        self.replace(Snapshot(families, snapshot.default))

    def find(self, name: str = "", version: str = "") -> Route:
        """Returns what answers: without a name the default model, without a version the stable one and its canary.

        Raises:
            ModelNotFoundError: reason MODEL_NOT_FOUND.
            UnavailableError: reason SERVER_STARTING.
        """
        snapshot = self.snapshot
        family = snapshot.families.get(name) if name else snapshot.default
        if family is not None:
            found = family.find(version) if version else family.route
            if found is not None:
                return found
        # The name is the caller's own text, so it is cut before it is echoed.
        name = name or snapshot.default.name
        raise ModelNotFoundError(
            "MODEL_NOT_FOUND",
            f"No model {name[:100]!r}{f' version {version[:100]!r}' if version else ''} is served here; "
            f"served: {', '.join(f'{m.spec.name} {m.spec.version}' for m in self)}.",
        )

    def get(self, name: str = "", version: str = "") -> OnnxModel:
        """Returns the model that answers, whatever a canary does. Raises as ``find``."""
        return self.find(name, version).main.served.model

    @property
    def snapshot(self) -> Snapshot:
        """All that is served now.

        Raises:
            UnavailableError: reason SERVER_STARTING.
        """
        if self._snapshot is None:
            raise UnavailableError("SERVER_STARTING", "The server is still loading its model: try again in a moment.")
        return self._snapshot

    @property
    def default(self) -> OnnxModel:
        """The model that answers a request without a name. Raises as ``snapshot``."""
        return self.snapshot.default.stable.model

    def __iter__(self) -> Iterator[OnnxModel]:
        """All models that answer, ordered by name, then version."""
        models = [served.model for channel, served in self.channels if channel != SHADOW]
        return iter(sorted(models, key=lambda m: (m.spec.name, sort_version(m.spec.version))))

    @property
    def channels(self) -> list[tuple[str, Served]]:
        """All models in memory, each with its channel."""
        families = self._snapshot.families.values() if self._snapshot is not None else ()
        return [pair for family in families for pair in family.channels]

    @property
    def shadows(self) -> list[Served]:
        """Those that answer nobody."""
        return [served for channel, served in self.channels if channel == SHADOW]

    def needs_person(self) -> bool:
        """Whether something that was active could not be brought back at the start."""
        return bool(self.faults)

    def _note_departure(self) -> None:
        self.last_departure = time.monotonic()


def load_served(
    root: Path, place: Place, options: EngineOptions, trusted: Sequence[TrustedKey] | None = None
) -> Served:
    """Loads and verifies a model, and that it is the release that it is to be.

    Args:
        root: the models folder.
        place: what is wanted.
        options: how to run it.
        trusted: keys of which one must have signed it; None: it need not be signed.

    Raises:
        ModelFileError: any reason of ``load_model``, MODEL_OUTSIDE, and RELEASE_ALTERED: the folder holds something
            else than what was active.
    """
    try:
        return load_release(root, place, options, trusted)
    except ModelFileError as error:
        if not place.instead:
            raise
        way = f"--model {place.folder.parent.name}/{place.instead}"
        raise ModelFileError(error.reason, f"{error.message}; to serve the version before it: {way}") from None


def load_release(root: Path, place: Place, options: EngineOptions, trusted: Sequence[TrustedKey] | None) -> Served:
    """``load_served``, without a word about what else could be served."""
    release, manifest = read_release(root, place.folder)
    before = read_resident_bytes()
    is_meant = place.release in (None, release)
    model = load_model(place.folder, options, trusted=trusted) if is_meant else None
    # The manifest may have been replaced between the two looks at it; the bytes that are served are what counts.
    if model is None or model.digest != manifest.files[FILES[model.options.precision]].sha256:
        raise ModelFileError(
            "RELEASE_ALTERED",
            f"{place.folder}: holds something else than the {' '.join(where(place))} that was activated; copy that "
            "again from where it was made",
        )
    name = f"{model.spec.name} {model.spec.version} {model.options.precision}"
    logger.info("loaded %s sha256=%s with %s %s", name, model.digest, model.runtime, model.runtime_version)
    return Served(model, release, max(0, read_resident_bytes() - before), Usage())


def where(place: Place) -> tuple[str, str]:
    """Name and version of a place."""
    return place.folder.parent.name, place.folder.name


def make_quiet(options: EngineOptions) -> EngineOptions:
    """How a shadow is run: in one thread, that which asks it, whose low priority is then that of all its work. It
    answers nobody, and so explains nothing."""
    return replace(options, threads=1, busy_threads=1, workers=1, explains=False)
