"""``python -m gateway judge``: settings in, exit code out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from client.cli.connection import Connection, add_connection_flags, read_connection
from gateway.folder.settings import JudgeConfig
from gateway.listen.quiet import quiet_libraries
from gateway.queue.folder import make_key, show
from gateway.results.settings import ResultSettings
from gateway.settings import read_several
from server.flags import LineParser, add_settings
from server.process.console import complain, say

if TYPE_CHECKING:
    from gateway.folder.judge import Layout
    from gateway.folder.studies import Study

EXIT_FAILED, EXIT_USAGE = 1, 2


def build_parser() -> LineParser:
    """The command line."""
    parser = LineParser(
        prog="python -m gateway judge",
        description="Has the server judge the studies of a folder, and writes their results into another one.",
        epilog=(
            "examples:\n"
            "  python -m gateway judge study --out results\n"
            "  python -m gateway judge /media/cdrom --out results --results sr,sc,fhir --json\n"
            "  python -m gateway judge studies --out results --server box-7:50051 --tls-ca ca.pem\n\n"
            "A study is what has one StudyInstanceUID, however its files are called. result.json names the results of\n"
            "every study, and no patient. It is whole at any moment: a run that was ended goes on where it was.\n"
            "Every setting may also be given as STROKE_NAME in the environment; flags win.\n"
            "Exit codes: 0 every study has its results (which may say why it was not analysed), 1 one has none (one\n"
            "line says why), 2 nothing to judge, or flags or folders that cannot be used.\n"
            "Research software. Not a medical device, not for diagnosis."
        ),
    )
    add_flags(parser)
    return parser


def add_flags(parser: LineParser) -> None:
    """Adds all that a folder can be judged with."""
    add_settings(parser, JudgeConfig)
    add_settings(parser, ResultSettings)
    add_connection_flags(parser.add_argument_group("the server that judges"))


def main(argv: Sequence[str] | None = None) -> int:
    """Judges a folder. Returns 0 when every study has results, 1 when one has none, 2 when there is nothing to judge;
    usage errors exit with 2."""
    parser = build_parser()
    options = parser.parse_args(argv)
    config, results = read_several(parser, options, JudgeConfig, ResultSettings)
    from gateway.folder.judge import Layout

    return run("judge", config, results, read_connection(parser, options), Layout(name_file))


def name_file(study: Study, name: str, uids: Mapping[str, str]) -> str:
    """``1f0c2a3b4d5e-sr.dcm``: the same study has the same names."""
    return f"{show(make_key(study.uid))}-{name}"


def run(command: str, config: JudgeConfig, results: ResultSettings, connection: Connection, layout: Layout) -> int:
    """Judges a folder. Returns the exit code; what is wrong has been printed."""
    # Here, so that --help and usage errors do not wait for grpc and pydicom.
    from client import StrokeClientError
    from gateway.folder.judge import FolderJudge, Outcome
    from gateway.folder.output import OutputError, open_output
    from gateway.folder.studies import FolderError, find_studies
    from gateway.judge.results import ResultMaker
    from gateway.judge.windows import ModelWindows

    def note(line: str) -> None:
        complain(f"gateway {command}: {line}")

    quiet_libraries()
    outcome = Outcome()
    try:
        found = find_studies(config.folder, config.most_files)
        with open_output(config.out) as output, connection.open_client() as client:
            outcome = FolderJudge(
                client, ResultMaker(results, ModelWindows(client)), results.results, layout, note
            ).judge(found, output, again=config.again)
    except FolderError as error:
        if config.json:
            say(
                json.dumps({"studies": [], "errors": [{"reason": "NOTHING_TO_JUDGE", "message": str(error)}]}, indent=1)
            )
        complain(f"gateway {command}: error: {config.folder}: {error}")
        return EXIT_USAGE
    except OutputError as error:
        complain(f"gateway {command}: error: {error}")
        return EXIT_USAGE
    except StrokeClientError as error:
        complain(f"gateway {command}: error: {error}")
        return EXIT_FAILED
    if config.json:
        say(json.dumps({"studies": outcome.studies, "errors": outcome.errors}, indent=1))
    else:
        say(f"{len(outcome.studies)} of {len(found.studies)} studies have results in {config.out}")
    if len(outcome.studies) < len(found.studies):
        reasons = ", ".join(sorted({error["reason"] for error in outcome.errors}))
        without = len(found.studies) - len(outcome.studies)
        complain(f"gateway {command}: error: {without} of {len(found.studies)} studies have no results ({reasons})")
        return EXIT_FAILED
    return 0
