"""From answers to gRPC's messages of the protocol."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from proto import inference_pb2
from server.admission.status import Status
from server.oip.inference import InferAnswer
from server.oip.outputs import OutputTensor
from server.oip.request import Parameter

Response: TypeAlias = inference_pb2.ModelInferResponse
StreamResponse: TypeAlias = inference_pb2.ModelStreamInferResponse


def to_response(answer: InferAnswer) -> Response:
    """The message that an answer is; its elements are as those of the request were."""
    is_raw = answer.request.is_raw
    return Response(
        model_name=answer.model_name,
        model_version=answer.model_version,
        id=answer.request.id,
        parameters={name: to_parameter(value) for name, value in answer.parameters.items()},
        outputs=[to_tensor(output, with_contents=not is_raw) for output in answer.outputs],
        raw_output_contents=[output.to_raw() for output in answer.outputs] if is_raw else [],
    )


def to_parameter(value: Parameter) -> inference_pb2.InferParameter:
    """The value of a parameter, in the field of its type."""
    match value:
        case bool():
            return inference_pb2.InferParameter(bool_param=value)
        case int():
            return inference_pb2.InferParameter(int64_param=value)
        case float():
            return inference_pb2.InferParameter(double_param=value)
        case str():
            return inference_pb2.InferParameter(string_param=value)


def to_tensor(output: OutputTensor, *, with_contents: bool) -> Response.InferOutputTensor:
    """A tensor; its elements are in it or not."""
    tensor = Response.InferOutputTensor(name=output.name, datatype=output.datatype, shape=output.shape)
    match output.elements:
        case list() if with_contents:
            tensor.contents.bytes_contents.extend(output.elements)
        case np.ndarray() if with_contents:
            tensor.contents.fp32_contents.extend(output.elements.tolist())
    return tensor


def to_stream_response(outcome: InferAnswer | Status, request_id: str) -> StreamResponse:
    """One answer of a stream: clients tell by ``error_message`` alone whether a request failed."""
    if isinstance(outcome, Status):
        return StreamResponse(
            error_message=f"{outcome.reason}: {outcome.message}", infer_response=Response(id=request_id)
        )
    return StreamResponse(infer_response=to_response(outcome))
