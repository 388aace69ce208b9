"""What people see of the command line in a real terminal, at 80 and at 40 columns."""

from __future__ import annotations

import io

import pytest

from client._progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_count_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how far it is, how fast and how long; erasing removes it."""
    monkeypatch.setenv("TERM", "xterm")
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    terminal = Terminal()
    progress = Progress(40, terminal)
    clock[0] += 2

    progress.draw(10)
    progress.draw(10)
    progress.erase()
    progress.erase()

    assert terminal.getvalue() == "\r\x1b[K[#####...............] 10/40  5.0/s  6 s left\r\x1b[K"


@pytest.mark.parametrize(
    ("total", "stream", "term"), [(1, Terminal(), "xterm"), (9, io.StringIO(), "xterm"), (9, Terminal(), "dumb")]
)
def test_no_progress_where_nobody_needs_it(
    total: int, stream: io.StringIO, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image, a file or a dumb terminal get no progress bar."""
    monkeypatch.setenv("TERM", term)
    Progress(total, stream).draw(1)

    assert stream.getvalue() == ""
