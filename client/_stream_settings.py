"""What one run of ``predict_many`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from client._errors import StrokeClientError
from client._exchange import ImageRequest, describe_source, load_request
from client._types import ImageInput, PredictionFailure


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """What one run was asked for, checked."""

    timeout: float
    in_flight: int
    ordered: bool
    model: str
    version: str
    max_image_bytes: int
    target: str

    def load(self, item: ImageInput, index: int) -> ImageRequest | PredictionFailure:
        """Reads one image; one that cannot be read is a failure already.

        Raises:
            TypeError: ``item`` is nothing that can be read as an image.
        """
        try:
            return load_request(item, self.max_image_bytes, model=self.model, version=self.version, index=index)
        except StrokeClientError as error:
            return PredictionFailure(describe_source(item), error, index)
