"""The processes that decode: what they may do, and what becomes of the server when they do something else."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.dicom.frames import JPEG_2000, RLE, compress, encode, make_words
from proto import stroke_pb2
from server.errors import ImageError, OverloadedError, UnavailableError
from server.images.dicom.codecs import frames
from server.images.dicom.codecs.decoder import make_command
from server.images.dicom.codecs.pool import DecoderPool
from server.images.dicom.header import FrameShape
from server.images.dicom.window import BRAIN
from tests.dicom_files import make_dicom, make_hu
from tests.fakes import SPEC, run_server, wait_until, write_model
from tests.test_imports import list_loaded

SHAPE = FrameShape(64, 80, 12, False)
WORDS = make_words(SHAPE)
DATA = encode(JPEG_2000, WORDS, SHAPE)

FAKE = """
import json, os, sys, time
from pathlib import Path
from server.images.dicom.codecs import process
from server.images.dicom.codecs.wire import ANSWER, REQUEST, Answer, unpack_request

fault, flag = sys.argv[1], Path(sys.argv[2])
if flag.exists():  # only the first process is at fault
    process.main(512 * 1024 * 1024, 2.0)
flag.touch()
process.send(Answer.READY)
_, _, length = unpack_request(process.receive(REQUEST.size))
process.send(Answer.READY)
process.receive(length)
eval(fault)
time.sleep(60)
"""
"""A decoder that does something else with its first frame."""


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    """One real decoder, which is started when it is needed."""
    pool = DecoderPool(1)
    yield pool
    pool.close()


def make_fake(fault: str, tmp_path: Path, **options: float) -> DecoderPool:
    """A pool of one decoder whose first process has a fault."""
    return DecoderPool(1, command=[sys.executable, "-c", FAKE, fault, str(tmp_path / "flag")], **options)


def list_children(pid: int | str = "self") -> set[int]:
    """Processes that a process has started, those that have ended and were not waited for too."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread has ended
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def decode(pool: DecoderPool, data: bytes = DATA, shape: FrameShape = SHAPE) -> np.ndarray:
    """Decodes a frame of JPEG 2000, and checks it."""
    words = np.frombuffer(pool.decode(JPEG_2000, data, shape), "<u2").reshape(shape.rows, shape.columns)
    if data is DATA:
        np.testing.assert_array_equal(words, WORDS)
    return words


@pytest.mark.parametrize(
    ("fault", "said"),
    {
        "crash": ("os.abort()", "ended"),
        "exit": ("sys.exit(0)", "ended"),
        "killed for its memory": ("os.kill(os.getpid(), 9)", "ended"),
        "hang": ("None", "took longer than 0.2 s"),
        "stop": ("os.kill(os.getpid(), 19)", "took longer than 0.2 s"),
        "an answer that there is not": ("os.write(0, b'\\xff' * 10)", "answered with nonsense"),
        "too few words": ("process.send(Answer.WORDS, bytes(10))", "answered with nonsense"),
        "too many words": ("process.send(Answer.WORDS, bytes(1 << 20))", "answered with nonsense"),
        "words where there are none": ("process.send(Answer.MISSING, bytes(10))", "answered with nonsense"),
        "half an answer": ("os.write(0, ANSWER.pack(1, False, 10240) + bytes(99))", "took longer than 0.2 s"),
        "READY twice": ("process.send(Answer.READY)", "answered with nonsense"),
    }.values(),
)
def test_slice_at_which_a_decoder_fails_is_refused_and_the_next_is_decoded(
    fault: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By another process; the first one is gone. The log counts, and says nothing of the slice."""
    pool = make_fake(fault, tmp_path, seconds=0.2)
    before = list_children()

    with caplog.at_level(logging.WARNING), pytest.raises(ImageError) as caught:
        decode(pool)

    assert caught.value.reason == "DICOM_UNDECODABLE"
    assert [record.getMessage() for record in caplog.records] == [
        f"a decoder of DICOM slices {said} and was replaced: JPEG 2000 Lossless, {len(DATA)} bytes; 1 since the start"
    ]
    assert list_children() == before
    decode(pool)
    pool.close()


def test_decoder_that_was_killed_between_two_slices_costs_none(pool: DecoderPool) -> None:
    """As by an administrator, or for want of memory."""
    decode(pool)
    (pid,) = list_pids(pool)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: f"{pid} (python" not in Path(f"/proc/{pid}/stat").read_text() or is_zombie(pid))

    decode(pool)

    assert pool.failures == 0
    assert pid not in list_children()


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_decoder_has_little_memory() -> None:
    """What takes more is refused, and the same process decodes the next slice."""
    pool = DecoderPool(1, command=make_command(160 * 1024 * 1024, 2.0))
    large = FrameShape(4096, 4096, 12, False)
    zeros = encode(JPEG_2000, np.zeros((4096, 4096), np.uint16), large)
    decode(pool)

    with pytest.raises(ImageError) as caught:
        decode(pool, zeros, large)

    assert caught.value.reason == "DICOM_UNDECODABLE"
    decode(pool)
    pool.close()


def test_decoder_that_has_grown_is_replaced() -> None:
    """GDCM loses memory with damaged frames; those that are whole must not be refused for it one day."""
    code = "from server.images.dicom.codecs import process; process.SPENT_BYTES = 1 << 20; process.main(1 << 29, 2.0)"
    pool = DecoderPool(1, command=[sys.executable, "-c", code])
    before = list_children()

    for _ in range(2):
        decode(pool)

    assert list_children() == before
    assert pool.failures == 0


def list_pids(pool: DecoderPool) -> list[int]:
    """The processes that are free."""
    return [decoder.pid for decoder in pool._free]


def test_decoder_may_not_do_what_decoding_does_not_need(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no descriptor of the server's, none of its secrets, and can write no file."""
    monkeypatch.setenv("STROKE_TOKEN", "secret")
    with socket.create_server(("127.0.0.1", 0)) as port, socket.socket() as other:
        os.set_inheritable(port.fileno(), True)
        os.set_inheritable(other.fileno(), True)
        decode(pool)
    (pid,) = list_pids(pool)

    descriptors = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    assert descriptors == {0, 1, 2}
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_AS)[1] < 1024**3


