from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Channel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANNEL_UNSPECIFIED: _ClassVar[Channel]
    STABLE: _ClassVar[Channel]
    CANARY: _ClassVar[Channel]
    SHADOW: _ClassVar[Channel]
CHANNEL_UNSPECIFIED: Channel
STABLE: Channel
CANARY: Channel
SHADOW: Channel

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ActivateRequest(_message.Message):
    __slots__ = ("name", "version", "channel", "percent")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    channel: Channel
    percent: float
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., channel: _Optional[_Union[Channel, str]] = ..., percent: _Optional[float] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnloadRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("text", "is_done")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_DONE_FIELD_NUMBER: _ClassVar[int]
    text: str
    is_done: bool
    def __init__(self, text: _Optional[str] = ..., is_done: bool = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("server_version", "address", "folder", "models", "failures")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    address: str
    folder: str
    models: _containers.RepeatedCompositeFieldContainer[Model]
    failures: _containers.RepeatedCompositeFieldContainer[Failure]
    def __init__(self, server_version: _Optional[str] = ..., address: _Optional[str] = ..., folder: _Optional[str] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., failures: _Optional[_Iterable[_Union[Failure, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "is_default", "is_pinned", "versions", "history", "shadow")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    IS_PINNED_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    is_default: bool
    is_pinned: bool
    versions: _containers.RepeatedCompositeFieldContainer[Version]
    history: _containers.RepeatedScalarFieldContainer[str]
    shadow: ShadowReport
    def __init__(self, name: _Optional[str] = ..., is_default: bool = ..., is_pinned: bool = ..., versions: _Optional[_Iterable[_Union[Version, _Mapping]]] = ..., history: _Optional[_Iterable[str]] = ..., shadow: _Optional[_Union[ShadowReport, _Mapping]] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("version", "channel", "is_served", "on_disk", "fault", "is_newer", "release_digest", "model_digest", "percent", "memory_bytes", "images", "mean_inference_ms", "share")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    IS_SERVED_FIELD_NUMBER: _ClassVar[int]
    ON_DISK_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    IS_NEWER_FIELD_NUMBER: _ClassVar[int]
    RELEASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MEAN_INFERENCE_MS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    version: str
    channel: Channel
    is_served: bool
    on_disk: str
    fault: str
    is_newer: bool
    release_digest: str
    model_digest: str
    percent: float
    memory_bytes: int
    images: int
    mean_inference_ms: float
    share: float
    def __init__(self, version: _Optional[str] = ..., channel: _Optional[_Union[Channel, str]] = ..., is_served: bool = ..., on_disk: _Optional[str] = ..., fault: _Optional[str] = ..., is_newer: bool = ..., release_digest: _Optional[str] = ..., model_digest: _Optional[str] = ..., percent: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., images: _Optional[int] = ..., mean_inference_ms: _Optional[float] = ..., share: _Optional[float] = ...) -> None: ...

class ShadowReport(_message.Message):
    __slots__ = ("version", "images", "dropped", "failed", "agreement", "mean_difference", "largest_difference", "median_ms", "changes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    MEAN_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    LARGEST_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_MS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    version: str
    images: int
    dropped: int
    failed: int
    agreement: float
    mean_difference: float
    largest_difference: float
    median_ms: float
    changes: _containers.RepeatedCompositeFieldContainer[LabelChange]
    def __init__(self, version: _Optional[str] = ..., images: _Optional[int] = ..., dropped: _Optional[int] = ..., failed: _Optional[int] = ..., agreement: _Optional[float] = ..., mean_difference: _Optional[float] = ..., largest_difference: _Optional[float] = ..., median_ms: _Optional[float] = ..., changes: _Optional[_Iterable[_Union[LabelChange, _Mapping]]] = ...) -> None: ...

class LabelChange(_message.Message):
    __slots__ = ("to", "images")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    to: str
    images: int
    def __init__(self, to: _Optional[str] = ..., images: _Optional[int] = ..., **kwargs) -> None: ...

class Failure(_message.Message):
    __slots__ = ("time", "action", "name", "version", "reason", "message")
    TIME_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    time: float
    action: str
    name: str
    version: str
    reason: str
    message: str
    def __init__(self, time: _Optional[float] = ..., action: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
