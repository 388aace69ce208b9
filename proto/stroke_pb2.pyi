from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PredictRequest(_message.Message):
    __slots__ = ("image", "model_name", "model_version", "image_sha256", "id", "frame")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    model_name: str
    model_version: str
    image_sha256: str
    id: str
    frame: int
    def __init__(self, image: _Optional[bytes] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., image_sha256: _Optional[str] = ..., id: _Optional[str] = ..., frame: _Optional[int] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("id", "label", "confidence", "scores", "threshold", "model_name", "model_version", "model_digest", "image_sha256", "timings", "warnings", "positive_label", "positive_probability", "status", "reasons", "channel", "outlier_score", "positive_labels")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[PredictResponse.Status]
        ANALYSED: _ClassVar[PredictResponse.Status]
        NOT_ANALYSED: _ClassVar[PredictResponse.Status]
    STATUS_UNSPECIFIED: PredictResponse.Status
    ANALYSED: PredictResponse.Status
    NOT_ANALYSED: PredictResponse.Status
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_LABEL_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    OUTLIER_SCORE_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_LABELS_FIELD_NUMBER: _ClassVar[int]
    id: str
    label: str
    confidence: float
    scores: _containers.RepeatedCompositeFieldContainer[ClassScore]
    threshold: float
    model_name: str
    model_version: str
    model_digest: str
    image_sha256: str
    timings: Timings
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    positive_label: str
    positive_probability: float
    status: PredictResponse.Status
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    channel: str
    outlier_score: float
    positive_labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., label: _Optional[str] = ..., confidence: _Optional[float] = ..., scores: _Optional[_Iterable[_Union[ClassScore, _Mapping]]] = ..., threshold: _Optional[float] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., model_digest: _Optional[str] = ..., image_sha256: _Optional[str] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ..., positive_label: _Optional[str] = ..., positive_probability: _Optional[float] = ..., status: _Optional[_Union[PredictResponse.Status, str]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., channel: _Optional[str] = ..., outlier_score: _Optional[float] = ..., positive_labels: _Optional[_Iterable[str]] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ClassScore(_message.Message):
    __slots__ = ("label", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    probability: float
    def __init__(self, label: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("decode_ms", "queue_ms", "inference_ms")
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_MS_FIELD_NUMBER: _ClassVar[int]
    decode_ms: float
    queue_ms: float
    inference_ms: float
    def __init__(self, decode_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., inference_ms: _Optional[float] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class PredictStreamResponse(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: PredictResponse
    error: PredictError
    def __init__(self, response: _Optional[_Union[PredictResponse, _Mapping]] = ..., error: _Optional[_Union[PredictError, _Mapping]] = ...) -> None: ...

class PredictBatchesRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[PredictRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[PredictRequest, _Mapping]]] = ...) -> None: ...

class PredictBatchesResponse(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[PredictStreamResponse]
    def __init__(self, responses: _Optional[_Iterable[_Union[PredictStreamResponse, _Mapping]]] = ...) -> None: ...

class PredictError(_message.Message):
    __slots__ = ("id", "code", "reason", "message", "retry_after_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    code: int
    reason: str
    message: str
    retry_after_ms: int
    def __init__(self, id: _Optional[str] = ..., code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class PredictStudyRequest(_message.Message):
    __slots__ = ("image", "model_name", "model_version", "image_sha256", "id", "study_id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    STUDY_ID_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    model_name: str
    model_version: str
    image_sha256: str
    id: str
    study_id: str
    def __init__(self, image: _Optional[bytes] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., image_sha256: _Optional[str] = ..., id: _Optional[str] = ..., study_id: _Optional[str] = ...) -> None: ...

class PredictStudyResponse(_message.Message):
    __slots__ = ("id", "status", "reasons", "label", "positive_label", "score", "threshold", "top_k", "first_look_id", "first_look_frame", "slices", "series", "left_out", "failures", "warnings", "model_name", "model_version", "model_digest", "study_instance_uid", "positive_labels")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    FIRST_LOOK_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_LOOK_FRAME_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STUDY_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_LABELS_FIELD_NUMBER: _ClassVar[int]
    id: str
    status: PredictResponse.Status
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    label: str
    positive_label: str
    score: float
    threshold: float
    top_k: int
    first_look_id: str
    first_look_frame: int
    slices: _containers.RepeatedCompositeFieldContainer[StudySlice]
    series: Series
    left_out: _containers.RepeatedCompositeFieldContainer[Series]
    failures: _containers.RepeatedCompositeFieldContainer[StudySlice]
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    model_name: str
    model_version: str
    model_digest: str
    study_instance_uid: str
    positive_labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., status: _Optional[_Union[PredictResponse.Status, str]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., label: _Optional[str] = ..., positive_label: _Optional[str] = ..., score: _Optional[float] = ..., threshold: _Optional[float] = ..., top_k: _Optional[int] = ..., first_look_id: _Optional[str] = ..., first_look_frame: _Optional[int] = ..., slices: _Optional[_Iterable[_Union[StudySlice, _Mapping]]] = ..., series: _Optional[_Union[Series, _Mapping]] = ..., left_out: _Optional[_Iterable[_Union[Series, _Mapping]]] = ..., failures: _Optional[_Iterable[_Union[StudySlice, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., model_digest: _Optional[str] = ..., study_instance_uid: _Optional[str] = ..., positive_labels: _Optional[_Iterable[str]] = ...) -> None: ...

class StudySlice(_message.Message):
    __slots__ = ("id", "frame", "sop_instance_uid", "position_mm", "positive_probability", "status", "reasons", "image_sha256", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    SOP_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    POSITION_MM_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    frame: int
    sop_instance_uid: str
    position_mm: float
    positive_probability: float
    status: PredictResponse.Status
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    image_sha256: str
    error: PredictError
    def __init__(self, id: _Optional[str] = ..., frame: _Optional[int] = ..., sop_instance_uid: _Optional[str] = ..., position_mm: _Optional[float] = ..., positive_probability: _Optional[float] = ..., status: _Optional[_Union[PredictResponse.Status, str]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., image_sha256: _Optional[str] = ..., error: _Optional[_Union[PredictError, _Mapping]] = ...) -> None: ...

class Series(_message.Message):
    __slots__ = ("series_instance_uid", "slices", "reason", "message", "spacing_mm", "tilt_degrees")
    SERIES_INSTANCE_UID_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SPACING_MM_FIELD_NUMBER: _ClassVar[int]
    TILT_DEGREES_FIELD_NUMBER: _ClassVar[int]
    series_instance_uid: str
    slices: int
    reason: str
    message: str
    spacing_mm: float
    tilt_degrees: float
    def __init__(self, series_instance_uid: _Optional[str] = ..., slices: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., spacing_mm: _Optional[float] = ..., tilt_degrees: _Optional[float] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("prediction", "overlay_png", "heatmap", "heatmap_height", "heatmap_width", "heatmap_left", "heatmap_top", "heatmap_right", "heatmap_bottom")
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_PNG_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_LEFT_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_TOP_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_RIGHT_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_BOTTOM_FIELD_NUMBER: _ClassVar[int]
    prediction: PredictResponse
    overlay_png: bytes
    heatmap: _containers.RepeatedScalarFieldContainer[float]
    heatmap_height: int
    heatmap_width: int
    heatmap_left: float
    heatmap_top: float
    heatmap_right: float
    heatmap_bottom: float
    def __init__(self, prediction: _Optional[_Union[PredictResponse, _Mapping]] = ..., overlay_png: _Optional[bytes] = ..., heatmap: _Optional[_Iterable[float]] = ..., heatmap_height: _Optional[int] = ..., heatmap_width: _Optional[int] = ..., heatmap_left: _Optional[float] = ..., heatmap_top: _Optional[float] = ..., heatmap_right: _Optional[float] = ..., heatmap_bottom: _Optional[float] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model_name", "model_version")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "digest", "is_default", "task", "intended_use", "labels", "positive_label", "threshold", "input_height", "input_width", "input_channels", "metrics", "provenance", "precision", "runtime", "runtime_version", "threads", "busy_threads", "workers", "profile", "model_card", "server_version", "windows", "study_top_k", "study_threshold", "outlier_threshold", "indeterminate_margin", "explains", "positive_labels")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class ProvenanceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    INTENDED_USE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_LABEL_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    INPUT_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    INPUT_WIDTH_FIELD_NUMBER: _ClassVar[int]
    INPUT_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_VERSION_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    BUSY_THREADS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    MODEL_CARD_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    STUDY_TOP_K_FIELD_NUMBER: _ClassVar[int]
    STUDY_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    OUTLIER_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    INDETERMINATE_MARGIN_FIELD_NUMBER: _ClassVar[int]
    EXPLAINS_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    digest: str
    is_default: bool
    task: str
    intended_use: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    positive_label: str
    threshold: float
    input_height: int
    input_width: int
    input_channels: int
    metrics: _containers.ScalarMap[str, float]
    provenance: _containers.ScalarMap[str, str]
    precision: str
    runtime: str
    runtime_version: str
    threads: int
    busy_threads: int
    workers: int
    profile: str
    model_card: str
    server_version: str
    windows: _containers.RepeatedCompositeFieldContainer[Window]
    study_top_k: int
    study_threshold: float
    outlier_threshold: float
    indeterminate_margin: float
    explains: bool
    positive_labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., is_default: bool = ..., task: _Optional[str] = ..., intended_use: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., positive_label: _Optional[str] = ..., threshold: _Optional[float] = ..., input_height: _Optional[int] = ..., input_width: _Optional[int] = ..., input_channels: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., provenance: _Optional[_Mapping[str, str]] = ..., precision: _Optional[str] = ..., runtime: _Optional[str] = ..., runtime_version: _Optional[str] = ..., threads: _Optional[int] = ..., busy_threads: _Optional[int] = ..., workers: _Optional[int] = ..., profile: _Optional[str] = ..., model_card: _Optional[str] = ..., server_version: _Optional[str] = ..., windows: _Optional[_Iterable[_Union[Window, _Mapping]]] = ..., study_top_k: _Optional[int] = ..., study_threshold: _Optional[float] = ..., outlier_threshold: _Optional[float] = ..., indeterminate_margin: _Optional[float] = ..., explains: bool = ..., positive_labels: _Optional[_Iterable[str]] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("level", "width")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    level: float
    width: float
    def __init__(self, level: _Optional[float] = ..., width: _Optional[float] = ...) -> None: ...
