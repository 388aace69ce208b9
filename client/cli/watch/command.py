"""``--watch DIR``: a hot folder. What arrives is judged as soon as it is complete, until somebody ends it.

    Ctrl-C                   exit status 130, as for every run that is cut short
    SIGTERM                  exit status 0: how service managers end what has no end of its own
    no folder, a full disk   exit status 1
    wrong usage              exit status 2; so is a folder or file of results that another run works on

Whatever ends it, even ``kill -9``: started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..._config import RetryConfig
from ..connection import Connection
from ..stop import StopSignals

if TYPE_CHECKING:
    from ..results import ResultWriter

_RETRY = RetryConfig(max_attempts=4)
"""A second or so: the watch itself waits for a server that is away, as long as it takes, says so, and looks at the
folder again, from which images may have been taken meanwhile."""


def watch(arguments: argparse.Namespace, connection: Connection) -> int:
    """Watches a folder until a signal comes, and returns the exit status.

    Args:
        arguments: ``watch`` (the folder), ``settle`` (seconds), ``move``, ``beside``, ``csv``, ``output``, ``model``,
            ``model_version``, ``in_flight``, ``json`` and ``quiet`` of the command line. Without ``csv`` and
            ``output``, results go beside the images.
        connection: how the server is reached.
    """
    with StopSignals() as signals:
        return run_watch(arguments, connection, signals)


def run_watch(arguments: argparse.Namespace, connection: Connection, signals: StopSignals) -> int:
    """Watches a folder until ``signals`` says stop, in any thread; see ``watch``."""
    from ..result_file import ResultFileError
    from ..terminal import escape
    from .folder import HotFolder, WatchError
    from .outcomes import WatchFolders

    folder = arguments.watch
    beside = not (arguments.csv or arguments.output)
    if arguments.beside and not beside:
        # Two places cannot be written to in one step, so a crash could leave a result in one of them alone.
        print("error: --beside does not go with --csv and --output: choose one place for results", file=sys.stderr)
        return 2
    try:
        with lock_folder(folder), connection.open_client(_RETRY) as client:
            folders = WatchFolders(folder, beside=beside, move=arguments.move)
            journal = _open_journal(arguments.csv, arguments.output)
            try:
                return HotFolder(arguments, client, signals, folders, journal).run()
            finally:
                if journal is not None:
                    journal.close()
    except (ResultFileError, ValueError) as error:  # a setting that cannot be used
        print(escape(f"error: {error}"), file=sys.stderr)
        return 2
    except WatchError as error:
        print(escape(f"error: {error}"), file=sys.stderr)
    except OSError as error:
        if error.filename is None:  # of standard output
            raise
        print(escape(f"error: {error.filename} cannot be used: {error.strerror}"), file=sys.stderr)
    return 1


@contextmanager
def lock_folder(folder: str) -> Iterator[None]:
    """Keeps a second watch from the folder for as long as the block lasts, where the system can.

    Raises:
        OSError: there is no such folder.
        ValueError: another watch has it.
    """
    os.scandir(folder).close()
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"another watch of {folder} is running: end it first") from None
    except OSError:  # a network share without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def _open_journal(csv: str | None, output: str | None) -> ResultWriter | None:
    from ..result_file import ResultFile
    from ..results import CsvFormat, JsonLinesFormat, StreamWriter

    if csv == "-":
        return StreamWriter(sys.stdout.buffer, CsvFormat())
    if csv:
        return ResultFile(csv, CsvFormat())
    return ResultFile(output, JsonLinesFormat()) if output else None
