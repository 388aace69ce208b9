"""FastAPI around the OpenVINO runtime, with an inference request for each thread of FastAPI's pool."""

import os
import threading

import openvino
import uvicorn
from fastapi import FastAPI, UploadFile

from bench.peers.common import MODEL, PORT, PRECISION, THREADS, WORKERS, answer, decode

app = FastAPI()
# Streams are images judged at the same time.
config = {
    "NUM_STREAMS": str(1 if WORKERS > 1 or THREADS > 1 else os.cpu_count() or 1),
    "INFERENCE_NUM_THREADS": str(THREADS if WORKERS > 1 or THREADS > 1 else os.cpu_count() or 1),
}
if PRECISION == "fp32":  # otherwise it computes in bfloat16 where the processor can
    config["INFERENCE_PRECISION_HINT"] = "f32"
compiled = openvino.Core().compile_model(MODEL, "CPU", config)
channels = compiled.input(0).partial_shape[-1].get_length()
local = threading.local()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, str | float]:
    if not hasattr(local, "request"):
        local.request = compiled.create_infer_request()
    result = local.request.infer([decode(file.file.read(), channels)])
    return answer(result[0][0])


if __name__ == "__main__":
    os.chdir(os.path.dirname(__file__))
    uvicorn.run("app:app", port=PORT, workers=WORKERS, log_level="warning")