def test_decoder_starts_where_less_is_allowed_already() -> None:
    """An operator's limit stays, where it is the lower one."""
    limited = ["sh", "-c", 'ulimit -v 400000; exec "$@"', "sh", *make_command(512 * 1024 * 1024, 2.0)]
    pool = DecoderPool(1, command=limited)

    decode(pool)

    (pid,) = list_pids(pool)
    assert resource.prlimit(pid, resource.RLIMIT_AS)[1] == 400_000 * 1024
    pool.close()


def test_decoder_loads_next_to_nothing() -> None:
    """Neither the server nor a codec that nobody needs, and never what parses files."""
    loaded = list_loaded("server.images.dicom.codecs.process")

    assert not loaded & {"pydicom", "numpy", "PIL", "grpc", "onnxruntime", "gdcm", "openjpeg", "asyncio"}


def test_decoder_that_overstays_ends_even_where_nobody_is_left_to_end_it() -> None:
    """A server that is killed leaves no process behind that hangs in a codec."""
    code = "import time; from server.images.dicom.codecs import process; "
    code += "process.decode = lambda *_: time.sleep(60); process.main(1 << 29, -0.4)"
    pool = DecoderPool(1, command=[sys.executable, "-c", code], seconds=60)

    with pytest.raises(ImageError):
        decode(pool)


def test_processes_are_bounded_and_waited_for() -> None:
    """Twelve callers, two processes; and whoever waits too long is told that there are too many."""
    pool = DecoderPool(2)
    before, most, failures = list_children(), 0, []

    def work() -> None:
        try:
            for _ in range(5):
                decode(pool)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, len(list_children() - before))
        threads[0].join(0.01)
    assert (failures, most) == ([], 2)
    pool.close()
    assert list_children() == before

    busy = DecoderPool(1, wait_seconds=0.01)
    decoder = busy._take()
    with pytest.raises(OverloadedError) as caught:
        decode(busy)
    assert caught.value.reason == "DICOM_DECODERS_BUSY"
    busy._release(decoder)
    decode(busy)
    busy.close()


@pytest.mark.parametrize("command", [["/no/such/python"], [sys.executable, "-c", "raise SystemExit(3)"]])
def test_server_that_cannot_start_a_decoder_says_so(
    command: list[str], pool: DecoderPool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not the file's fault, and another time it may do. Places are not lost by it."""
    broken = DecoderPool(1, command=command, wait_seconds=0.01)

    for _ in range(2):
        with pytest.raises(UnavailableError) as caught:
            decode(broken)
        assert caught.value.reason == "DICOM_DECODER_UNAVAILABLE"
        assert caught.value.retry_after
    assert "no decoder of compressed DICOM slices can be started" in caplog.text


def test_missing_codec_is_named_with_what_installs_it() -> None:
    """Of a box that has the extra for DICOM alone; RLE needs no more than that."""
    code = "import sys; sys.modules.update(openjpeg=None, gdcm=None); "
    code += "from server.images.dicom.codecs.process import main; main(1 << 29, 2.0)"
    pool = DecoderPool(1, command=[sys.executable, "-c", code])

    with pytest.raises(ImageError) as caught:
        decode(pool)

    assert caught.value.reason == "DICOM_NO_DECODER"
    assert "make install-dicom-codecs" in caught.value.message
    assert "JPEG 2000 Lossless" in caught.value.message
    pool.decode(RLE, encode(RLE, WORDS, SHAPE), SHAPE)
    assert pool.failures == 0
    pool.close()


def test_copy_of_a_process_does_not_use_its_decoders() -> None:
    """Their answers would get mixed up."""
    frames._pool.decode(JPEG_2000, DATA, SHAPE)
    assert frames._pool._free

    pid = os.fork()
    if not pid:
        os._exit(len(frames._pool._free))

    assert os.waitpid(pid, 0) == (pid, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_server(number: signal.Signals, tmp_path: Path) -> None:
    """Neither when it stops nor when it is killed; and it has as many decoders as it was told to."""
    write_model(tmp_path, replace(SPEC, windows=(BRAIN,)))
    data = compress(make_dicom(make_hu()), JPEG_2000)
    with run_server(tmp_path, "--decoders", "1", "--workers", "2") as server:
        with server.stub() as stub:
            calls = [stub.Predict.future(stroke_pb2.PredictRequest(image=data), timeout=60) for _ in range(8)]
            labels = {call.result().label for call in calls}
        (decoder,) = list_children(server.process.pid)
        code = server.stop(number)

    assert len(labels) == 1
    assert code == (0 if number == signal.SIGTERM else -number)
    wait_until(lambda: not Path(f"/proc/{decoder}").exists())
