"""A page of typical uses of the client. It is type-checked, not run: see test_client_typing.py."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from pathlib import Path
from typing import assert_type

import grpc

from client import (
    AnalysisStatus,
    AsyncStrokeClient,
    HealthStatus,
    ImageWarning,
    InvalidImageError,
    KeepAliveConfig,
    ModelInfo,
    Prediction,
    PredictionFailure,
    Reason,
    RetryConfig,
    ServerUnavailableError,
    StrokeClient,
    StrokeClientError,
    StudyPrediction,
    StudySeries,
    StudySlice,
    Timings,
    TLSConfig,
    Window,
)


def judge_one_image() -> None:
    with StrokeClient("127.0.0.1:50051") as client:
        prediction = client.predict("scan.png")
    assert_type(prediction, Prediction)
    assert_type(prediction.label, str)
    assert_type(prediction.confidence, float)
    assert_type(prediction.timings, Timings)
    assert_type(prediction.warnings, tuple[ImageWarning, ...])
    assert_type(prediction.index, int)
    assert_type(prediction.status, AnalysisStatus)
    assert_type(prediction.reasons, tuple[Reason, ...])
    assert_type(prediction.positive_probability, float)
    print(prediction, prediction.scores["stroke"], prediction.image_sha256)


def give_an_image_in_any_way(client: StrokeClient, path: Path) -> None:
    client.predict(path)
    client.predict(path.read_bytes(), request_id="case-7")
    client.predict(io.BytesIO(path.read_bytes()), timeout=2.5)
    with path.open("rb") as file:
        client.predict(file, model="stroke-cnn", version="1")


def judge_a_folder(client: StrokeClient) -> int:
    failures = 0
    results = client.predict_many(Path("series").glob("*.png"), in_flight=16)
    assert_type(results, Generator[Prediction | PredictionFailure, None, None])
    for result in results:
        if isinstance(result, PredictionFailure):
            failures += 1
            print(result.index, result.source, result.error.reason)
        else:
            print(result.source, result.label, result.confidence)
    return failures


def judge_a_study(client: StrokeClient, slices: list[Path]) -> str:
    study = client.predict_study("study/", timeout=30.0, on_file=print)
    assert_type(study, StudyPrediction)
    assert_type(study.first_look, StudySlice | None)
    assert_type(study.slices, tuple[StudySlice, ...])
    assert_type(study.left_out, tuple[StudySeries, ...])
    if study.first_look is not None:
        print(study.first_look.source, study.first_look.frame)
    for one in study.failures:
        assert_type(one.error, StrokeClientError | None)
    client.predict_study(slices)
    client.predict_study(path.read_bytes() for path in slices)
    client.predict_study({"a-1": slices[0], "a-2": b"..."}, model="stroke-cnn", request_id="case-7")
    window = client.model_info().windows[0]
    assert_type(window, Window)
    return study.label


def choose_a_frame(client: StrokeClient) -> float:
    return client.predict("enhanced.dcm", frame=3).outlier_score


def tell_errors_apart(client: StrokeClient) -> str:
    try:
        return client.predict("scan.png").label
    except InvalidImageError as error:
        return error.reason
    except ServerUnavailableError:
        client.wait_until_ready(60)
        return "ready again"
    except StrokeClientError as error:
        assert_type(error.code, str | None)
        return str(error)


def ask_about_the_server(client: StrokeClient) -> None:
    assert_type(client.check_health(), HealthStatus)
    assert_type(client.model_info("stroke-cnn"), ModelInfo)
    models = client.list_models()
    assert_type(models, list[ModelInfo])
    print([(model.name, model.threshold, dict(model.metrics)) for model in models])


def read_token() -> str:
    return Path("/run/secrets/stroke").read_text().strip()


def connect_with_everything() -> StrokeClient:
    return StrokeClient(
        "a:50051,b:50051",
        timeout=60,
        tls=TLSConfig(ca="ca.pem", certificate="me.pem", key=Path("me.key"), server_name="stroke.hospital"),
        token=read_token,
        retry=RetryConfig(max_attempts=2),
        keep_alive=KeepAliveConfig(interval=60),
        max_image_bytes=8 * 2**20,
    )


def bring_a_channel(channel: grpc.Channel) -> StrokeClient:
    return StrokeClient(channel=channel, tls=True)


async def judge_one_image_asynchronously() -> None:
    async with AsyncStrokeClient("dns:///boxes:50051", tls=True) as client:
        await client.wait_until_ready()
        assert_type(await client.predict("scan.png"), Prediction)
        assert_type(await client.check_health(), HealthStatus)
        assert_type(await client.list_models(), list[ModelInfo])


async def arriving_images() -> AsyncIterator[bytes]:
    yield b"..."


async def judge_what_arrives(client: AsyncStrokeClient) -> None:
    results = client.predict_many(arriving_images(), ordered=False)
    assert_type(results, AsyncGenerator[Prediction | PredictionFailure, None])
    async for result in results:
        print(result.index, result.error if isinstance(result, PredictionFailure) else result.label)
    async for result in client.predict_many([Path("a.png"), Path("b.png")]):
        print(result.source)
