"""What is taken from a hot folder, and when; looked at without a server."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import pytest

from client.cli.watch.arrivals import Arrivals, ArrivedImage, has_image_end
from client.cli.watch.outcomes import Outcomes
from tests.client_fakes import wait_for
from tests.fakes import encode, make_slice
from tests.watching import make_png


def test_many_of_one_name_find_their_number_fast(hot: Path) -> None:
    """The free number is found by doubling, not by trying a thousand names."""
    folders = Outcomes(str(hot), beside=True, move=True)
    folders.prepare()
    (hot / "done" / "scan.png").touch()
    for number in range(1, 1000):
        (hot / "done" / f"scan-{number}.png").touch()

    started = time.process_time()
    path = folders._claim(str(hot / "done"), "scan.png")

    assert Path(path).name == "scan-1000.png"
    assert time.process_time() - started < 0.01


def test_incomplete_file_is_given_up_in_the_end(hot: Path) -> None:
    """A file without an end is returned once patience with it has ended, and only then."""
    watch = Arrivals(str(hot), settle=0.0, patience=0.3)
    (hot / "scan.png").write_bytes(make_png()[:-20])

    started = time.monotonic()
    image = read_in_the_end(watch)

    assert time.monotonic() - started >= 0.3
    assert image.data == make_png()[:-20]


def read_in_the_end(watch: Arrivals) -> ArrivedImage:
    """Looks until one of the files is taken."""
    images: list[ArrivedImage] = []

    def look() -> bool:
        images.extend(filter(None, map(watch.read, watch.poll())))
        return bool(images)

    wait_for(look)
    return images[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file_is_given_up_in_the_end(hot: Path) -> None:
    """With the reason; until then its writer may still open it to others."""
    watch = Arrivals(str(hot), settle=0.0, patience=0.2)
    (hot / "scan.png").write_bytes(make_png())
    (hot / "scan.png").chmod(0)

    started = time.monotonic()
    image = read_in_the_end(watch)

    assert time.monotonic() - started >= 0.2
    assert str(image.fault) == "the image cannot be read: Permission denied"


def test_poll_of_ten_thousand_judged_files_is_cheap(hot: Path) -> None:
    """It costs their names, not a look at each."""
    for index in range(10_000):
        (hot / f"{index}.png").touch()
    watch = Arrivals(str(hot), settle=0.0)
    for name in watch.poll():
        watch.adopt_result(name, "", watch._waiting[name].stamp.to_file_stamp(), finished=True)

    times = []
    for _ in range(5):
        started = time.process_time()
        assert watch.poll() == []
        times.append(time.process_time() - started)

    assert min(times) < 0.1
    assert (watch.judged, watch.waiting) == (10_000, 0)


def test_state_is_no_larger_than_the_folder(hot: Path) -> None:
    """Files that go away are forgotten, judged or not."""
    watch = Arrivals(str(hot), settle=0.0)
    for round_ in range(3):
        for index in range(100):
            (hot / f"{round_}-{index}.png").write_bytes(b"text")
        for name in watch.poll():
            watch.mark_judged(watch.read(name))
        for path in hot.glob("*.png"):
            path.unlink()
        watch.poll()

    assert (watch.judged, watch.waiting) == (0, 0)


def test_end_of_png_and_jpeg() -> None:
    """Every cut of a PNG and a JPEG lacks its end; the whole has it, also with bytes behind it; text is no image."""
    thumbnail = encode(make_slice(side=16), "JPEG")
    jpeg = encode(make_slice(), "JPEG", comment=thumbnail)  # an end marker inside the header
    progressive = encode(make_slice(), "JPEG", progressive=True)

    for whole in (make_png(), jpeg, progressive):
        assert has_image_end(whole) is True
        assert has_image_end(whole + b"\0" * 50) is True
        assert not any(has_image_end(whole[:length]) for length in range(len(whole) - 1))
        assert has_image_end(whole[:-50] + bytes(50)) is False
    assert has_image_end(b"GIF89a and so on") is None
    assert has_image_end(b"") is False
    assert has_image_end(bytes(1000)) is False
    assert zlib.crc32(b"IEND") == 0xAE426082
