"""Settings of the server: one definition for flags, ``STROKE_*`` environment names, help and the table in the docs."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.flags import LineParser, add_settings, check_settings, flag_of, quote, read_settings, require, setting
from server.images.image_file import DEFAULT_LIMITS, ImageLimits
from server.machine.folders import find_cache, find_runtime_folder
from server.models.engines.engine import RUNTIMES
from server.process.log_lines import FORMATS

MOST_IMAGE_BYTES = 512 * 1024 * 1024
"""gRPC counts the bytes of a message in 31 bits."""

LARGEST_MESSAGE = 3
"""A message may be so many times as large as the largest image."""

TRANSPORT_SLACK = 64 * 1024
"""What a message may hold besides its image."""

LOG_LEVELS = ("debug", "info", "warning", "error")
PRECISIONS = ("auto", "fp32", "int8")
PROFILES = ("latency", "throughput", "balanced", "tuned")
MOST_THREADS = 1024
"""More than any box has processors; each is a thread, or may become one."""

MOST_SIDE = 65_535
"""The largest that a JPEG can say (ITU-T T.81, B.2.2)."""

MOST_PIXELS = 1_000_000_000
"""Three bytes each while they are decoded, for each worker."""

MOST_PORT = 65_535
LOCAL = re.compile(r"(127\.[\d.]+|localhost|\[::1\]):\d+")  # HOST:PORT of this machine alone
LEAST_AUDIT_BYTES = 4096
MOST_AUDIT_BYTES = 1024**4
MOST_MONTHS = 1200

DAY = 86_400
LEAST_SECONDS = 0.001
LEAST_AGE_SECONDS = 1.0


@dataclass(frozen=True)
class ServerConfig:
    """All settings.

    Raises:
        ValueError: a value is out of range; the text names the setting.
    """

    models: Path = setting(Path("models"), "folder of models, each in NAME/VERSION/")
    model: str = setting(
        "", "NAME or NAME/VERSION to serve; several separated by commas, the first is the default; empty: the only one"
    )
    host: str = setting(
        "127.0.0.1",
        "address to listen on; 0.0.0.0 for all, with --tls-cert or --insecure; unix:/PATH for a socket",
    )
    port: int = setting(50051, "TCP port; 0 takes a free one", least=0, most=MOST_PORT)
    http: str = setting(
        "",
        "HOST:PORT of HTTP beside gRPC, such as 127.0.0.1:8000: the page, POST /predict and /v2 (an extra "
        "installation); 0.0.0.0:8000 for all addresses, with --tls-cert or --insecure; empty: none",
    )
    probe_port: int = setting(
        0,
        "TCP port that answers health checks and nothing else, always in plain text, for probes that speak no TLS "
        "(those of Kubernetes); 0: none",
        least=0,
        most=MOST_PORT,
    )
    admin: str = setting(
        "auto",
        "folder of the socket on which 'python -m server model' changes what is served; this server's user alone may "
        "enter it; auto: strokeserve-UID in XDG_RUNTIME_DIR or the temporary folder; off: none",
    )
    socket_mode: str = setting(
        "600",
        "who may call through a socket, as its file mode in octal digits: 600 the server's user alone, 660 its group "
        "too, 666 everybody on the machine",
    )
    tokens: Path | None = setting(
        None,
        "file of clients with the digests of their tokens, roles and limits (python -m server token --help): each call "
        "then needs a token; read again when it changes",
    )
    allow_clients: Path | None = setting(
        None,
        "file of names, one a line: only those may call whose certificate has one of them; read again when it changes",
    )
    health: str = setting(
        "open", "who may ask for health: open (everybody), or token (those who may call)", choices=("open", "token")
    )
    reflection: bool = setting(
        False,
        "tell those who may call, by gRPC's server reflection, what services and messages there are (for grpcurl)",
    )
    tls_cert: Path | None = setting(
        None,
        "certificate of this server, in PEM form, with those between it and its root: calls are encrypted",
        metavar="FILE",
    )
    tls_key: Path | None = setting(None, "its private key, readable for the server's user alone", metavar="FILE")
    tls_client_ca: Path | None = setting(
        None, "authorities of clients, in PEM form: only who has a certificate of one of these may call", metavar="FILE"
    )
    worklist: Path | None = setting(
        None, "file in which the gateway has the order of studies, shown at /worklist of HTTP; it names patients' ids"
    )
    insecure: bool = setting(
        False,
        "listen beyond this machine without --tls-cert, too: anybody on the way can read and change images and answers",
    )
    require_signature: Path | None = setting(
        None,
        "folder of public keys (*.pem): only models are served that one of these has signed (python -m converter sign; "
        "an extra installation)",
        metavar="DIR",
    )
    precision: str = setting(
        "auto",
        "numbers that models compute with: fp32, int8, or auto (int8 where the model has it for this processor)",
        choices=PRECISIONS,
    )
    profile: str = setting(
        "balanced",
        "what the processors are for: latency (all for each image), throughput (one for each image), balanced (all for "
        "an image that is alone, one when many are in work), tuned (what 'python -m server tune' has found to be best)",
        choices=PROFILES,
    )
    threads: str = setting(
        "auto",
        "threads inside one run of the model: auto (what the profile says), or a number",
        choices=("auto",),
        least=1,
        most=MOST_THREADS,
    )
    workers: int = setting(
        0,
        "images judged at the same time; 0: one for each processor that this process may use",
        least=0,
        most=MOST_THREADS,
    )
    decoders: int = setting(
        0,
        "processes that decode compressed DICOM files, at most; each takes 20 to 60 MB from the first such file on; "
        "0: one for each worker",
        least=0,
        most=MOST_THREADS,
    )
    runtime: str = setting(
        "onnxruntime", "what runs the model: onnxruntime, or openvino (an extra installation)", choices=RUNTIMES
    )
    cache: str = setting(
        "auto",
        "folder for optimised models, which load faster; auto: strokeserve in XDG_CACHE_HOME or ~/.cache; off: none",
    )
    queue: int = setting(
        256,
        "single images that may wait for a worker, of which no caller gets more than it leaves free for others; what "
        "would not be judged within its deadline is refused before that, too (RESOURCE_EXHAUSTED)",
        least=0,
        most=10_000,
    )
    streams: int = setting(
        16,
        "streams (PredictStream, PredictBatches, PredictStudy, ModelStreamInfer) that may be open at the same time",
        least=1,
        most=1000,
    )
    study_rules: Path | None = setting(
        None,
        "file of rules by which series of studies are chosen (docs/studies.md), in TOML; those of the program unless "
        "given",
        metavar="FILE",
    )
    study_slices: int = setting(
        2000, "slices that a study may have, those included that are not judged", least=1, most=5000
    )
    study_mb: int = setting(2000, "megabytes (1,000,000 bytes) of files that a study may have", least=1, most=1_000_000)
    stream_idle_seconds: float = setting(
        60.0,
        "a stream ends when nothing arrives on it, or no answer is taken, for so long",
        least=LEAST_SECONDS,
        most=DAY,
    )
    max_wait_seconds: float = setting(
        30.0,
        "longest time that an image may wait, whatever the caller's deadline",
        least=LEAST_SECONDS,
        most=DAY,
    )
    connection_age: float = setting(
        3600.0,
        "seconds, a tenth more or less, after which a connection takes no new calls, and after which a stream ends so "
        "that its caller opens another: calls come to servers that are new, and certificates are looked at again; 0: "
        "never",
        least=0,
        most=DAY,
    )
    connection_grace: float = setting(
        300.0,
        "seconds beyond the age of a connection, and once more that age, after which what is still open on it is cut "
        "off",
        least=LEAST_SECONDS,
        most=DAY,
    )
    drain_seconds: float = setting(
        30.0, "after SIGTERM, how long requests in flight may take to finish", least=LEAST_SECONDS, most=DAY
    )
    max_image_bytes: int = setting(
        DEFAULT_LIMITS.max_bytes, "largest image file, in bytes", least=1, most=MOST_IMAGE_BYTES
    )
    min_image_side: int = setting(
        DEFAULT_LIMITS.min_side, "shortest side of an image, in pixels", least=1, most=MOST_SIDE
    )
    max_image_side: int = setting(
        DEFAULT_LIMITS.max_side, "longest side of an image, in pixels", least=1, most=MOST_SIDE
    )
    max_image_pixels: int = setting(
        DEFAULT_LIMITS.max_pixels, "largest width x height of an image, in pixels", least=1, most=MOST_PIXELS
    )
    checks: str = setting(
        "on",
        "whether a label is withheld (status NOT_ANALYSED) from an image that is blank, inverted, cut off or no head, "
        "where the model is one for head CTs, and where the model is in doubt: on or off",
        choices=("on", "off"),
    )
    explain: bool = setting(
        False,
        "answer Explain, too: a heatmap of where in an image the evidence lies, from models that have one; for "
        "research, not for localisation, and nothing that a triage device may show",
    )
    audit: Path | None = setting(
        None, "file for the audit log: a line for each image that is judged or refused; none unless given"
    )
    audit_required: bool = setting(False, "refuse images (AUDIT_UNAVAILABLE) while the audit log cannot be written")
    audit_hash: str = setting(
        "salted",
        "what the audit log has of an image: its SHA-256, plain or salted (says nothing to those without FILE.salt)",
        choices=("salted", "plain"),
    )
    audit_peer: str = setting(
        "on", "whether the audit log has the callers' addresses: on or off", choices=("on", "off")
    )
    audit_max_bytes: int = setting(
        64 * 1024 * 1024,
        "largest file of the audit log, which goes on in a new one then and every day (UTC)",
        least=LEAST_AUDIT_BYTES,
        most=MOST_AUDIT_BYTES,
    )
    audit_keep_months: int = setting(
        0, "months that files of the audit log are kept; 0: for ever", least=0, most=MOST_MONTHS
    )
    log_level: str = setting(
        "info",
        "least level of the log on standard error: debug (then with the texts of errors, which may hold what callers "
        "have sent), info, warning or error",
        choices=LOG_LEVELS,
    )
    log_format: str = setting("text", "lines of the log: text, or json (one object a line)", choices=FORMATS)
    metrics_port: int = setting(
        0, "port of the metrics for Prometheus, at http://HOST:PORT/metrics; 0: none", least=0, most=MOST_PORT
    )
    metrics_host: str = setting(
        "127.0.0.1", "address of the metrics, which whoever reaches it can read: without encryption, without password"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        require(
            self.max_image_side >= self.min_image_side,
            "max_image_side",
            f"must be at least --min-image-side, {self.min_image_side}, got {self.max_image_side}",
        )
        require(self.host != "", "host", "must not be empty")
        require(self.metrics_host != "", "metrics_host", "must not be empty")
        require(
            not self.http or (re.fullmatch(r".+:\d{1,5}", self.http) is not None and self.http_port <= MOST_PORT),
            "http",
            f"must be HOST:PORT, such as 127.0.0.1:8000, got {quote(self.http)}",
        )
        require(
            self.connection_age == 0 or self.connection_age >= LEAST_AGE_SECONDS,
            "connection_age",
            f"must be 0, or at least {LEAST_AGE_SECONDS:g}, got {self.connection_age:g}",
        )
        require(self.worklist is None or self.http != "", "worklist", "needs --http, which shows it")
        require(
            any((self.worklist is None, self.tokens, self.tls_client_ca, LOCAL.fullmatch(self.http))),
            "worklist",
            "needs --tokens or --tls-client-ca where other machines reach --http: it names patients",
        )
        require(self.audit is not None or not self.audit_required, "audit_required", "needs --audit FILE")
        require(self.tls_cert is None or self.tls_key is not None, "tls_key", "is missing: --tls-cert needs its key")
        for name in ("tls_key", "tls_client_ca"):
            is_alone = getattr(self, name) is not None and self.tls_cert is None
            require(not is_alone, "tls_cert", f"is missing: without it {flag_of(name)} means nothing")
        require(
            re.fullmatch(r"(0o?)?[67][0-7]{2}", self.socket_mode) is not None,
            "socket_mode",
            f"must be octal digits from 600 to 777, such as 660, got {quote(self.socket_mode)}: the server's own user "
            "reads and writes",
        )
        require(
            self.health == "open" or self.tokens is not None or self.allow_clients is not None,
            "health",
            "token needs --tokens or --allow-clients",
        )
        require(
            self.allow_clients is None or self.tls_client_ca is not None,
            "allow_clients",
            "needs --tls-client-ca: without it nobody shows a certificate",
        )

    @property
    def image_limits(self) -> ImageLimits:
        """The limits of the image gate."""
        return ImageLimits(self.max_image_bytes, self.min_image_side, self.max_image_side, self.max_image_pixels)

    @property
    def http_port(self) -> int:
        """The port in ``http``."""
        return int(self.http.rpartition(":")[2])

    @property
    def most_connection_seconds(self) -> float:
        """How long a connection of HTTP or a stream of images lives: ``connection_age``, infinite where that is 0."""
        return self.connection_age or math.inf

    @property
    def most_message_bytes(self) -> int:
        """Largest message: what is too large an image then gets our own reason; what is larger still is refused by gRPC
        from its first bytes on."""
        return LARGEST_MESSAGE * self.max_image_bytes + TRANSPORT_SLACK

    @property
    def admin_folder(self) -> Path | None:
        """``admin`` as a folder, which need not exist; None: there is to be no socket."""
        if self.admin == "off":
            return None
        return find_runtime_folder() if self.admin in ("auto", "") else Path(self.admin)

    @property
    def socket_permissions(self) -> int:
        """``socket_mode`` as a number."""
        return int(self.socket_mode[-3:], 8)

    @property
    def cache_folder(self) -> Path | None:
        """``cache`` as a folder, which need not exist; None when nothing is to be kept, or there is no place for it."""
        if self.cache == "off":
            return None
        if self.cache not in ("auto", ""):
            return Path(self.cache)
        root = find_cache()
        return root and root / "strokeserve"


def build_parser() -> LineParser:
    """The command line of ``python -m server``."""
    parser = LineParser(
        prog="python -m server",
        description="Serves stroke-detection models over gRPC (stroke.v1.StrokeService).",
        epilog=(
            "examples:\n"
            "  python -m server\n"
            "  python -m server --port 0 --model stroke-cnn/4\n"
            "  python -m server --http 127.0.0.1:8000\n"
            "  python -m server --precision fp32 --profile latency\n"
            "  python -m server --host unix:/run/stroke/server.sock --socket-mode 660\n"
            "  python -m server tune --help\n"
            "  python -m server token --help\n"
            "  python -m server audit --help\n"
            "  python -m server model --help\n"
            "  python -m server --host 0.0.0.0 --tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem\n"
            "  python -m server certs --help\n"
            "  STROKE_WORKERS=4 python -m server\n\n"
            "Every flag can be given as an environment variable: --max-image-bytes is STROKE_MAX_IMAGE_BYTES; an empty "
            "one\nis as none.\n"
            "SIGTERM or Ctrl-C finishes the requests in flight and exits 0; a second one stops at once.\n"
            "Exit codes: 0 stopped as asked, 1 cannot serve (model, port), 2 usage.\n"
            "Research software. Not a medical device. Not for diagnosis or triage of patients."
        ),
    )
    add_settings(parser, ServerConfig)
    return parser


def read_config(argv: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> ServerConfig:
    """Reads flags and environment; a value that cannot be used ends the process with exit code 2 and one line."""
    parser = build_parser()
    return read_settings(parser, parser.parse_args(argv), ServerConfig, environment=environment)
