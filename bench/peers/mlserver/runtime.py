"""MLServer with a custom runtime: the image comes as bytes in an Open Inference Protocol tensor."""

import asyncio
import json
import logging

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from bench.peers.common import OnnxClassifier


class StrokeRuntime(MLModel):
    async def load(self) -> bool:
        logging.getLogger("mlserver.grpc").setLevel(logging.WARNING)  # a line for each request otherwise
        self._classify = OnnxClassifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (image,) = payload.inputs[0].data
        # In a thread, so that one process uses all processors.
        result = await asyncio.to_thread(self._classify, image)
        output = ResponseOutput(name="answer", shape=[1], datatype="BYTES", data=[json.dumps(result).encode()])
        return InferenceResponse(model_name=self.name, outputs=[output])
