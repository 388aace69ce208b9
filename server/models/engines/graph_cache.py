"""Optimised graphs on disk, so that a large model need not be optimised at every start.

A cached graph is served in the place of a model that was verified, so it is believed only as far as it must be. Labels,
threshold and input come from the model's own bytes. The graph is used when it is the one that this user's server made
of this very model, with this runtime, for this kind of processor, with every byte as it was written; these facts are in
``entry.json`` beside it. It lies where nobody else can write (``server.machine.folders``), and is read into
memory once, checked there and used from there: nothing that happens to the files later reaches the server. In all other
cases it is made again. The golden vectors are asked after the load, whatever was loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.machine.folders import NotPrivateError, open_folder, read_private, read_private_array
from server.machine.processors import describe_processor
from server.models.engines.cache_upkeep import ENTRY_FILE, STAGING, forget_old, hold_builds

logger = logging.getLogger(__name__)

LARGE_MODEL_BYTES = 4 * 1024 * 1024
"""Between what was measured: the CNN of 0.7 MB gains nothing; with ResNet-50 a server takes 29 MB less as int8 (24 MB)
and starts no later; as fp32 (94 MB), it takes 188 MB less and starts 0.4 s sooner. Mapped files, which are not safe,
would start it 0.1 s sooner still (int8: 0.04 s), and take no less."""

GRAPH_FILE = "graph.onnx"
WEIGHTS_FILE = f"{GRAPH_FILE}.weights"
MOST_ENTRY_BYTES = 64 * 1024
SPARE_BYTES = 64 * 1024 * 1024
"""An optimised graph is hardly larger than its model; twice the model and this much more is none of ours."""


@dataclass(frozen=True)
class CachedGraph:
    """An optimised graph in private memory."""

    graph: bytes
    """The ONNX file, without its large weights."""

    weights: NDArray[np.uint8]
    """The bytes of the weights' file."""

    def describe(self) -> dict[str, dict[str, object]]:
        """Size and digest of each file."""
        return {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in ((GRAPH_FILE, self.graph), (WEIGHTS_FILE, self.weights.data))
        }


class GraphCache:
    """The place of one model's optimised graph below a cache folder."""

    def __init__(self, root: Path, runtime: str, digest: str, size: int) -> None:
        """Names the place; nothing is looked for yet.

        Args:
            root: the cache folder; need not exist.
            runtime: name and version of the runtime.
            digest: SHA-256 of the model file.
            size: bytes of the model file.
        """
        self._root = root
        self._facts = {
            "schema": 2,
            "runtime": runtime,
            "processor": hashlib.sha256(describe_processor().encode()).hexdigest(),
            "model": digest,
        }
        self._key = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()[:32]
        self._most = 2 * size + SPARE_BYTES

    def open(self, write: Callable[[Path], None]) -> CachedGraph | None:
        """Returns the graph, made first when it is not there; None, and a line in the log, when it cannot be kept.

        Args:
            write: writes the graph to the path that it is given, and weights beside it.
        """
        try:
            with self._open_place(make=True) as place:
                graph = self._find(place) or self._build(place, write)
                forget_old(place, self._key, self._facts)
                return graph
        except NotPrivateError as error:
            logger.warning("the cache %s is not used, %s: the model is optimised in memory", self._root, error.strerror)
        except OSError as error:
            logger.warning("no cache: %s cannot be used (%s)", self._root, error.strerror)
        except ValueError:  # a path with a null byte or half a surrogate pair
            logger.warning("no cache: %r is not a possible path", str(self._root))
        return None

    def discard(self) -> None:
        """Removes the graph, which turned out to be another model than the one it was made from."""
        with suppress(OSError, ValueError), self._open_place(make=False) as place:
            shutil.rmtree(self._key, ignore_errors=True, dir_fd=place)

    @contextmanager
    def _open_place(self, *, make: bool) -> Iterator[int]:
        """The folder of all graphs, open."""
        graphs = self._root / "graphs"
        if make:
            graphs.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open_folder(self._root) as root:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(graphs.name, 0o700, dir_fd=root)
            with open_folder(graphs.name, root) as place:
                yield place

    def _find(self, place: int) -> CachedGraph | None:
        """The graph that is there; None when there is none or not quite the one that was written, which is removed."""
        try:
            with open_folder(self._key, place) as entry:
                graph = self._read(entry)
                with os.scandir(entry) as found:
                    names = {item.name for item, _ in zip(found, range(4), strict=False)}
                recorded = read_private(ENTRY_FILE, MOST_ENTRY_BYTES, entry)
                if names == {GRAPH_FILE, WEIGHTS_FILE, ENTRY_FILE} and recorded == self._record(graph):
                    os.utime(entry)  # it is in use, which is what `forget_old` goes by
                    return graph
        except FileNotFoundError:
            if not exists(self._key, place):
                return None
        except OSError:
            pass
        logger.warning("an optimised graph in the cache is damaged: making it again")
        remove(self._key, place)
        return None

    def _build(self, place: int, write: Callable[[Path], None]) -> CachedGraph | None:
        """Makes the graph, and keeps it if possible."""
        staged = f"{STAGING}{uuid.uuid4().hex}"
        with hold_builds(place):
            os.mkdir(staged, 0o700, dir_fd=place)
            try:
                folder = self._root / "graphs" / staged
                write(folder / GRAPH_FILE)
                (folder / WEIGHTS_FILE).touch()
                for name in (GRAPH_FILE, WEIGHTS_FILE):
                    (folder / name).chmod(0o600)
                with open_folder(staged, place) as entry:
                    graph = self._read(entry)
                (folder / ENTRY_FILE).write_bytes(self._record(graph))
                (folder / ENTRY_FILE).chmod(0o600)
                # Another server may have been faster, or what is in the way cannot be removed: memory is as good.
                with suppress(OSError):
                    os.rename(staged, self._key, src_dir_fd=place, dst_dir_fd=place)
                return graph
            except Exception as error:  # the runtime's exception types are private; a full disk is one of the reasons
                logger.warning("no cache: the optimised graph could not be kept (%s)", type(error).__name__)
                return None
            finally:
                remove(staged, place)

    def _read(self, entry: int) -> CachedGraph:
        """The files of an entry, in memory."""
        return CachedGraph(
            read_private(GRAPH_FILE, self._most, entry), read_private_array(WEIGHTS_FILE, self._most, entry)
        )

    def _record(self, graph: CachedGraph) -> bytes:
        """What ``entry.json`` must be for this graph, to the byte."""
        return json.dumps({**self._facts, "files": graph.describe()}, indent=1, sort_keys=True).encode()


def exists(name: str, folder: int) -> bool:
    """Whether a folder has an entry, of whatever kind."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def remove(name: str, folder: int) -> None:
    """Removes a folder, or what lies in its place, as far as that is possible."""
    shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)  # a file or a link
