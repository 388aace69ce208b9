"""predict_many: what is left of a run that ends, is left early, or loses its client; and that memory stays flat."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections import deque

import pytest

from client import ClientClosedError, Prediction, StrokeClient
from tests.client_fakes import FakeServer, make_response, wait_for
from tests.client_kinds import ClientKind, endless_images, list_new_threads, make_images


@pytest.mark.parametrize("hang", [False, True])
def test_early_close_cancels_the_stream_and_leaves_no_thread(server: FakeServer, hang: bool) -> None:
    """Leaving the loop ends the call on the server, and every thread of the run here."""
    before = set(threading.enumerate())
    if hang:
        server.servicer.judge = lambda request: (
            server.servicer.hang(request) if request.image == b"other 1" else make_response(request)
        )
    with StrokeClient(server.target) as client:
        results = client.predict_many(make_images(100))
        assert next(results).label == "stroke"
        started = time.monotonic()
        results.close()
        assert time.monotonic() - started < 5
        wait_for(lambda: not any("receiver" in thread.name for thread in threading.enumerate()))
        server.servicer.released.set()
        # Not compared with "cancelled": gRPC may show the server the end of the requests before the cancellation.
        wait_for(lambda: len(server.servicer.ended_streams) == 1)
        assert client.predict(b"stroke").label == "stroke"
    wait_for(lambda: not list_new_threads(before))

    assert len(server.servicer.images) < 40


def test_finished_run_leaves_no_thread(server: FakeServer) -> None:
    """After the last result nothing of the run is left, while the client stays open."""
    with StrokeClient(server.target) as client:
        list(client.predict_many(make_images(5)))
        before = set(threading.enumerate())
        for _ in range(5):
            list(client.predict_many(make_images(5)))
        wait_for(lambda: not list_new_threads(before))


def test_early_end_leaves_nothing_behind(server: FakeServer, either: ClientKind) -> None:
    """With both clients the server sees the end of a run that is left, and no thread or task remains."""
    before = set(threading.enumerate())

    either.predict_many(endless_images(), stop=lambda result: True)

    wait_for(lambda: len(server.servicer.ended_streams) == 1)
    wait_for(lambda: not list_new_threads(before))


def test_closing_the_client_ends_its_runs(server: FakeServer) -> None:
    """A run whose client was closed says so; it neither hangs nor shows an error of grpc."""
    client = StrokeClient(server.target)
    results = client.predict_many(make_images(100))
    next(results)
    client.close()

    with pytest.raises(ClientClosedError):
        list(results)


def test_two_runs_of_one_client_do_not_mix(server: FakeServer) -> None:
    """Runs in several threads on one client each get their own results."""
    counts: dict[int, int] = {}
    with StrokeClient(server.target) as client:

        def run(number: int) -> None:
            images = [b"stroke %d of run %d" % (index, number) for index in range(50)]
            counts[number] = sum(result.label == "stroke" for result in client.predict_many(images))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert counts == dict.fromkeys(range(4), 50)


def test_memory_does_not_grow_with_the_number_of_images(server: FakeServer, either: ClientKind) -> None:
    """Thousands of images later, Python holds no more than it did after the first ones."""
    server.servicer.keeps_requests = False
    sizes: list[int] = []

    def measure(result: Prediction) -> bool:
        if result.index % 300 == 299:
            sizes.append(tracemalloc.get_traced_memory()[0])
        return result.index == 1499

    images = (b"%06d" % index + b"x" * 5_000 for index in range(10**9))

    tracemalloc.start()
    try:
        either.predict_many(images, into=deque(maxlen=1), stop=measure)
    finally:
        tracemalloc.stop()

    assert len(sizes) == 5
    # Between the second and the last measurement are 900 images: their results alone would be 1 MB.
    assert sizes[-1] - sizes[1] < 100_000
