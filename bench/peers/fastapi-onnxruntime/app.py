"""FastAPI around ONNX Runtime. FastAPI runs a plain ``def`` in its thread pool: one process uses all processors."""

import os

import uvicorn
from fastapi import FastAPI, UploadFile

from bench.peers.common import PORT, WORKERS, OnnxClassifier

app = FastAPI()
classify = OnnxClassifier()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, str | float]:
    return classify(file.file.read())


if __name__ == "__main__":
    os.chdir(os.path.dirname(__file__))
    uvicorn.run("app:app", port=PORT, workers=WORKERS, log_level="warning")
