"""What a program with tritonclient does over gRPC, unmodified. Run in its environment: prints what came as JSON.

Arguments: address, file of a CA or nothing, token or nothing, and encoded images.
"""

import json
import queue
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as client
from tritonclient.grpc import model_config_pb2, service_pb2

MODEL = "tiny"


def read_fields():
    """Number, type and label of every field of every message, by name; numbers of methods' messages."""
    found = {}
    for file in (service_pb2, model_config_pb2):
        todo = list(file.DESCRIPTOR.message_types_by_name.values())
        while todo:
            message = todo.pop()
            todo += message.nested_types
            found |= {field.full_name: [field.number, field.type] for field in message.fields}
        for enum in file.DESCRIPTOR.enum_types_by_name.values():
            found |= {f"{enum.full_name}.{value.name}": [value.number, 0] for value in enum.values}
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                kinds = (method.input_type.full_name, method.output_type.full_name)
                found[method.full_name] = [*kinds, method.client_streaming]
    return found


def texts(result, name):
    """Elements of an output as text."""
    return [text.decode() for text in result.as_numpy(name).ravel()]


address, authority, token, *files = sys.argv[1:]
images = [Path(file).read_bytes() for file in files]
headers = {"authorization": f"Bearer {token}"} if token else None
server = client.InferenceServerClient(address, ssl=bool(authority), root_certificates=authority or None)
told = {
    "live": server.is_server_live(headers=headers),
    "ready": server.is_server_ready(headers=headers),
    "model_ready": server.is_model_ready(MODEL, "1", headers=headers),
    "other_ready": server.is_model_ready("other", headers=headers),
    "server": server.get_server_metadata(headers=headers, as_json=True),
    "model": server.get_model_metadata(MODEL, headers=headers, as_json=True),
    "config": server.get_model_config(MODEL, headers=headers, as_json=True),
    "index": server.get_model_repository_index(headers=headers, as_json=True),
    "fields": read_fields(),
}

encoded = client.InferInput("image", [len(images)], "BYTES")
encoded.set_data_from_numpy(np.array(images, dtype=np.object_))
result = server.infer(
    MODEL, [encoded], model_version="1", request_id="x-1", priority=1, timeout=20_000_000, headers=headers
)
told["answer"] = {
    "id": result.get_response().id,
    "version": result.get_response().model_version,
    "probabilities": result.as_numpy("probabilities").tolist(),
    "label": texts(result, "label"),
    "status": texts(result, "status"),
    "image_sha256": texts(result, "image_sha256"),
    "threshold": result.get_response().parameters["threshold"].double_param,
}
classes = [client.InferRequestedOutput("probabilities", class_count=1)]
result = server.infer(MODEL, [encoded], outputs=classes, headers=headers, compression_algorithm="gzip")
told["classes"] = texts(result, "probabilities")

pixels = np.full((2, 96, 96, 3), 200, np.uint8)
tensor = client.InferInput("image", pixels.shape, "UINT8")
tensor.set_data_from_numpy(pixels)
told["pixels"] = texts(server.infer(MODEL, [tensor], headers=headers), "label")

broken = client.InferInput("image", [2], "BYTES")
broken.set_data_from_numpy(np.array([images[0], b"no image"], dtype=np.object_))
try:
    server.infer(MODEL, [broken], headers=headers)
except client.InferenceServerException as error:
    told["error"] = [error.status(), error.message()]

answers = queue.Queue()
server.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
for number in range(6):
    server.async_stream_infer(MODEL, [broken if number == 3 else encoded], request_id=str(number))
server.stop_stream()
told["stream"] = []
while not answers.empty():
    result, error = answers.get()
    told["stream"].append(error.message() if error else result.get_response().id)

print(json.dumps(told))
