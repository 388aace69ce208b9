"""The images of a task by WADO-RS (PS3.18, 10.4), onto the disk as they come."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from gateway.perform.multipart import MultipartError, read_boundary, split_parts
from gateway.perform.web import DicomWeb, WebError, find_origin, make_status_error
from gateway.perform.workitem import Source
from gateway.queue.files import write_whole
from gateway.queue.folder import make_key
from gateway.receive.contexts import KEPT
from gateway.receive.instance import InstanceError, read_instance

ACCEPT = 'multipart/related; type="application/dicom"'
AS_STORED = f"{ACCEPT}; transfer-syntax=*"
"""For servers that cannot unpack the pixels, which the standard's default (Explicit VR Little Endian) asks for."""

NOT_ACCEPTABLE = 406
RETRIEVE_SECONDS = 1800.0
"""For one series, or a whole study."""

_URL = re.compile(r"[!\"$->@-~]*/studies/([0-9.]+)(?:/series/([0-9.]+)(?:/instances/([0-9.]+))?)?/?")  # no query


class IncompleteError(Exception):
    """The archive does not have what the task is about, or has something else; the message names no UID."""


@dataclass(frozen=True)
class Bounds:
    """How much of one task is fetched."""

    most_instances: int
    most_instance_bytes: int
    most_bytes: int


class Retriever:
    """Fetches images.

    Args:
        web: the service that has them.
        others: further origins (scheme, host, port) that a task may name; any other is not asked.
        bounds: how much is fetched.
        check: called before each instance is kept; what it raises ends the fetching.
    """

    def __init__(
        self, web: DicomWeb, others: Collection[tuple[str, str, int]], bounds: Bounds, check: Callable[[int], None]
    ) -> None:
        self._web, self._bounds, self._check = web, bounds, check
        self._origins = {find_origin(web.url), *others}
        self._count = self._bytes = 0
        self._missing: set[str] = set()
        self._not_kept: dict[str, int] = {}

    def fetch(self, sources: Collection[Source], folder: Path) -> dict[str, int]:
        """Writes the CT images to a folder. Returns how many instances are none, by their series.

        Raises:
            IncompleteError: not all that the task names is there, or there is more than is allowed.
            WebError: the service cannot be asked, or answers something else.
            OSError: a file cannot be written.
        """
        for source in sources:
            self._missing = set(source.instances)
            self._fetch(source, folder)
            if self._missing:
                raise IncompleteError(f"{len(self._missing)} of the instances that the task names are not there")
        return self._not_kept

    def _fetch(self, source: Source, folder: Path) -> None:
        url = self.choose_url(source)
        for accept in (ACCEPT, AS_STORED):
            with self._web.open("GET", url, {"Accept": accept}, seconds=RETRIEVE_SECONDS) as answer:
                if answer.status == NOT_ACCEPTABLE and accept != AS_STORED:
                    continue
                if answer.status in (204, 404, 410):
                    raise IncompleteError("the archive has no such study or series")
                if answer.status not in (200, 206):
                    raise make_status_error(answer.status, "images cannot be fetched")
                try:
                    boundary = read_boundary(answer.read_header("Content-Type"))
                    for part in split_parts(answer.read_pieces(), boundary, self._bounds.most_instance_bytes):
                        self._keep(part, source, folder)
                except MultipartError as error:
                    raise WebError(f"the images' answer cannot be read: {error}", may_pass=True) from None
            return

    def _keep(self, part: bytes, source: Source, folder: Path) -> None:
        self._count += 1
        self._bytes += len(part)
        if self._count > self._bounds.most_instances or self._bytes > self._bounds.most_bytes:
            raise IncompleteError("there are more images than --most-images and --study-mb allow")
        self._check(len(part))
        try:
            instance = read_instance(part)
        except InstanceError as error:
            raise WebError(f"the archive sent something else than an instance: {error}", may_pass=False) from None
        if instance.study != source.study or source.series not in ("", instance.series):
            raise WebError("the archive sent an instance of another study or series", may_pass=False)
        if source.instances and instance.sop not in source.instances:
            return  # of the same series, and no part of the task
        self._missing.discard(instance.sop)
        if instance.sop_class in KEPT:
            write_whole(folder / f"{make_key(instance.sop)}.dcm", part)
        else:
            self._not_kept[instance.series] = self._not_kept.get(instance.series, 0) + 1

    def choose_url(self, source: Source) -> str:
        """The URL that the task names where it is one of a known service, and of what the task is about; else that of
        the same images at the service of the settings. So a task cannot send this program, and its token, anywhere."""
        try:
            is_known = find_origin(source.url) in self._origins
        except ValueError:
            is_known = False
        found = _URL.fullmatch(source.url)
        if is_known and found is not None:
            study, series, instance = found.groups(default="")
            if (study, series) == (source.study, source.series) and instance in ("", *source.instances):
                return source.url
        return self._web.name(f"studies/{source.study}" + (f"/series/{source.series}" if source.series else ""))
