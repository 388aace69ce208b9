"""``python -m cluster serve``: the server on Ray Serve, until a signal."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.archive.storage import tell
from cluster.models import load_registry
from cluster.ray_session import connect, quieten
from cluster.settings import OF_MODEL, read_command
from server.config import MOST_PORT, ServerConfig
from server.errors import ModelFileError
from server.flags import LineParser, check_settings, require, setting
from server.process.console import complain, say

OF_SERVER = (
    *OF_MODEL,
    *("explain", "insecure", "queue", "streams", "max_wait_seconds", "stream_idle_seconds"),
    *("study_rules", "study_slices", "study_mb"),
)
"""Settings of the server that this command has, too."""

MOST_REPLICAS, MOST_SECONDS = 10_000, 86_400
SERVICES = "cluster.serve_app.add_services"
EXIT_FAILED, EXIT_USAGE = 1, 2

EPILOG = """examples:
  python -m cluster serve --insecure
  python -m cluster serve --insecure --address auto --most-replicas 16

Ray's proxy listens on all addresses, in plain text: --insecure says that this is meant. Clients are as ever:
  python -m client --server HOST:50051 scan.png
SIGTERM or Ctrl-C ends it. Exit codes: 0 stopped as asked, 1 cannot serve, 2 usage.
Most need plain replicas of python -m server instead: docs/ray.md says when.
"""


@dataclass(frozen=True)
class ServeConfig:
    """What is set of Ray Serve alone.

    Raises:
        ValueError: a value is out of range; the text names the setting.
    """

    port: int = setting(50051, "TCP port of Ray's gRPC proxy", least=1, most=MOST_PORT)
    http_port: int = setting(8000, "TCP port of Ray's HTTP proxy, on this machine alone", least=1, most=MOST_PORT)
    address: str = setting("", "of the Ray cluster (auto: the one of this machine); empty: this machine alone")
    least_replicas: int = setting(
        1, "processes that serve, one processor each, at least", least=1, most=MOST_REPLICAS, metavar="N"
    )
    most_replicas: int = setting(0, "at most; 0: one for each processor", least=0, most=MOST_REPLICAS, metavar="N")
    target_calls: float = setting(
        2.0, "open calls that each is to have: with more, another one is started", least=0.1, most=1000
    )
    grow_seconds: float = setting(30.0, "how long there are more before one is started", least=0, most=MOST_SECONDS)
    shrink_seconds: float = setting(600.0, "how long there are fewer before one is ended", least=0, most=MOST_SECONDS)

    def __post_init__(self) -> None:
        check_settings(self)
        require(
            not self.most_replicas or self.most_replicas >= self.least_replicas,
            "most_replicas",
            f"must be at least --least-replicas, {self.least_replicas}, got {self.most_replicas}",
        )


def main(argv: Sequence[str]) -> int:
    """Serves, and returns the exit code."""
    parser = LineParser("python -m cluster serve", "Serves stroke.v1 by way of Ray Serve.", EPILOG)
    config, server = read_command(parser, ServeConfig, OF_SERVER, argv)
    if not server.insecure:
        parser.error("--insecure is missing: Ray's proxy listens on all addresses, in plain text")
    return serve(config, server)


def serve(config: ServeConfig, server: ServerConfig) -> int:
    """Serves until SIGTERM or SIGINT, and returns the exit code."""
    stop = threading.Event()
    try:
        model = load_registry(server).default
    except ModelFileError as error:
        complain(f"cluster serve: error: {error.message} [{error.reason}]")
        return EXIT_USAGE
    quieten()
    from ray.exceptions import RayError

    try:
        with connect(config.address, config.most_replicas) as processors:
            start(config, server, config.most_replicas or processors)
            for number in (signal.SIGTERM, signal.SIGINT):  # Ray has put its own handlers there
                signal.signal(number, lambda *_: stop.set())
            say(f"serving {model.spec.name} {model.spec.version} on port {config.port} of Ray's gRPC proxy")
            stop.wait()
            end()
    except (RayError, RuntimeError, OSError) as error:
        complain(f"cluster serve: error: {tell(error)}")
        return EXIT_FAILED
    return 0


def start(config: ServeConfig, server: ServerConfig, most_replicas: int) -> None:
    """Starts the proxy and the application; returns once it answers. Raises RuntimeError."""
    from ray import serve as ray_serve

    from cluster.serve_app import APPLICATION, make_application

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    ray_serve.start(
        http_options={"host": "127.0.0.1", "port": config.http_port},
        grpc_options={"port": config.port, "grpc_servicer_functions": [SERVICES], "enable_reflection": False},
        logging_config=quiet,
    )
    replicas = {
        "min_replicas": config.least_replicas,
        "max_replicas": max(most_replicas, config.least_replicas),
        "target_ongoing_requests": config.target_calls,
        "upscale_delay_s": config.grow_seconds,
        "downscale_delay_s": config.shrink_seconds,
    }
    ray_serve.run(make_application(server, replicas), name=APPLICATION, logging_config=quiet)


def end() -> None:
    """Ends the application and the proxy, once the calls that are open have ended."""
    from ray import serve as ray_serve

    ray_serve.shutdown()
