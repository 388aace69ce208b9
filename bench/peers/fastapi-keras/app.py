"""The seed system: FastAPI around ``model.predict`` of the trained ``.h5`` file, one request at a time."""

import os

import tensorflow as tf
import uvicorn
from fastapi import FastAPI, UploadFile

from bench.peers.common import MODEL, PORT, THREADS, WORKERS, answer, decode

tf.config.threading.set_intra_op_parallelism_threads(THREADS)
app = FastAPI()
model = tf.keras.models.load_model(MODEL, compile=False)


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, str | float]:
    probabilities = model.predict(decode(await file.read()), verbose=0)
    return answer(probabilities[0])


if __name__ == "__main__":
    os.chdir(os.path.dirname(__file__))
    uvicorn.run("app:app", port=PORT, workers=WORKERS, log_level="warning")
