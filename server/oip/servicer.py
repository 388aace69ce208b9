"""``inference.GRPCInferenceService`` over the transport-free core, beside stroke.v1: see ``proto/inference.proto``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from proto import inference_pb2 as pb
from server.admission.call import ANYBODY, KNOWN, READ, Method
from server.admission.judge import MOST_IMAGES
from server.admission.places import StreamPlaces
from server.admission.status import Status, to_status
from server.api.rpc.boundary import RpcBehaviour, RpcBoundary
from server.api.rpc.call import RpcCall, read_message
from server.api.rpc.stream import Stream, StreamForm
from server.config import ServerConfig
from server.core.capacity import STREAM_IMAGES, STREAM_SHARE, find_message_bytes
from server.core.detector import Detector
from server.errors import ModelNotFoundError, RequestError, UnavailableError, malformed_request
from server.models.registry import ModelRegistry
from server.oip.inference import InferAnswer, Inference
from server.oip.messages import StreamResponse, to_response, to_stream_response
from server.oip.metadata import describe_config, describe_model, describe_repository, describe_server, list_versions
from server.oip.request import InferRequest
from server.oip.wire import read_request

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

MODEL_INFER, MODEL_STREAM_INFER = Method("ModelInfer"), Method("ModelStreamInfer")

CHECK_SECONDS = 5.0
"""A check whose message has not come by then is ended."""

MOST_SMALL_BYTES = 4096
"""Of a message that asks for no judgement: the name of a model and a version."""


@dataclass(frozen=True)
class StreamRequest:
    """A message of a stream."""

    request: InferRequest
    error: RequestError | None = None
    """Why it is none; None: it is one."""

    @property
    def images(self) -> int:
        """How many it has, as far as that can be told before they are looked at."""
        sizes = [tensor.shape[0] for tensor in self.request.inputs if tensor.shape]
        return min(max(1, *sizes), MOST_IMAGES) if sizes else 1


class InferenceServicer:
    """See ``proto/inference.proto``."""

    def __init__(
        self,
        detector: Detector,
        inference: Inference,
        streams: StreamPlaces,
        config: ServerConfig,
        *,
        is_serving: Callable[[], bool],
    ) -> None:
        self._registry, self._plan = detector.registry, detector.plan
        self._inference = inference
        self._streams = streams
        self._config = config
        self._is_serving = is_serving

    def make_handlers(self, boundary: RpcBoundary, checks: RpcBoundary) -> tuple[grpc.GenericRpcHandler, ...]:
        """What gRPC needs to know.

        Args:
            boundary: around calls.
            checks: around health checks, which have places of their own.
        """
        role = KNOWN if self._config.health == "token" else ANYBODY
        asked: dict[Method, RpcBehaviour] = {
            Method("ServerMetadata", READ): partial(self._tell, pb.ServerMetadataRequest, self._describe_server),
            Method("ModelMetadata", READ): partial(self._tell, pb.ModelMetadataRequest, self._describe_model),
            Method("ModelConfig", READ): partial(self._tell, pb.ModelConfigRequest, self._describe_config),
            Method("RepositoryIndex", READ): partial(self._tell, pb.RepositoryIndexRequest, self._describe_repository),
        }
        checked: dict[Method, RpcBehaviour] = {
            Method("ServerLive", role): partial(self._tell, pb.ServerLiveRequest, self._is_live),
            Method("ServerReady", role): partial(self._tell, pb.ServerReadyRequest, self._is_ready),
            Method("ModelReady", role): partial(self._tell, pb.ModelReadyRequest, self._is_model_ready),
        }
        return (
            boundary.make_handlers(
                SERVICE_NAME, {MODEL_INFER: self._infer, **asked}, {MODEL_STREAM_INFER: self._infer_stream}
            ),
            checks.make_handlers(SERVICE_NAME, checked, {}),
        )

    async def _tell(self, kind: Any, answer: Callable[[Any], Any], call: RpcCall) -> bytes:
        """Answers a small message of the class ``kind``."""
        async with call.take_message(CHECK_SECONDS, tiny=MOST_SMALL_BYTES) as message:
            if len(message.data) > MOST_SMALL_BYTES:
                raise malformed_request()
            request = read_message(kind, MOST_SMALL_BYTES, message.data)
        encoded: bytes = answer(request).SerializeToString()
        return encoded

    def _is_live(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    def _is_ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._is_serving())

    def _is_model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(
            ready=self._is_serving() and has_model(self._registry, request.name, request.version)
        )

    def _describe_server(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(**describe_server(with_http=bool(self._config.http)))

    def _describe_model(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        model = self._registry.get(request.name, request.version)
        return pb.ModelMetadataResponse(**describe_model(model, list_versions(self._registry, model)))

    def _describe_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        model = self._registry.get(request.name, request.version)
        return pb.ModelConfigResponse(config=pb.ModelConfig(**describe_config(model)))

    def _describe_repository(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        return pb.RepositoryIndexResponse(models=describe_repository(self._registry))

    async def _infer(self, call: RpcCall) -> bytes | Status:
        answer = await self._inference.answer(call, read_request)
        if isinstance(answer, Status):
            return answer
        encoded: bytes = to_response(answer).SerializeToString()
        return encoded

    async def _infer_stream(self, call: RpcCall) -> None:
        stream = Stream(
            call,
            STREAM_FORM,
            lambda message: self._start(call, message),
            # So many that no worker waits for the network between two requests of one stream.
            window=STREAM_IMAGES * self._plan.workers,
            window_bytes=find_message_bytes(self._config) // STREAM_SHARE,
            idle_seconds=self._config.stream_idle_seconds,
            most_bytes=self._config.most_message_bytes,
            most_seconds=self._config.most_connection_seconds,
        )
        if call.permit is not None:
            call.permit.on_end = stream.end
        await self._streams.run(stream)

    def _start(self, call: RpcCall, message: StreamRequest) -> asyncio.Future[StreamResponse]:
        """Starts the work on one message of a stream, which nobody holds from then on."""
        if message.error is not None:
            outcome: asyncio.Future[InferAnswer | Status] = asyncio.get_running_loop().create_future()
            outcome.set_result(to_status(message.error, ""))
        else:
            outcome = self._inference.start(call, message.request)
        return asyncio.ensure_future(finish(outcome, message.request.id))


async def finish(outcome: asyncio.Future[InferAnswer | Status], request_id: str) -> StreamResponse:
    """The answer of a stream, as soon as it is known what came of a request."""
    return to_stream_response(await outcome, request_id)


def has_model(registry: ModelRegistry, name: str, version: str) -> bool:
    """Whether a model is served."""
    try:
        registry.get(name, version)
    except (ModelNotFoundError, UnavailableError):
        return False
    return True


def read_stream_message(data: bytes) -> list[StreamRequest]:
    """What a message of a stream says; one that says nothing is answered, too."""
    try:
        return [StreamRequest(read_request(data))]
    except RequestError as error:
        return [StreamRequest(InferRequest(), error)]


STREAM_FORM: StreamForm[StreamRequest, StreamResponse] = StreamForm(
    read_stream_message,
    lambda answers: answers[0].SerializeToString(),
    lambda answer: not answer.error_message,
    lambda request: request.images,
)
"""Of ModelStreamInfer: one request and one answer a message."""
