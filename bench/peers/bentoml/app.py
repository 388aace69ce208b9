"""BentoML: its workers are processes; without ``threads`` each of them judges one image at a time."""

from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType

from bench.peers.common import WORKERS, OnnxClassifier


@bentoml.service(workers=WORKERS, threads=2 if WORKERS == 1 else 1)
class Stroke:
    def __init__(self) -> None:
        self.classify = OnnxClassifier()

    @bentoml.api(route="/predict")
    def predict(self, file: Annotated[Path, ContentType("image/*")]) -> dict[str, Any]:
        return self.classify(file.read_bytes())
