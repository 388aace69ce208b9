"""What an answer and its line in the log have in common: the id, also one made here, and the trace of the caller."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from proto import stroke_pb2 as pb
from server.admission.call import Method
from server.api.rpc.call import RpcCall
from tests.fakes import ServerProcess, encode, make_slice, run_server, wait_until
from tests.test_server_secrets import FAULT, FAULTY_SERVER

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
IMAGE = encode(make_slice())
REQUESTS = [pb.PredictRequest(image=image) for image in (IMAGE, b"garbage", IMAGE + FAULT)]


@pytest.fixture(scope="module")
def faulty(tiny_models: Path) -> Iterator[ServerProcess]:
    """A server that has a fault for images with a certain end."""
    with run_server(tiny_models, program=(sys.executable, "-c", FAULTY_SERVER)) as server:
        yield server


def find_lines(server: ServerProcess, request_id: str) -> list[str]:
    """The lines with an id, once that of its end is there."""
    wait_until(lambda: any(f" id={request_id} code=" in line for line in server.log))
    return [line for line in server.log if re.search(rf"\bid={request_id}\b", line)]


def test_call_without_an_id_has_one_in_answer_and_log(faulty: ServerProcess) -> None:
    """Whether it was judged, or failed by our fault: then the traceback has it, too."""
    with faulty.stub() as stub:
        judged = stub.Predict(REQUESTS[0], timeout=30).id
        with pytest.raises(grpc.RpcError) as failure:
            stub.Predict(REQUESTS[2], timeout=30)
    found = re.fullmatch(r"Internal error of the server \(id (\w+)\)\.", failure.value.details() or "")

    (line,) = find_lines(faulty, judged)
    assert "code=OK" in line
    assert found is not None
    fault, end = find_lines(faulty, found[1])
    assert "internal error" in fault
    assert "code=INTERNAL" in end


@pytest.mark.parametrize("is_batch", [False, True])
def test_image_of_a_stream_without_an_id_has_one_in_answer_and_log(faulty: ServerProcess, is_batch: bool) -> None:
    """Each its own."""
    with faulty.stub() as stub:
        if is_batch:
            batches = stub.PredictBatches(iter([pb.PredictBatchesRequest(requests=REQUESTS)]), timeout=30)
            answers = [answer for batch in batches for answer in batch.responses]
        else:
            answers = list(stub.PredictStream(iter(REQUESTS), timeout=30))
    ids = [answer.response.id or answer.error.id for answer in answers]

    assert len(set(ids)) == 3
    for request_id, code in zip(ids, ("OK", "INVALID_ARGUMENT", "INTERNAL"), strict=True):
        lines = find_lines(faulty, request_id)
        assert f" image id={request_id} code={code}" in lines[-1]
        assert len(lines) == 1 + (code == "INTERNAL")


def test_callers_trace_is_in_the_lines_of_its_call(faulty: ServerProcess) -> None:
    """Of a call of one image, of a stream, and of its images."""
    trace = TRACE.replace("0af7", "0af8")
    metadata = (("traceparent", trace),)
    with faulty.stub() as stub:
        stub.Predict(REQUESTS[0], metadata=metadata, timeout=30)
        list(stub.PredictStream(iter(REQUESTS[:1]), metadata=metadata, timeout=30))
    wait_until(lambda: sum(f" trace={trace}" in line for line in faulty.log) == 3)


def test_flood_of_cheap_calls_is_counted_instead_of_written(faulty: ServerProcess) -> None:
    """Each is in a line or in a count."""
    with faulty.stub() as stub:
        for _ in range(300):
            stub.ListModels(pb.ListModelsRequest(), timeout=30)

    def count() -> tuple[int, int]:
        told = [re.search(r" (\d+) more lines such as: ListModels code=OK", line) for line in list(faulty.log)]
        return sum(" ListModels id=" in line for line in list(faulty.log)), sum(int(m[1]) for m in told if m)

    wait_until(lambda: sum(count()) == 300)
    assert count()[1] > 0


def test_id_is_given_once() -> None:
    """A call that ended while a worker read its message keeps the id under which its end was told."""
    nothing: Any = None
    call = RpcCall(SimpleNamespace(peer=lambda: ""), Method("Predict"), nothing)
    made = call.name_itself("")

    assert made == call.name_itself("another") == call.request_id


@pytest.mark.parametrize(
    ("metadata", "trace"),
    [
        ([("x", "y"), ("traceparent", TRACE)], TRACE),
        ([("traceparent", TRACE.replace("00-", "cc-"))], TRACE.replace("00-", "cc-")),
        ([("traceparent", TRACE), ("traceparent", TRACE)], ""),
        ([("traceparent", f"{TRACE} code=OK")], ""),
        ([("traceparent", f"{TRACE}\n")], ""),
        ([("traceparent", TRACE.upper())], ""),
        ([("traceparent", TRACE.replace("00-", "ff-"))], ""),
        ([("traceparent", f"00-{'0' * 32}-b7ad6b7169203331-01")], ""),
        ([("traceparent", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01")], ""),
        ([("traceparent", "00-short")], ""),
        ([], ""),
        (None, ""),
    ],
)
def test_trace_is_one_or_none(metadata: Any, trace: str) -> None:
    """What has not the form of a traceparent is ignored, as W3C Trace Context asks."""
    context = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1", invocation_metadata=lambda: metadata)
    nothing: Any = None

    assert RpcCall(context, Method("Predict"), nothing).trace == trace
