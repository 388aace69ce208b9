"""What one run of ``predict_many`` was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ._config import RetryConfig
from ._errors import StrokeClientError, error_from_closed
from ._exchange import ImageRequest, describe_source, load_request
from ._types import ImageInput, PredictionFailure


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
    retry: RetryConfig = RetryConfig()  # noqa: RUF009  # frozen
    is_closed: Callable[[], bool] = lambda: False
    """Whether the client has been closed meanwhile."""

    note_wait: Callable[[StrokeClientError], None] | None = None
    """Called with the failure when it is to be waited out."""

    def check_open(self) -> None:
        """Raises ClientClosedError when the client has been closed."""
        if self.is_closed():
            raise error_from_closed(self.target)

    def load(self, item: ImageInput, index: int) -> ImageRequest | PredictionFailure:
        """Reads one image; one that cannot be read is a failure already.

        Raises:
            TypeError: ``item`` is nothing that can be read as an image.
        """
        try:
            return load_request(item, self.max_image_bytes, model=self.model, version=self.version, index=index)
        except StrokeClientError as error:
            return PredictionFailure(describe_source(item), error, index)
