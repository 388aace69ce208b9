"""A new version of a model folder with the same weights and another spec."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from server.errors import ModelFileError
from server.models.contract import METADATA_KEY, ModelSpec, is_identifier
from server.models.installation import install
from server.models.manifest import MANIFEST_FILE, Manifest, read_verified
from server.models.repository import list_folders
from training.errors import TrainingError


def find_out(folder: Path, out: Path | None) -> Path:
    """Returns where the new version of a model folder goes: the next number beside it unless ``out`` is given.

    Raises:
        TrainingError: there is something already, or it is no ``NAME/VERSION``.
    """
    if out is None:
        folder = folder.resolve()
        if not folder.name.isdigit():
            raise TrainingError(f"{folder}: the version after {folder.name!r} is not known; give --out NAME/VERSION")
        numbers = [int(name) for name in list_folders(folder.parent) if name.isdigit()]
        return folder.with_name(str(max([int(folder.name), *numbers]) + 1))
    name, version = out.resolve().parent.name, out.name
    if not (is_identifier(name) and is_identifier(version)):
        raise TrainingError(f"--out {out}: must end in NAME/VERSION, such as models/stroke-cnn/4")
    if out.exists():
        raise TrainingError(f"{out}: exists already; take the next version")
    return out


def write_version(folder: Path, manifest: Manifest, spec: ModelSpec, out: Path) -> None:
    """Writes a model folder whose files have the weights of another's, and a spec of their own.

    The golden answers stay, for the graphs do, and loading the result asks them anew. Digests are new; a signature is
    of the old manifest and is left behind.

    Args:
        folder: the model folder, which stays.
        manifest: the folder's, with the files that come along.
        spec: what the new files say of themselves; name and version are those of ``out``.
        out: where it goes.

    Raises:
        TrainingError: the model is not whole, or the result cannot be written or loaded; nothing was written.
    """
    try:
        files = {name: replace_spec(read_verified(folder, name, manifest), spec) for name in manifest.files}
        records = {
            name: replace(manifest.files[name], sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            for name, data in files.items()
        }
        install({**files, MANIFEST_FILE: replace(manifest, files=records).to_json().encode()}, out)
    except ModelFileError as error:
        raise TrainingError(error.message) from None
    except OSError as error:
        raise TrainingError(f"{out}: cannot be written ({error.strerror})") from None


def replace_spec(data: bytes, spec: ModelSpec) -> bytes:
    """Returns an ONNX file's bytes with another spec in its metadata; all else in it stays."""
    import onnx

    model = onnx.load_from_string(data)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**metadata, METADATA_KEY: spec.to_json()})
    return bytes(model.SerializeToString())
