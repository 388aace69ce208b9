"""What the file of a Keras model says of itself, read before anything of it is loaded: its Keras, and what is missing.

``.h5`` is HDF5, ``.keras`` is a zip archive. Either may hold a network with its weights, or weights alone.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from converter.errors import SourceError, describe

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"

NOT_MODELS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the model that it stands for: run git lfs pull where it was "
    "cloned, or download the file itself",
    b"<": "is a web page, not a model: the download went wrong (it may need a login)",
    b"{": "is JSON: at best a network without its weights; save the whole model: model.save('model.keras')",
}
"""What stands in a model's place when it was fetched the wrong way, by what it begins with."""


CHECKPOINT = (
    "is a checkpoint, which has weights without a network: load it where the network is defined, and save the whole "
    "model: model.save('model.keras')"
)


@dataclass(frozen=True)
class KerasFile:
    """A file that Keras wrote."""

    path: Path
    is_hdf5: bool
    keras_version: str
    """Such as ``2.15.0``; empty where the file does not say."""

    config: dict[str, Any] | None
    """The network as Keras describes it; None in a file of weights alone."""

    parameters: int
    """How many numbers a file of weights alone holds for layers; 0 for a whole model."""

    @property
    def is_keras2(self) -> bool:
        """Whether Keras 2 (or 1) wrote it; an input layer's form tells where nothing else does."""
        if self.keras_version:
            return self.keras_version.startswith(("1.", "2."))
        return "'batch_input_shape'" in str(self.config)

    @property
    def kind(self) -> str:
        """For the report."""
        return " ".join(("Keras", *self.keras_version.split(), ".h5" if self.is_hdf5 else ".keras"))


def read_keras_file(path: Path) -> KerasFile:
    """Reads what a ``.h5`` or ``.keras`` file says of itself.

    Raises:
        SourceError: it is none, incomplete, or its name is not that of its kind.
    """
    check_is_model(path)
    with path.open("rb") as file:
        begin = file.read(len(HDF5_SIGNATURE))
    if begin == HDF5_SIGNATURE:
        if path.suffix not in (".h5", ".hdf5"):
            raise SourceError(f"{path}: holds HDF5; Keras reads that only from a file named .h5, rename it")
        return read_hdf5(path)
    if begin.startswith(ZIP_SIGNATURE):
        return read_archive(path)
    if path.name == "saved_model.pb":
        raise SourceError(f"{path}: is one file of a SavedModel; give its folder: {path.parent}")
    if path.suffix == ".index" or ".data-" in path.suffix:
        raise SourceError(f"{path}: {CHECKPOINT}")
    raise SourceError(f"{path}: neither a .keras nor an .h5 file, nor the folder of a SavedModel; is it complete?")


def check_is_model(path: Path) -> None:
    """Refuses a file that holds nothing, or something that was fetched in its place.

    Raises:
        SourceError: the message says what to do.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(32)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    if not begin:
        raise SourceError(f"{path}: is empty (0 bytes); copy or download it again")
    for wrong, message in NOT_MODELS.items():
        if begin.lstrip().startswith(wrong):
            raise SourceError(f"{path}: {message}")


def check_folder(path: Path) -> None:
    """Refuses a folder that is no SavedModel, or one of whose files was fetched the wrong way.

    Raises:
        SourceError: the message says what to do.
    """
    names = sorted(entry.name for entry in path.iterdir())
    if "saved_model.pb" in names:
        for part in (path / "saved_model.pb", *sorted(path.glob("variables/variables.*"))):
            check_is_model(part)
        return
    models = [name for name in names if name.endswith((".keras", ".h5", ".hdf5")) and name != "model.weights.h5"]
    if models:
        raise SourceError(f"{path}: not a SavedModel; say which file in it: {path / models[0]}")
    if {"config.json", "metadata.json"} <= set(names):
        raise SourceError(f"{path}: is an unpacked .keras archive: pack it, (cd {path} && zip -0 -r ../model.keras .)")
    if any(name.endswith(".index") for name in names):
        raise SourceError(f"{path}: {CHECKPOINT}")
    raise SourceError(f"{path}: not a SavedModel: there is no saved_model.pb in it")


def read_hdf5(path: Path) -> KerasFile:
    """See ``read_keras_file``."""
    try:
        with h5py.File(path) as file:
            stated = {
                name: to_text(file.attrs[name]) for name in ("keras_version", "model_config") if name in file.attrs
            }
            config = json.loads(stated["model_config"]) if "model_config" in stated else None
            if config is not None and "model_weights" not in file:
                raise SourceError(
                    f"{path}: has a network, but no weights; save the whole model: model.save('model.h5')"
                )
            parameters = 0 if config is not None else count_parameters(file)
    except OSError as error:
        if "truncated" in str(error):
            raise SourceError(
                f"{path}: is cut short ({path.stat().st_size:,} bytes are there); copy or download it again"
            ) from None
        raise SourceError(f"{path}: is damaged, HDF5 cannot read it: {describe(error)}") from None
    except (ValueError, KeyError, RuntimeError) as error:
        raise SourceError(f"{path}: is damaged: {describe(error)}") from None
    return KerasFile(path, True, stated.get("keras_version", ""), config, parameters)


def read_archive(path: Path) -> KerasFile:
    """See ``read_keras_file``."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "config.json" not in names:
                raise SourceError(f"{path}: is an archive without config.json, so Keras did not write it")
            if path.suffix != ".keras":
                raise SourceError(
                    f"{path}: holds a .keras archive; Keras reads that only from a file named so, rename it"
                )
            if not any(name.startswith("model.weights.") for name in names):
                raise SourceError(f"{path}: has a network, but no weights (model.weights.h5)")
            if (damaged := archive.testzip()) is not None:
                raise SourceError(f"{path}: is damaged: {damaged} in it is not what was written")
            config = json.loads(archive.read("config.json"))
            stated = json.loads(archive.read("metadata.json")) if "metadata.json" in names else {}
    except zipfile.BadZipFile:
        raise SourceError(
            f"{path}: is cut short ({path.stat().st_size:,} bytes are there); copy or download it again"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"{path}: is damaged: {describe(error)}") from None
    return KerasFile(path, False, str(stated.get("keras_version", "")), config, 0)


def to_text(value: Any) -> str:
    """An attribute of HDF5, which older writers stored as bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def count_parameters(file: Any) -> int:
    """How many numbers a file has for its layers: without an optimiser's, and without the states of random layers."""
    found = 0

    def count(name: str, item: Any) -> None:
        nonlocal found
        if isinstance(item, h5py.Dataset) and not any(part in name for part in ("optimizer", "seed_generator")):
            found += item.size

    file.visititems(count)
    return found


def walk_config(config: Any) -> Iterator[dict[str, Any]]:
    """All that a network's description describes: layers, their functions, networks within it."""
    if isinstance(config, dict):
        yield config
        for value in config.values():
            yield from walk_config(value)
    elif isinstance(config, list):
        for value in config:
            yield from walk_config(value)


def find_inline_code(config: Any) -> str | None:
    """The name of a layer that holds Python code in the file itself, as ``Lambda`` may; None where none does."""
    for part in walk_config(config):
        settings = part.get("config")
        if part.get("class_name") != "Lambda" or not isinstance(settings, dict):
            continue
        function = settings.get("function")
        is_code = isinstance(function, list) or (
            isinstance(function, dict) and function.get("class_name") == "__lambda__"
        )
        if is_code or "lambda" in (settings.get("function_type"), settings.get("output_shape_type")):
            return str(settings.get("name", "lambda"))
    return None
