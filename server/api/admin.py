"""``stroke.admin.v1.Admin``: how an operator changes what is served. Loaded with its first call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from proto import __version__, admin_pb2
from server.admission.call import ADMIN, Method
from server.api.rpc.boundary import RpcBoundary
from server.api.rpc.call import RpcCall, read_message
from server.core.shadow import Shadows
from server.errors import ChangeRefusedError, StrokeError
from server.models.activation import Activator, Report
from server.models.active import Release, read_active
from server.models.family import CANARY, SHADOW, STABLE, Family, Served
from server.models.registry import ModelRegistry
from server.models.repository import Found, examine, list_folders, sort_version

SERVICE_NAME = admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name
GET_STATUS = Method("GetStatus", ADMIN)
ACTIVATE, PROMOTE = Method("Activate", ADMIN), Method("Promote", ADMIN)
ROLL_BACK, UNLOAD = Method("RollBack", ADMIN), Method("Unload", ADMIN)
MOST_BYTES = 4096
"""Of a request: a name and a version."""

MOST_VERSIONS = 100
"""On the disk, that are shown: the newest ones."""

CHANNELS = {
    admin_pb2.CHANNEL_UNSPECIFIED: STABLE,
    admin_pb2.STABLE: STABLE,
    admin_pb2.CANARY: CANARY,
    admin_pb2.SHADOW: SHADOW,
}
NUMBERS = {STABLE: admin_pb2.STABLE, CANARY: admin_pb2.CANARY, SHADOW: admin_pb2.SHADOW}


@dataclass(frozen=True)
class AdminServicer:
    """See ``proto/admin.proto``."""

    activator: Activator
    registry: ModelRegistry
    shadows: Shadows
    address: str
    """Where the server listens."""

    def make_handlers(self, boundary: RpcBoundary) -> grpc.GenericRpcHandler:
        """What gRPC needs to know."""
        return boundary.make_handlers(
            SERVICE_NAME,
            {GET_STATUS: self._get_status},
            {
                ACTIVATE: self._activate,
                PROMOTE: partial(self._change, admin_pb2.PromoteRequest, self._promote),
                ROLL_BACK: partial(self._change, admin_pb2.RollBackRequest, self._roll_back),
                UNLOAD: partial(self._change, admin_pb2.UnloadRequest, self._unload),
            },
        )

    async def _get_status(self, call: RpcCall) -> bytes:
        await read(call, admin_pb2.GetStatusRequest)
        status = await asyncio.get_running_loop().run_in_executor(None, self.describe)
        data: bytes = status.SerializeToString()
        return data

    async def _activate(self, call: RpcCall) -> None:
        await self._change(admin_pb2.ActivateRequest, self._activate_now, call)

    def _activate_now(self, request: Any, report: Report) -> str:
        if request.channel not in CHANNELS:
            raise ChangeRefusedError("CHANNEL_INVALID", "There is no such channel.")
        channel = CHANNELS[request.channel]
        return self.activator.activate(request.name, request.version, channel, request.percent, report)

    def _promote(self, request: Any, report: Report) -> str:
        return self.activator.promote(request.name, report)

    def _roll_back(self, request: Any, report: Report) -> str:
        return self.activator.roll_back(request.name, report)

    def _unload(self, request: Any, report: Report) -> str:
        return self.activator.unload(request.name)

    async def _change(self, kind: Any, make: Callable[[Any, Report], str], call: RpcCall) -> None:
        """Makes a change in a thread of its own, and tells how far it is. It goes on when its caller has gone."""
        request = await read(call, kind)
        loop = asyncio.get_running_loop()
        steps: asyncio.Queue[Any] = asyncio.Queue()

        def tell(step: object) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(steps.put_nowait, step)

        def work() -> None:
            try:
                said = make(request, lambda text: tell(admin_pb2.Progress(text=text)))
            except Exception as error:
                tell(error)
            else:
                tell(admin_pb2.Progress(text=said, is_done=True))

        threading.Thread(target=work, name="activation", daemon=True).start()
        is_done = False
        while not is_done:
            step = await steps.get()
            if isinstance(step, Exception):
                raise step
            await call.context.write(step.SerializeToString())
            is_done = step.is_done

    def describe(self) -> Any:
        """What is served beside what is on the disk: ``Status``. Reads files.

        Raises:
            UnavailableError: reason SERVER_STARTING.
            ChangeRefusedError: the models folder, or what is active, cannot be read.
        """
        snapshot = self.registry.snapshot
        families = sorted(snapshot.families.values(), key=lambda family: family is not snapshot.default)
        seconds = sum(served.usage.seconds for family in families for _, served in family.channels)
        status = admin_pb2.Status(
            server_version=__version__, address=self.address, folder=str(self.activator.root.absolute())
        )
        try:
            active = read_active(self.activator.root)
            for family in families:
                entry = active.models.get(family.name)
                known = {release.version: release for release in entry.known} if entry else {}
                model = self._describe_family(family, known, seconds)
                model.is_default = family is snapshot.default
                model.history.extend(release.version for release in reversed(entry.history if entry else ()))
                status.models.append(model)
        except StrokeError as error:
            raise ChangeRefusedError(error.reason, error.message) from None
        for (name, channel), fault in self.registry.faults.items():
            status.failures.add(
                action="start", name=name, reason=fault.reason, message=f"The {channel} is not served: {fault.message}"
            )
        for failure in list(self.activator.failures):
            status.failures.add(**vars(failure))
        return status

    def _describe_family(self, family: Family, known: dict[str, Release], seconds: float) -> Any:
        root = self.activator.root
        channels = {served.release.version: (channel, served) for channel, served in family.channels}
        on_disk = sorted(list_folders(root / family.name), key=sort_version)[-MOST_VERSIONS:]
        versions = {*channels, *known, *on_disk}
        model = admin_pb2.Model(name=family.name, is_pinned=family.is_pinned)
        for version in sorted(versions, key=sort_version, reverse=True):
            channel, served = channels.get(version, ("", None))
            release = served.release if served else known.get(version)
            found = examine(root, family.name, version, release, has_bytes_read=served is not None)
            model.versions.append(describe_version(found, channel, served, family, seconds))
        if family.shadow is not None:
            model.shadow.CopyFrom(describe_shadow(self.shadows, family.shadow))
        return model


def describe_version(found: Found, channel: str, served: Served | None, family: Family, seconds: float) -> Any:
    """A line of the state: ``Version``."""
    version = admin_pb2.Version(
        version=found.version,
        channel=NUMBERS.get(channel, admin_pb2.CHANNEL_UNSPECIFIED),
        is_served=served is not None,
        on_disk=found.state,
        fault=found.fault,
        is_newer=served is None and sort_version(found.version) > sort_version(family.stable.release.version),
        release_digest=found.digest,
    )
    if served is not None:
        usage = served.usage
        version.model_digest = served.model.digest
        version.percent = family.percent if channel == CANARY else 0.0
        version.memory_bytes, version.images = served.memory_bytes, usage.images
        version.mean_inference_ms = 1000 * usage.seconds / max(1, usage.images)
        version.share = usage.seconds / seconds if seconds else 0.0
    return version


def describe_shadow(shadows: Shadows, shadow: Served) -> Any:
    """What a shadow has found: ``ShadowReport``."""
    report = shadows.report_on(shadow)
    return admin_pb2.ShadowReport(
        version=shadow.release.version,
        images=report.images,
        dropped=report.dropped,
        failed=report.failed,
        agreement=report.agreement,
        mean_difference=report.mean_difference,
        largest_difference=report.largest_difference,
        median_ms=report.median_ms,
        changes=[
            admin_pb2.LabelChange(**{"from": before, "to": after}, images=count)
            for (before, after), count in report.changes.most_common()
        ],
    )


async def read(call: RpcCall, kind: Any) -> Any:
    """The only message of a call, of the class ``kind``."""
    async with call.take_message() as message:
        return read_message(kind, MOST_BYTES, message.data)
