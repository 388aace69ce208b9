"""The server as an application of Ray Serve: the very servicer, behind Ray's gRPC proxy, in as many processes as its
queue needs.

Clients need not know. What there is of a server beside ``stroke.v1`` and health checks, such as TLS, tokens, audit log,
metrics and HTTP, is not here. See docs/ray.md for what it costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import grpc

from cluster.models import PROCESSORS, load_registry
from cluster.serve_context import CallAborted, ServeContext, iterate_one
from server.admission.core import CALLS, make_core
from server.api.health import HEALTH_SERVICE, Health
from server.api.rpc.boundary import RpcBoundary
from server.api.service import SERVICE_NAME, StrokeServicer
from server.config import ServerConfig
from server.core.plan import make_plan
from server.core.study.rules_file import read_rules
from server.machine.memory import return_freed_memory

APPLICATION = "stroke"
UNARY = ("Predict", "Explain", "GetModel", "ListModels")


class Encoded(NamedTuple):
    """An answer that is bytes already, in the form of a message."""

    data: bytes

    def SerializeToString(self) -> bytes:
        """What Ray asks of messages."""
        return self.data


class StrokeApp:
    """One replica."""

    def __init__(self, config: ServerConfig) -> None:
        """Loads the models.

        Raises:
            ModelFileError: they cannot be loaded.
        """
        return_freed_memory(PROCESSORS)
        rules, registry = read_rules(config.study_rules), load_registry(config)
        core = make_core(config, make_plan(config, PROCESSORS), registry, rules, lambda: True)
        health = Health(SERVICE_NAME, core.inbox)
        health.set_serving()
        boundary = RpcBoundary(core.boundary, core.inbox)
        self._services = (StrokeServicer(core).make_handlers(boundary), health.make_handlers())

    async def Predict(self, request: bytes, grpc_context: Any) -> Encoded:
        """See ``proto/stroke.proto``, as with all of these."""
        return await self._answer(SERVICE_NAME, "Predict", iterate_one(request), grpc_context)

    async def Explain(self, request: bytes, grpc_context: Any) -> Encoded:
        """One image, with a heatmap."""
        return await self._answer(SERVICE_NAME, "Explain", iterate_one(request), grpc_context)

    async def GetModel(self, request: bytes, grpc_context: Any) -> Encoded:
        """What a model is."""
        return await self._answer(SERVICE_NAME, "GetModel", iterate_one(request), grpc_context)

    async def ListModels(self, request: bytes, grpc_context: Any) -> Encoded:
        """Which there are."""
        return await self._answer(SERVICE_NAME, "ListModels", iterate_one(request), grpc_context)

    async def PredictStudy(self, messages: Any, grpc_context: Any) -> Encoded:
        """The slices of a study."""
        return await self._answer(SERVICE_NAME, "PredictStudy", messages, grpc_context)

    async def PredictStream(self, messages: Any, grpc_context: Any) -> AsyncIterator[Encoded]:
        """Many images."""
        async for answer in self._stream("PredictStream", messages, grpc_context):
            yield answer

    async def PredictBatches(self, messages: Any, grpc_context: Any) -> AsyncIterator[Encoded]:
        """Many images, several a message."""
        async for answer in self._stream("PredictBatches", messages, grpc_context):
            yield answer

    async def Check(self, request: bytes, grpc_context: Any) -> Encoded:
        """Health of a replica, whichever is asked."""
        return await self._answer(HEALTH_SERVICE, "Check", iterate_one(request), grpc_context)

    def _find(self, service: str, method: str) -> Any:
        """gRPC's handler of a method."""
        call = CallDetails(f"/{service}/{method}")
        return next(found for one in self._services if (found := one.service(call)) is not None)

    async def _answer(self, service: str, method: str, messages: AsyncIterator[bytes], call: Any) -> Encoded:
        """Serves a call with one answer."""
        context = ServeContext(call, messages)
        try:
            return Encoded(await self._find(service, method).stream_unary(messages, context))
        except CallAborted:  # with an exception Ray would send no trailing metadata, and so no reason
            return Encoded(b"")

    async def _stream(self, method: str, messages: AsyncIterator[bytes], call: Any) -> AsyncIterator[Encoded]:
        """Serves a call with many answers."""
        context = ServeContext(call, messages)

        async def serve() -> None:
            try:
                await self._find(SERVICE_NAME, method).stream_stream(messages, context)
            finally:
                await context.answers.put(None)

        serving = asyncio.create_task(serve())
        try:
            while (answer := await context.answers.get()) is not None:
                yield Encoded(answer)
            await serving  # an error of the stream, by which Ray tells its code and sentence
        finally:
            serving.cancel()


class CallDetails(NamedTuple):
    """See ``grpc.HandlerCallDetails``."""

    method: str
    invocation_metadata: tuple[()] = ()


def add_services(servicer: Any, server: Any) -> None:
    """What Ray's proxy needs to know of the methods: their forms, and that it is to leave their messages as they are.

    ``Watch`` of health is not among them: a watch would be a call that never ends, which counts for the queue, and
    clients take a server without it for healthy as long as it is there.
    """
    unary = grpc.unary_unary_rpc_method_handler
    methods = dict.fromkeys(UNARY, unary(None)) | {
        "PredictStudy": grpc.stream_unary_rpc_method_handler(None),
        "PredictStream": grpc.stream_stream_rpc_method_handler(None),
        "PredictBatches": grpc.stream_stream_rpc_method_handler(None),
    }
    for service, handlers in ((SERVICE_NAME, methods), (HEALTH_SERVICE, {"Check": unary(None)})):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def make_application(config: ServerConfig, replicas: Mapping[str, float]) -> Any:
    """The application, for ``ray.serve.run``; ``replicas`` is Ray's ``AutoscalingConfig``: how many processes there
    are."""
    from ray import serve

    deployment = serve.deployment(
        StrokeApp,
        name=APPLICATION,
        ray_actor_options={"num_cpus": PROCESSORS},
        max_ongoing_requests=CALLS,
        autoscaling_config=dict(replicas),
    )
    return deployment.bind(config)
