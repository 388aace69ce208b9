"""What messages of ``PredictStudy`` hold, and back from the judgement of a study to its message."""

from __future__ import annotations

import asyncio

import grpc

from proto import stroke_pb2
from server.admission.call import Call
from server.admission.slice_work import SliceToJudge
from server.api.rpc.call import parse
from server.core.study.answer import StudyAnswer
from server.core.study.choice import SeriesReport
from server.core.study.slices import Refusal, StudySlice
from server.images.checks import Reason

ANALYSED, NOT_ANALYSED = stroke_pb2.PredictResponse.ANALYSED, stroke_pb2.PredictResponse.NOT_ANALYSED
CLOSING_SECONDS = 0.05
"""Of a caller that goes, or whose deadline passes, gRPC says first that there are no more messages, as of one that is
done, and a moment later that the call is over. So long the end is not believed: half a study is none. Slices that are
still in work take as long anyway."""

UNKNOWN = stroke_pb2.PredictResponse.STATUS_UNSPECIFIED


async def take_slice(call: Call, most_bytes: int) -> SliceToJudge | None:
    """The next slice of a call; None at its end.

    Raises:
        StrokeError: as ``Call.receive`` and ``Call.unfold``, and RequestError (REQUEST_MALFORMED).
        CancelledError: the caller has gone, or its deadline has passed.
    """
    held = await call.receive()
    if held is None:
        await asyncio.sleep(CLOSING_SECONDS)
        return None
    try:
        request = parse(stroke_pb2.PredictStudyRequest, await call.unfold(held, most_bytes))
        if held.share is not None:
            held.share.add_images(1)
        return SliceToJudge(
            image=request.image,
            id=request.id,
            image_sha256=request.image_sha256,
            model_name=request.model_name,
            model_version=request.model_version,
            study_id=request.study_id,
            held=held,
        )
    except BaseException:
        held.release()
        raise


def encode_study(answer: StudyAnswer) -> bytes:
    """The message of a study."""
    spec, first = answer.model.spec, answer.first_look
    message: bytes = stroke_pb2.PredictStudyResponse(
        id=answer.id,
        status=NOT_ANALYSED if answer.reasons else ANALYSED,
        reasons=to_reasons(answer.reasons),
        label=answer.label,
        positive_label=answer.positive_label,
        score=answer.score,
        threshold=spec.study_threshold,
        top_k=spec.study_top_k,
        first_look_id=first.id if first else "",
        first_look_frame=first.frame if first else 0,
        slices=[to_slice(placed.slice, placed.position or 0.0) for placed in answer.slices],
        series=to_series(answer.series) if answer.series else None,
        left_out=[to_series(series) for series in answer.left_out],
        failures=[to_slice(one) for one in answer.failures],
        warnings=[stroke_pb2.Warning(reason=one.reason, message=one.message) for one in answer.warnings],
        model_name=spec.name,
        model_version=spec.version,
        model_digest=answer.model.digest,
        study_instance_uid=answer.study,
        positive_labels=spec.positive_labels,
    ).SerializeToString()
    return message


def to_slice(one: StudySlice, position: float = 0.0) -> stroke_pb2.StudySlice:
    """Domain to proto."""
    status = UNKNOWN if one.refusal else NOT_ANALYSED if one.reasons else ANALYSED
    return stroke_pb2.StudySlice(
        id=one.id,
        frame=one.frame,
        sop_instance_uid=one.facts.sop if one.facts else "",
        position_mm=position,
        positive_probability=one.probability,
        status=status,
        reasons=to_reasons(one.reasons),
        image_sha256=one.image_sha256,
        error=to_error(one.id, one.refusal) if one.refusal else None,
    )


def to_series(series: SeriesReport) -> stroke_pb2.Series:
    """Domain to proto."""
    return stroke_pb2.Series(
        series_instance_uid=series.uid,
        slices=series.slices,
        reason=series.reason,
        message=series.message,
        spacing_mm=series.spacing,
        tilt_degrees=series.tilt,
    )


def to_reasons(reasons: tuple[Reason, ...]) -> list[stroke_pb2.Reason]:
    """Domain to proto."""
    return [stroke_pb2.Reason(reason=one.reason, message=one.message) for one in reasons]


def to_error(slice_id: str, refusal: Refusal) -> stroke_pb2.PredictError:
    """Why a slice was not judged."""
    code = grpc.StatusCode[refusal.code].value[0]
    return stroke_pb2.PredictError(id=slice_id, code=code, reason=refusal.reason, message=refusal.message)
