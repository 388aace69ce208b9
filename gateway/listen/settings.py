"""What ``python -m gateway listen`` can be told, each thing defined once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.addresses import Address, is_title, read_address
from server.flags import REQUIRED, check_settings, require, setting
from server.process.log_lines import FORMATS

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ListenConfig:
    """A receiver, a queue, and where results go.

    Raises:
        ValueError: a setting is out of range, or two do not go together; the message names them.
    """

    queue: Path = setting(REQUIRED, "folder of what waits, made with mode 700; studies are in it until they are done")
    send_to: tuple[str, ...] = setting(
        (), "archives that get the results by C-STORE: TITLE@HOST:PORT; with --send-tls-ca over TLS", metavar="ADDRESS"
    )
    stow_to: tuple[str, ...] = setting(
        (), "archives that get the results by STOW-RS: URLs of DICOMweb services", metavar="URL"
    )
    folder_to: tuple[str, ...] = setting(
        (), "folders that get the results as files, FHIR and HL7 among them", metavar="DIR"
    )
    dicom_host: str = setting(
        "127.0.0.1", "address to listen on; 0.0.0.0 for all, with --dicom-tls-cert or --dicom-insecure", metavar="HOST"
    )
    dicom_port: int = setting(11112, "port to listen on; 0: any that is free", least=0, most=65535)
    title: str = setting("STROKESERVE", "own title; who calls another one is rejected", metavar="TITLE")
    allow: tuple[str, ...] = setting((), "titles that may send; any unless given", metavar="TITLE")
    dicom_tls_cert: Path | None = setting(None, "certificate of the receiver, PEM; turns TLS on", metavar="FILE")
    dicom_tls_key: Path | None = setting(None, "its private key", metavar="FILE")
    dicom_tls_client_ca: Path | None = setting(
        None, "authorities of the senders' certificates; turns mutual TLS on", metavar="FILE"
    )
    dicom_insecure: bool = setting(False, "listen on other addresses than this machine's without TLS")
    senders: int = setting(16, "associations at the same time", least=1, most=200)
    instance_mb: int = setting(64, "largest instance, in MB", least=1, most=2000)
    quiet_seconds: float = setting(
        20.0,
        "a study is complete when nothing of it has come for so long; three times as long while its sender has its "
        "association open",
        least=0.5,
        most=3600,
    )
    least_free_mb: int = setting(
        500,
        "room that the disk must have left, otherwise senders are told that there is none (A700)",
        least=1,
        most=10**6,
    )
    judges: int = setting(2, "studies that are judged at the same time", least=1, most=16)
    give_up_hours: float = setting(
        24.0,
        "how long the server, and each destination, is tried again before a study is given up",
        least=0.001,
        most=1000,
    )
    send_tls_ca: Path | None = setting(
        None,
        "authorities of the archives' certificates; turns TLS on for --send-to, and vouches for what has a URL",
        metavar="FILE",
    )
    send_tls_cert: Path | None = setting(None, "own certificate for archives that ask for one", metavar="FILE")
    send_tls_key: Path | None = setting(None, "its private key", metavar="FILE")
    stow_token: Path | None = setting(
        None, "file with a bearer token for --stow-to, read again before each request", metavar="FILE"
    )
    fhir_to: tuple[str, ...] = setting(
        (), "FHIR servers that get the bundle (--results fhir) by POST: their base URLs", metavar="URL"
    )
    hl7_to: tuple[str, ...] = setting(
        (), "URLs that get the message (--results hl7) by POST, as HL7 over HTTP", metavar="URL"
    )
    post_token: Path | None = setting(
        None, "file with a bearer token for --fhir-to and --hl7-to, read again before each request", metavar="FILE"
    )
    worklist: Path | None = setting(
        None,
        "file of the worklist, for --worklist of the server: QUEUE/worklist.json unless told; its group may read it, "
        "so the server may be another user",
        metavar="FILE",
    )
    worklist_hours: float = setting(24.0, "how long a study is on that list", least=0.1, most=8760)
    keep_failed_days: float = setting(
        7.0, "how long studies and results that were given up stay in the queue; 0: not at all", least=0, most=365
    )
    keep_days: float = setting(
        30.0, "how long it is remembered what was delivered, and the worklist has it", least=0.01, most=365
    )
    log_level: str = setting("info", "what is logged", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("text", "what a line of the log looks like", choices=FORMATS)

    def __post_init__(self) -> None:
        check_settings(self)
        require(
            bool(self.send_to or self.stow_to or self.folder_to or self.fhir_to or self.hl7_to),
            "send_to",
            "is missing: or --stow-to, --folder-to, --fhir-to, --hl7-to",
        )
        title = "is 1 to 16 printable ASCII characters without a backslash"
        require(is_title(self.title), "title", title)
        require(all(map(is_title, self.allow)), "allow", title)
        for name in ("stow_to", "fhir_to", "hl7_to"):
            is_url = all(one.startswith(("http://", "https://")) for one in getattr(self, name))
            require(is_url, name, "is a URL with http:// or https://")
        self.list_addresses()
        for cert, key in (("dicom_tls_cert", "dicom_tls_key"), ("send_tls_cert", "send_tls_key")):
            is_both = (getattr(self, cert) is None) == (getattr(self, key) is None)
            require(is_both, cert, "and its key belong together: give both or neither")
        require(
            self.dicom_tls_client_ca is None or self.dicom_tls_cert is not None,
            "dicom_tls_client_ca",
            "means nothing without --dicom-tls-cert",
        )
        require(
            self.send_tls_cert is None or self.send_tls_ca is not None,
            "send_tls_cert",
            "means nothing without --send-tls-ca",
        )
        require(
            self.dicom_host in LOOPBACK or self.dicom_tls_cert is not None or self.dicom_insecure,
            "dicom_host",
            "is another address than this machine's: give --dicom-tls-cert, or --dicom-insecure",
        )

    def list_addresses(self) -> list[Address]:
        """Archives for C-STORE.

        Raises:
            ValueError: one is none.
        """
        try:
            return [read_address(one) for one in self.send_to]
        except ValueError as error:
            raise ValueError(f"--send-to {error}") from None
