"""Layers and functions of a network's own, whose code its file does not hold: ``--custom FILE.py`` does."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.errors import SourceError, describe
from converter.keras_file import KerasFile, walk_config

MODULE = "custom"
"""What the Python file is called while it runs."""

OWN_PACKAGES = ("keras", "tf_keras", "tensorflow", "builtins")

UNKNOWN = (
    re.compile(r"Could not locate (?:class|function) '([^']+)'"),
    re.compile(r"Unknown [a-z ]+:? '(\w+)'"),
    re.compile(r"Unknown [a-z ]+:? '\{.*?'config': '(\w+)'"),
    re.compile(r"Cannot deserialize object of type `(\w+)`"),
)
"""How Keras 2 and 3 say that they do not know a class or function."""


def load_custom(path: Path, file: KerasFile) -> dict[str, Any]:
    """Runs a Python file and returns the classes and functions in it by name, as Keras wants them.

    Args:
        path: the Python file; what lies beside it can be imported from it.
        file: the model that it is for.

    Raises:
        SourceError: it fails, or its layers are of another Keras than the model.
    """
    before = list(sys.path)
    sys.path.insert(0, str(path.parent.absolute()))
    try:
        found = runpy.run_path(str(path), run_name=MODULE)
    except SystemExit:
        raise SourceError(f"--custom {path}: ends the program; put that under if __name__ == '__main__'") from None
    except Exception as error:  # it is somebody's code
        raise SourceError(f"--custom {path}: {type(error).__name__}: {describe(error)}") from None
    finally:
        sys.path[:] = before
    objects = {name: value for name, value in found.items() if callable(value) and not name.startswith("_")}
    wanted, other, remedy = ("tf_keras", "keras", "import tf_keras in place of tensorflow.keras")
    if not file.is_keras2:
        wanted, other, remedy = other, wanted, "import keras"
    for name, value in objects.items():
        bases = value.__mro__[1:] if isinstance(value, type) and value.__module__ == MODULE else ()
        if any(base.__module__.partition(".")[0] == other for base in bases):
            raise SourceError(f"--custom {path}: {name} is made of {other}, {file.path} needs {wanted}: {remedy}")
    return objects


def explain_unknown(file: KerasFile, error: Exception, objects: Mapping[str, Any]) -> str | None:
    """What to do where Keras did not know a class or function; None where it failed for another reason."""
    matches = (pattern.search(str(error)) for pattern in UNKNOWN)
    name = next((match[1] for match in matches if match), None)
    if name == "function":  # Keras 2 names the kind of a function in its place
        name = next((str(part["config"]) for part in walk_config(file.config) if part.get("class_name") == name), name)
    if name is None:  # Keras 2 may fail later, and in another way, over a class that it did not find
        foreign = (str(part["class_name"]) for part in walk_config(file.config) if is_foreign(part))
        name = next((found for found in foreign if found not in objects), None)
    if name is None:
        return None
    settings = next((part.get("config") for part in walk_config(file.config) if part.get("class_name") == name), None)
    is_operation = not file.is_keras2 and isinstance(settings, dict) and "dtype" not in settings
    if file.is_hdf5 and (is_operation or name in objects):
        return f"has {name} in it, which Keras does not read back from .h5: save the model as .keras"
    if objects:
        return f"has a layer or function of its own, {name}, which --custom does not define"
    return (
        f"has a layer or function of its own, {name}, whose code is not in the file: give that by --custom FILE.py, or "
        "convert a SavedModel, made where the model was trained: model.export('folder')"
    )


def is_foreign(part: Mapping[str, Any]) -> bool:
    """Whether a part of a network is of a class that a ``.keras`` file names as none of Keras's own."""
    return {"class_name", "module"} <= part.keys() and str(part["module"]).partition(".")[0] not in OWN_PACKAGES
