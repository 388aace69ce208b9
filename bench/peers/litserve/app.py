"""LitServe: its workers are processes that judge, behind one process that speaks HTTP."""

from typing import Any

import litserve
from fastapi import Request

from bench.peers.common import PORT, WORKERS, OnnxClassifier


class StrokeApi(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.classify = OnnxClassifier()

    def decode_request(self, request: Request) -> bytes:
        return request["file"].file.read()

    def predict(self, image: bytes) -> dict[str, Any]:
        return self.classify(image)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(StrokeApi(), accelerator="cpu", workers_per_device=WORKERS)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, log_level="warning", generate_client_file=False)
