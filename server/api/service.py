"""``stroke.v1.StrokeService`` over the transport-free core: which method is served by what, and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from proto import stroke_pb2
from server.api.calls import Call
from server.api.interceptors import Behaviour, CallBoundary, Status
from server.api.judgement import Judge
from server.api.messages import BATCHES, SINGLES, StreamForm, inflate, parse, to_model
from server.api.stream import Stream, StreamPlaces
from server.config import ServerConfig
from server.core.detector import Detector
from server.core.outcomes import Journal
from server.errors import UnavailableError

SERVICE_NAME = stroke_pb2.DESCRIPTOR.services_by_name["StrokeService"].full_name
RETRY_SECONDS = 1.0
"""Hint to those who meet a server that starts or stops."""


class StrokeServicer:
    """See ``proto/stroke.proto``."""

    def __init__(self, detector: Detector, config: ServerConfig, journal: Journal) -> None:
        self._registry, self._plan = detector.registry, detector.plan
        self._judge = Judge(detector, config, journal)
        self._streams = StreamPlaces(config.streams)
        self._config = config

    def make_handlers(self, boundary: CallBoundary) -> grpc.GenericRpcHandler:
        """What gRPC needs to know. All methods take streams of messages: so a message is taken in only when its call
        has a place, and a call whose message does not come costs no thread."""
        unary: dict[str, Behaviour] = {
            "Predict": self._predict,
            "GetModel": self._get_model,
            "ListModels": self._list_models,
        }
        streams: dict[str, Behaviour] = {
            "PredictStream": self._predict_stream,
            "PredictBatches": self._predict_batches,
        }
        handlers = {
            name: grpc.stream_unary_rpc_method_handler(boundary.wrap(name, behaviour))
            for name, behaviour in unary.items()
        } | {
            name: grpc.stream_stream_rpc_method_handler(boundary.wrap(name, behaviour))
            for name, behaviour in streams.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    @property
    def open_streams(self) -> int:
        """Streams that have a place."""
        return self._streams.open

    def end_streams(self) -> None:
        """Ends all streams as those of a server that stops."""
        self._streams.end_all(stopping_server())

    async def _predict(self, call: Call) -> bytes | Status:
        return await self._judge.answer(call)

    async def _predict_stream(self, call: Call) -> None:
        await self._serve_stream(call, SINGLES)

    async def _predict_batches(self, call: Call) -> None:
        await self._serve_stream(call, BATCHES)

    async def _get_model(self, call: Call) -> bytes:
        request = await self._read(call, stroke_pb2.GetModelRequest)
        model = self._registry.get(request.model_name, request.model_version)
        return encode(to_model(model, self._registry.default, self._plan, model_card=model.spec.model_card))

    async def _list_models(self, call: Call) -> bytes:
        await self._read(call, stroke_pb2.ListModelsRequest)
        models = [to_model(model, self._registry.default, self._plan) for model in self._registry]
        return encode(stroke_pb2.ListModelsResponse(models=models))

    async def _read(self, call: Call, kind: Any) -> Any:
        """The only message of a call, of the class ``kind``."""
        async with call.take_message() as message:
            return parse(kind, inflate(message.data, self._config.most_message_bytes))

    async def _serve_stream(self, call: Call, form: StreamForm) -> None:
        stream = Stream(
            call,
            form,
            lambda request: self._judge.start(request, call),
            # So many that no worker waits for the network between two images of one stream.
            window=3 * self._plan.workers,
            idle_seconds=self._config.stream_idle_seconds,
            most_bytes=self._config.most_message_bytes,
        )
        if call.permit is not None:
            call.permit.on_end = stream.end
        await self._streams.run(stream)


def encode(message: Any) -> bytes:
    """The bytes of a message."""
    data: bytes = message.SerializeToString()
    return data


def stopping_server() -> UnavailableError:
    return UnavailableError(
        "SERVER_STOPPING", "The server is stopping: send the rest again elsewhere.", retry_after=RETRY_SECONDS
    )
