"""What a program with the kserve SDK does, over gRPC and HTTP, unmodified. Run in its environment: prints JSON.

Arguments: address of gRPC, URL of HTTP, and encoded images.
"""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

MODEL = "tiny"


def describe(response):
    """What the outputs hold."""
    outputs = {output.name: output for output in response.outputs}
    return {
        "probabilities": np.array(outputs["probabilities"].as_numpy()).tolist(),
        "label": [text if isinstance(text, str) else text.decode() for text in outputs["label"].as_numpy().ravel()],
    }


def make_request(tensor, **options):
    return InferRequest(model_name=MODEL, request_id="x-1", infer_inputs=[tensor], **options)


def make_raw(images):
    """A tensor whose elements are sent as bytes."""
    tensor = InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_))
    return tensor


async def main(address, url, *files):
    images = [Path(file).read_bytes() for file in files]
    grpc = InferenceGRPCClient(address)
    told = {
        "grpc_health": [
            await grpc.is_server_live(),
            await grpc.is_server_ready(),
            await grpc.is_model_ready(MODEL),
            await grpc.is_model_ready("other"),
        ],
        "contents": describe(await grpc.infer(make_request(InferInput("image", [len(images)], "BYTES", data=images)))),
        "raw": describe(await grpc.infer(make_request(make_raw(images)))),
    }
    pixels = InferInput("image", [1, 96, 96, 1], "UINT8", data=[200] * 96 * 96)
    told["pixels"] = describe(await grpc.infer(make_request(pixels)))["label"]
    await grpc.close()
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    told["http_health"] = [
        await rest.is_server_live(url),
        await rest.is_server_ready(url),
        await rest.is_model_ready(url, MODEL),
        await rest.is_model_ready(url, "other"),
    ]
    for name, parameters in (("http", None), ("http_binary", {"binary_data_output": True})):
        request = make_request(make_raw(images), parameters=parameters)
        told[name] = describe(await rest.infer(url, request, model_name=MODEL))
    await rest.close()
    print(json.dumps(told))


asyncio.run(main(*sys.argv[1:]))
