"""``stroke.v1.StrokeService`` over the transport-free core: which method is served by what, and nothing else."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc

from proto import stroke_pb2
from server.admission.call import READ, Method
from server.admission.core import Core
from server.admission.status import Status
from server.api.messages import BATCHES, SINGLES, Answer, encode_explanation, encode_response, to_answer, to_model
from server.api.rpc.boundary import RpcBoundary
from server.api.rpc.call import RpcCall, read_message
from server.api.rpc.stream import Stream, StreamForm
from server.api.study import encode_study, take_slice
from server.core.capacity import STREAM_IMAGES, STREAM_SHARE, find_message_bytes

SERVICE_NAME = stroke_pb2.DESCRIPTOR.services_by_name["StrokeService"].full_name

PREDICT, EXPLAIN = Method("Predict", images=1), Method("Explain", images=1)
PREDICT_STREAM, PREDICT_BATCHES = Method("PredictStream"), Method("PredictBatches")
PREDICT_STUDY = Method("PredictStudy")
GET_MODEL, LIST_MODELS = Method("GetModel", READ), Method("ListModels", READ)


class StrokeServicer:
    """See ``proto/stroke.proto``."""

    def __init__(self, core: Core) -> None:
        self._registry, self._plan = core.detector.registry, core.detector.plan
        self._judge = core.judge
        self._streams, self._studies = core.streams, core.studies
        self._config = core.config
        self._read_predict = partial(read_message, stroke_pb2.PredictRequest, core.config.most_message_bytes)

    def make_handlers(self, boundary: RpcBoundary) -> grpc.GenericRpcHandler:
        """What gRPC needs to know."""
        return boundary.make_handlers(
            SERVICE_NAME,
            {
                PREDICT: self._predict,
                EXPLAIN: self._explain,
                PREDICT_STUDY: self._predict_study,
                GET_MODEL: self._get_model,
                LIST_MODELS: self._list_models,
            },
            {PREDICT_STREAM: self._predict_stream, PREDICT_BATCHES: self._predict_batches},
        )

    async def _predict(self, call: RpcCall) -> bytes | Status:
        return await self._judge.answer(call, self._read_predict, encode_response)

    async def _explain(self, call: RpcCall) -> bytes | Status:
        return await self._judge.answer(call, self._read_predict, encode_explanation, explains=True)

    async def _predict_stream(self, call: RpcCall) -> None:
        await self._serve_stream(call, SINGLES)

    async def _predict_batches(self, call: RpcCall) -> None:
        await self._serve_stream(call, BATCHES)

    async def _predict_study(self, call: RpcCall) -> bytes | Status:
        take = partial(take_slice, call, self._config.most_message_bytes)
        return await self._studies.answer(call, take, encode_study)

    async def _get_model(self, call: RpcCall) -> bytes:
        request = await self._read(call, stroke_pb2.GetModelRequest)
        model = self._registry.get(request.model_name, request.model_version)
        return encode(to_model(model, self._registry.default, self._plan, model_card=model.spec.model_card))

    async def _list_models(self, call: RpcCall) -> bytes:
        await self._read(call, stroke_pb2.ListModelsRequest)
        models = [to_model(model, self._registry.default, self._plan) for model in self._registry]
        return encode(stroke_pb2.ListModelsResponse(models=models))

    async def _read(self, call: RpcCall, kind: Any) -> Any:
        """The only message of a call, of the class ``kind``."""
        async with call.take_message() as message:
            return read_message(kind, self._config.most_message_bytes, message.data)

    async def _serve_stream(self, call: RpcCall, form: StreamForm[stroke_pb2.PredictRequest, Answer]) -> None:
        stream = Stream(
            call,
            form,
            lambda request: self._judge.start(request, call, to_answer),
            # So many that no worker waits for the network between two images of one stream.
            window=STREAM_IMAGES * self._plan.workers,
            window_bytes=find_message_bytes(self._config) // STREAM_SHARE,
            idle_seconds=self._config.stream_idle_seconds,
            most_bytes=self._config.most_message_bytes,
            most_seconds=self._config.most_connection_seconds,
        )
        if call.permit is not None:
            call.permit.on_end = stream.end
        await self._streams.run(stream)


def encode(message: Any) -> bytes:
    """The bytes of a message."""
    data: bytes = message.SerializeToString()
    return data
