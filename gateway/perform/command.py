"""``python -m gateway perform``: settings in, exit code out."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

from client.cli.connection import Connection, add_connection_flags, read_connection
from gateway.perform.settings import PerformConfig
from server.flags import LineParser, add_settings, read_settings
from server.machine.memory import return_freed_memory
from server.process.console import complain
from server.process.log import start_log, stop_log

ARENAS = 2


def build_parser() -> LineParser:
    """The command line."""
    parser = LineParser(
        prog="python -m gateway perform",
        description=(
            "Performs tasks of a worklist (UPS-RS, IHE AI Workflow for Imaging): claims them, fetches their images by "
            "WADO-RS, has the server judge them, stores the results by STOW-RS, and tells the worklist."
        ),
        epilog=(
            "examples:\n"
            "  python -m gateway perform --worklist http://10.0.0.5:8080/dcm4chee-arc/aets/DCM4CHEE/rs \\\n"
            "      --title-in-path --workitem-code 110004^DCM --queue tasks\n"
            "  python -m gateway perform --worklist https://ris/dicom-web --archive https://pacs/dicom-web \\\n"
            "      --label STROKE --web-ca ca.pem --web-token token --events --queue tasks\n"
            "  python -m gateway perform --worklist http://ris/dicom-web --label STROKE --queue tasks --once\n\n"
            "Every setting may also be given as STROKE_NAME in the environment; flags win.\n"
            "Exit codes: 0 stopped, or all done (--once), 1 failed, or not all done, 2 usage. A task that was claimed\n"
            "is in the queue, whatever ends the process, and goes on at the next start.\n"
            "Research software. Not a medical device, not for diagnosis."
        ),
    )
    add_settings(parser, PerformConfig)
    add_connection_flags(parser.add_argument_group("the server that judges"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Performs tasks. Returns 0 when it was stopped or all is done, 1 when not; usage errors exit with 2."""
    parser = build_parser()
    options = parser.parse_args(argv)
    config = read_settings(parser, options, PerformConfig, environment=dict(os.environ))
    if config.events and importlib.util.find_spec("websockets") is None:
        parser.error("--events needs websockets, which is not installed")
    return run(config, read_connection(parser, options))


def run(config: PerformConfig, connection: Connection) -> int:
    """See ``main``."""
    # Here, so that --help and usage errors do not wait for grpc.
    from client import StrokeClientError
    from gateway.judge.results import ResultMaker
    from gateway.judge.windows import ModelWindows
    from gateway.listen.quiet import quiet_libraries
    from gateway.perform.service import Performer
    from gateway.queue.folder import QueueError
    from gateway.results.settings import ResultSettings

    return_freed_memory(ARENAS)
    quiet_libraries()
    start_log(config.log_level, config.log_format)
    try:
        with connection.open_client() as client:
            make = ResultMaker(ResultSettings(), ModelWindows(client))
            return Performer(config, client, make).run(handle_signals=True)
    except (QueueError, StrokeClientError) as error:
        complain(f"gateway perform: error: {error}")
        return 1
    finally:
        stop_log()
