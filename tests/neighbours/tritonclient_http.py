"""What a program with tritonclient does over HTTP, unmodified. Run in its environment: prints what came as JSON.

Arguments: address, file of a CA or nothing, token or nothing, and encoded images.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as client

MODEL = "tiny"


def texts(result, name):
    """Elements of an output as text."""
    return [text if isinstance(text, str) else text.decode() for text in result.as_numpy(name).ravel()]


def make_headers():
    """For one call: tritonclient leaves in them what it adds, which would be wrong for the next one."""
    return {"authorization": f"Bearer {token}"} if token else None


address, authority, token, *files = sys.argv[1:]
images = [Path(file).read_bytes() for file in files]
tls = {"ssl": True, "ssl_options": {"ca_certs": authority}} if authority else {}
server = client.InferenceServerClient(address, **tls)
told = {
    "live": server.is_server_live(headers=make_headers()),
    "ready": server.is_server_ready(headers=make_headers()),
    "model_ready": server.is_model_ready(MODEL, "1", headers=make_headers()),
    "other_ready": server.is_model_ready("other", headers=make_headers()),
    "server": server.get_server_metadata(headers=make_headers()),
    "model": server.get_model_metadata(MODEL, "1", headers=make_headers()),
    "config": server.get_model_config(MODEL, headers=make_headers()),
    "index": server.get_model_repository_index(headers=make_headers()),
}

encoded = client.InferInput("image", [len(images), 1], "BYTES")
encoded.set_data_from_numpy(np.array(images, dtype=np.object_).reshape(-1, 1))
result = server.infer(
    MODEL, [encoded], model_version="1", request_id="x-1", priority=1, timeout=20_000_000, headers=make_headers()
)
told["answer"] = {
    "id": result.get_response()["id"],
    "version": result.get_response()["model_version"],
    "probabilities": result.as_numpy("probabilities").tolist(),
    "label": texts(result, "label"),
    "status": texts(result, "status"),
    "image_sha256": texts(result, "image_sha256"),
    "threshold": result.get_response()["parameters"]["threshold"],
}
classes = [
    client.InferRequestedOutput("probabilities", class_count=1),
    client.InferRequestedOutput("label", binary_data=False),
]
result = server.infer(MODEL, [encoded], outputs=classes, headers=make_headers(), request_compression_algorithm="gzip")
told["classes"] = texts(result, "probabilities")
told["json_label"] = texts(result, "label")

pixels = np.full((2, 96, 96, 3), 200, np.uint8)
told["pixels"] = []
for is_binary in (True, False):
    tensor = client.InferInput("image", pixels.shape, "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=is_binary)
    told["pixels"] += texts(server.infer(MODEL, [tensor], headers=make_headers()), "label")

broken = client.InferInput("image", [2], "BYTES")
broken.set_data_from_numpy(np.array([images[0], b"no image"], dtype=np.object_))
told["errors"] = []
for wrong in (
    lambda: server.infer(MODEL, [broken], headers=make_headers()),
    lambda: server.infer("other", [encoded], headers=make_headers()),
    lambda: server.get_inference_statistics(headers=make_headers()),
):
    try:
        wrong()
    except client.InferenceServerException as error:
        told["errors"].append([error.status(), error.message()])

print(json.dumps(told))
