"""The life of a gateway: open the queue, listen, judge, deliver, stop. Here alone the parts are put together."""

from __future__ import annotations

import logging
import signal
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client import StrokeClient
from gateway.deliver.c_store import CStoreDestination
from gateway.deliver.destination import Destination
from gateway.deliver.folder import FolderDestination
from gateway.deliver.outbox import Outbox
from gateway.deliver.post import FHIR, HL7, PostDestination
from gateway.deliver.stow import StowDestination
from gateway.judge.judge import Judge, Maker
from gateway.listen.settings import ListenConfig
from gateway.queue.arrivals import Arrivals
from gateway.queue.endings import Endings
from gateway.queue.folder import QueueFolder, show
from gateway.receive.receiver import Receiver, ReceiverSettings
from gateway.receive.store import StoreHandler
from gateway.worklist.publish import NAME, WorklistFile
from server.process.console import complain, say

logger = logging.getLogger(__name__)

MEGABYTE = 1_000_000
HOUR = 3600.0
LOOK_SECONDS = 0.25
"""Between two looks for complete studies."""

EXPIRE_SECONDS = 60.0
STOP_SECONDS = 30.0
"""For what is being judged or sent when the process is told to stop; the rest waits in the queue."""


class Gateway:
    """One gateway.

    Args:
        config: its settings.
        client: asks the server.
        make: makes results.

    Raises:
        QueueError: the queue cannot be used.
        OSError: a certificate cannot be read, or a folder is none.
    """

    def __init__(self, config: ListenConfig, client: StrokeClient, make: Maker) -> None:
        self._config = config
        self._destinations = list_destinations(config)
        self._folder = QueueFolder(config.queue)
        self._stop = threading.Event()
        give_up = config.give_up_hours * HOUR
        self._arrivals = Arrivals(self._folder, config.quiet_seconds, config.least_free_mb * MEGABYTE)
        self._endings = Endings(self._folder, config.keep_days, config.keep_failed_days)
        worklist = config.worklist or config.queue / NAME
        self._worklist = WorklistFile(config.queue, worklist, config.worklist_hours)
        self._outbox = Outbox(self._folder, self._endings, give_up)
        names = [one.name for one in self._destinations]
        self._judge = Judge(self._folder, self._endings, client, make, names, give_up)

    def stop(self) -> None:
        """Ends ``run``; what is being judged or sent gets a little time."""
        self._stop.set()

    def run(self, *, handle_signals: bool = False) -> int:
        """Works until ``stop``. Returns the exit code; an error has been printed when it is not 0.

        Args:
            handle_signals: SIGTERM and SIGINT stop it; only in the main thread.
        """
        for number in (signal.SIGTERM, signal.SIGINT) if handle_signals else ():
            signal.signal(number, lambda *_: self.stop())
        try:
            receiver = Receiver(describe_receiver(self._config), StoreHandler(self._arrivals))
        except OSError as error:
            complain(
                f"gateway listen: error: {self._config.dicom_host}:{self._config.dicom_port}: {error.strerror or error}"
            )
            return 1
        self._outbox.drop_strangers(self._destinations)
        workers = self._start_workers()
        waiting = ", ".join(f"{count} {state}" for state, count in self._folder.count().items() if count)
        say(
            f"gateway: {self._config.title} listens on {self._config.dicom_host}:{receiver.port}; results go to "
            f"{', '.join(one.name for one in self._destinations)}; queue: {waiting or 'empty'}"
        )
        self._look_until_stopped()
        receiver.close()
        end = time.monotonic() + STOP_SECONDS
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
        self._folder.close()
        return 0

    def _start_workers(self) -> list[threading.Thread]:
        judges: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(self._judge.run, ())] * self._config.judges
        outgoing = [(self._outbox.run, (destination,)) for destination in self._destinations]
        workers = [
            threading.Thread(target=run, args=(*arguments, self._stop), daemon=True, name=f"gateway-{number}")
            for number, (run, arguments) in enumerate([*judges, *outgoing])
        ]
        for worker in workers:
            worker.start()
        return workers

    def _look_until_stopped(self) -> None:
        """Hands complete studies over, keeps the worklist, and removes what has been kept for long enough."""
        expire_at = time.monotonic()
        while not self._stop.wait(LOOK_SECONDS):
            self._worklist.update()
            try:
                for job in self._arrivals.complete():
                    logger.info("study %s: complete", show(job))
                if time.monotonic() >= expire_at:
                    expire_at = time.monotonic() + EXPIRE_SECONDS
                    if removed := self._endings.expire():
                        logger.info("%d failures have been kept for long enough, and are removed", removed)
            except OSError as error:
                logger.error("the queue cannot be looked through: %s", error.strerror)


def describe_receiver(config: ListenConfig) -> ReceiverSettings:
    """The receiver's part of the settings."""
    return ReceiverSettings(
        host=config.dicom_host,
        port=config.dicom_port,
        title=config.title,
        allowed=config.allow,
        most_senders=config.senders,
        most_instance_bytes=config.instance_mb * MEGABYTE,
        certificate=config.dicom_tls_cert,
        key=config.dicom_tls_key,
        client_ca=config.dicom_tls_client_ca,
    )


def list_destinations(config: ListenConfig) -> list[Destination]:
    """Where results go.

    Raises:
        OSError: a certificate cannot be read, or a folder is none.
    """
    tls = None
    if config.send_tls_ca is not None:
        tls = ssl.create_default_context(cafile=config.send_tls_ca)
        if config.send_tls_cert is not None:
            tls.load_cert_chain(config.send_tls_cert, config.send_tls_key)
    found: list[Destination] = [
        CStoreDestination(*address, calling=config.title, tls=tls) for address in config.list_addresses()
    ]
    found += [StowDestination(url, config.send_tls_ca, config.stow_token) for url in config.stow_to]
    for kind, urls in ((FHIR, config.fhir_to), (HL7, config.hl7_to)):
        found += [PostDestination(url, kind, config.send_tls_ca, config.post_token) for url in urls]
    for folder in map(Path, config.folder_to):
        if not folder.is_dir():
            raise NotADirectoryError(20, "is no folder", str(folder))
        found.append(FolderDestination(folder))
    return found
