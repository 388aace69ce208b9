"""``python -m gateway listen``: settings in, exit code out."""

from __future__ import annotations

import os
from collections.abc import Sequence

from client.cli.connection import Connection, add_connection_flags, read_connection
from gateway.listen.quiet import quiet_libraries
from gateway.listen.settings import ListenConfig
from gateway.results.settings import ResultSettings
from server.flags import LineParser, add_settings, list_settings, read_settings
from server.machine.memory import return_freed_memory
from server.process.console import complain
from server.process.log import start_log, stop_log

ARENAS = 2
"""Of the C library: each keeps what was free once, and every association has threads of its own."""


def build_parser() -> LineParser:
    """The command line."""
    parser = LineParser(
        prog="python -m gateway listen",
        description="Receives studies by C-STORE, has the server judge them, and sends the results to archives.",
        epilog=(
            "examples:\n"
            "  python -m gateway listen --queue queue --send-to ARCHIVE@10.0.0.5:104\n"
            "  python -m gateway listen --queue queue --stow-to http://10.0.0.5:8042/dicom-web --quiet-seconds 60\n"
            "  python -m gateway listen --queue queue --send-to ARCHIVE@10.0.0.5:104 --dicom-host 0.0.0.0 \\\n"
            "      --dicom-insecure --allow CT1 CT2 --server box-7:50051 --tls-ca ca.pem\n\n"
            "Every setting may also be given as STROKE_NAME in the environment; flags win.\n"
            "Exit codes: 0 stopped, 1 failed (one line says why), 2 usage. What waits is in the queue, whatever ends\n"
            "the process. Research software. Not a medical device, not for diagnosis."
        ),
    )
    add_settings(parser, ListenConfig)
    add_settings(parser, ResultSettings)
    add_connection_flags(parser.add_argument_group("the server that judges"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Listens until a signal. Returns 0 after a clean stop, 1 when it cannot listen; usage errors exit with 2."""
    parser = build_parser()
    options = parser.parse_args(argv)
    # Apart, so that a variable of one is not told as unknown to the other.
    of_results = {one.variable for one in list_settings(ResultSettings)}
    rest = {name: value for name, value in os.environ.items() if name not in of_results}
    config = read_settings(parser, options, ListenConfig, environment=rest)
    known = {name: value for name, value in os.environ.items() if name in of_results}
    results = read_settings(parser, options, ResultSettings, environment=known)
    for kind, urls in (("fhir", config.fhir_to), ("hl7", config.hl7_to)):
        if urls and kind not in results.results:
            parser.error(f"--{kind}-to gets nothing without {kind} among --results")
    return run(config, results, read_connection(parser, options))


def run(config: ListenConfig, results: ResultSettings, connection: Connection) -> int:
    """See ``main``."""
    # Here, so that --help and usage errors do not wait for grpc and pydicom.
    from client import StrokeClientError
    from gateway.judge.results import ResultMaker
    from gateway.judge.windows import ModelWindows
    from gateway.listen.service import Gateway
    from gateway.queue.folder import QueueError

    return_freed_memory(ARENAS)
    quiet_libraries()
    start_log(config.log_level, config.log_format)
    try:
        with connection.open_client() as client:
            return Gateway(config, client, ResultMaker(results, ModelWindows(client))).run(handle_signals=True)
    except (QueueError, StrokeClientError) as error:
        complain(f"gateway listen: error: {error}")
        return 1
    finally:
        stop_log()
