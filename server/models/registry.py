"""The models that are served: found on disk, verified, and looked up by name and version."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from server.errors import ModelFileError, ModelNotFoundError, UnavailableError
from server.models.contract import is_identifier
from server.models.engine import DEFAULT_OPTIONS, EngineOptions
from server.models.manifest import HOW_TO_MAKE
from server.models.runtime import OnnxModel, load_model
from server.models.signature import TrustedKey

logger = logging.getLogger(__name__)

MOST_ENTRIES = 10_000
"""Of a folder of models: a folder with more of them is another one, and listing it could take minutes."""

MOST_NAMED = 10
"""Models that an error message lists."""


class ModelRegistry:
    """Models by name and version. Empty, and so answering UnavailableError, until ``load`` is through."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], OnnxModel] = {}
        self._default: OnnxModel | None = None

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
                the newest version of the only model in ``root``.
            options: how to run them.
            trusted: keys of which one must have signed each; None: they need not be signed.

        Raises:
            ModelFileError: nothing to serve, an ambiguous wish, or any model that cannot be served.
        """
        loaded = [load_model(folder, options, trusted=trusted) for folder in find_wanted(root, wanted)]
        for model in loaded:
            name = f"{model.spec.name} {model.spec.version} {model.options.precision}"
            logger.info("loaded %s sha256=%s with %s %s", name, model.digest, model.runtime, model.runtime_version)
        self._models = {(model.spec.name, model.spec.version): model for model in loaded}
        self._default = loaded[0]

    def get(self, name: str = "", version: str = "") -> OnnxModel:
        """Returns a model: the default one without a name, the first served version without a version.

        Raises:
            ModelNotFoundError: reason MODEL_NOT_FOUND.
            UnavailableError: reason SERVER_STARTING.
        """
        default = self.default
        if not version and name in ("", default.spec.name):
            return default
        name = name or default.spec.name
        for model in self._models.values():
            if model.spec.name == name and version in ("", model.spec.version):
                return model
        # The name is the caller's own text, so it is cut before it is echoed.
        raise ModelNotFoundError(
            "MODEL_NOT_FOUND",
            f"No model {name[:100]!r}{f' version {version[:100]!r}' if version else ''} is served here; "
            f"served: {', '.join(f'{m.spec.name} {m.spec.version}' for m in self)}.",
        )

    @property
    def default(self) -> OnnxModel:
        """The model that answers a request without a name.

        Raises:
            UnavailableError: reason SERVER_STARTING.
        """
        if self._default is None:
            raise UnavailableError("SERVER_STARTING", "The server is still loading its model: try again in a moment.")
        return self._default

    def __iter__(self) -> Iterator[OnnxModel]:
        """All served models, ordered by name, then version."""
        return iter(sorted(self._models.values(), key=lambda m: (m.spec.name, sort_version(m.spec.version))))


def find_wanted(root: Path, wanted: str) -> list[Path]:
    """Returns the folders of the models that ``ModelRegistry.load`` loads, the default first."""
    if not wanted:
        return [find_only_model(root)]
    return list(dict.fromkeys(find_model(root, wish.strip()) for wish in wanted.split(",")))  # a model once


def find_only_model(root: Path) -> Path:
    """Returns the newest version of the only model below ``root``."""
    names = list_folders(root)
    if not names:
        raise ModelFileError("MODEL_NOT_FOUND", f"{root}: there is no model in this folder; {HOW_TO_MAKE}")
    if len(names) > 1:
        raise ModelFileError(
            "MODEL_AMBIGUOUS",
            f"{root}: holds {list_names(names)}; name the ones to serve, the default first: "
            f"--model {','.join(names[:MOST_NAMED])}",
        )
    return find_model(root, names[0])


def find_model(root: Path, wish: str) -> Path:
    """Returns the folder of ``NAME/VERSION``, or of the newest version of ``NAME``."""
    name, slash, version = wish.partition("/")
    if not is_identifier(name) or (slash and not is_identifier(version)):
        raise ModelFileError("MODEL_NOT_FOUND", f"--model {wish[:100]!r}: not of the form NAME or NAME/VERSION")
    if not slash:
        versions = list_folders(root / name)
        if not versions:
            raise ModelFileError(
                "MODEL_NOT_FOUND",
                f"{root / name}: there is no such model; in {root}: {list_names(list_folders(root)) or 'none'}; "
                f"{HOW_TO_MAKE}",
            )
        version = max(versions, key=sort_version)
    return root / name / version


def list_folders(root: Path) -> list[str]:
    """Names of the sub-folders that can be a model or a version, sorted; half-written ones start with a dot.

    Raises:
        ModelFileError: reason MODEL_NOT_FOUND: the folder cannot be read, or has more entries than a folder of models.
    """
    try:
        with os.scandir(root) as found:
            entries = list(itertools.islice(found, MOST_ENTRIES + 1))
            if len(entries) > MOST_ENTRIES:
                raise ModelFileError(
                    "MODEL_NOT_FOUND",
                    f"{root}: has more than {MOST_ENTRIES:,} entries, so it is no folder of models; {HOW_TO_MAKE}",
                )
            return sorted(entry.name for entry in entries if is_identifier(entry.name) and is_folder(entry))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte
        return []
    except OSError as error:
        raise ModelFileError("MODEL_NOT_FOUND", f"{root}: cannot be read ({error.strerror})") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that leads in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def list_names(names: list[str]) -> str:
    """Names for an error message, the first of them where they are many."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def sort_version(version: str) -> list[tuple[int, int, str]]:
    """Sort key that puts 10 after 9 and 1.10 after 1.9."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in version.split(".")]
