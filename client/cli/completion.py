"""``python -m client completion bash|zsh``: prints a script that completes, which shtab makes from the parsers."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from .connection import SCRIPT, make_parser, name_program

_EPILOG = """\
examples:
  eval "$({program} completion bash)"
  {program} completion zsh > ~/.stroke.zsh; echo '. ~/.stroke.zsh' >> ~/.zshrc

Called through Python, whose own completion is left alone, the script defines the command `stroke`, which does the same
from any folder, and completes that.
"""

_HEAD = """\
# Completes `stroke` in {shell}. Made by `{program} completion {shell}`: make it again after an update.
"""

_FUNCTION = """\
# Until this folder moves, `stroke` is `{program}` from any folder.
stroke() {{
    PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}} {python} -m {package} "$@"
}}
"""

_BASH_PREAMBLE = """\
# The first word may be a command, or a file like all others.
_shtab_stroke_pos_0_COMPGEN=_shtab_compgen_files
"""

_ZSH_START = "typeset -A opt_args"
"""What begins the end of shtab's script for zsh, which is for a file that is loaded by the name of its function."""

_ZSH_TAIL = """\
# The first word may be a command, whose options follow, or a file like all others.
_stroke() {
    local options=_shtab_stroke_${words[2]}_options
    if (( CURRENT > 2 && $+parameters[$options] )); then
        shift words
        (( CURRENT -= 1 ))
        _arguments -s "${(P@)options}"
        return
    fi
    (( CURRENT > 2 )) || _shtab_stroke_commands
    _arguments -s $_shtab_stroke_options
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _stroke stroke"""


def build_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "completion", "[OPTION]... SHELL", "Prints a script that completes the client's command line.", _EPILOG
    )
    parser.add_argument("shell", choices=("bash", "zsh"), metavar="SHELL", help="that is to read it: bash or zsh")
    return parser


def main(argv: list[str]) -> int:
    """Runs the sub-command and returns its exit status; ``argv`` are the arguments after ``completion``."""
    shell = build_parser().parse_args(argv).shell
    try:
        script = write_script(shell)
    except ModuleNotFoundError as error:
        if error.name != "shtab":
            raise
        print(
            "error: completion needs the package shtab: pip install 'strokeserve-client[cli]', or in the project's "
            "folder pip install --require-hashes -r requirements/cli.lock",
            file=sys.stderr,
        )
        return 1
    program = name_program()
    print(_HEAD.format(shell=shell, program=program))
    if program != SCRIPT:
        package = Path(__file__).resolve().parents[1]
        root, python = shlex.quote(str(package.parent)), shlex.quote(sys.executable)
        print(_FUNCTION.format(program=program, root=root, python=python, package=package.name))
    print(script)
    return 0


def write_script(shell: str) -> str:
    """Returns what completes ``stroke`` in a shell, ``bash`` or ``zsh``.

    Raises:
        ModuleNotFoundError: shtab is not installed.
    """
    import shtab

    parsers = list_parsers()
    for action in (action for parser in parsers.values() for action in parser._actions):
        if action.metavar in ("FILE", "IMAGE"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    tree = join_parsers(parsers)
    if shell == "bash":
        return str(shtab.complete(tree, shell, preamble=_BASH_PREAMBLE))
    script, _, _ = shtab.complete(tree, shell).partition(_ZSH_START)
    # shtab lets operands of any number be one; `*:` is zsh's for all that follow.
    return re.sub(r'"\(\*\)::?', '"*:', script) + _ZSH_TAIL


def join_parsers(parsers: Mapping[str, argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Returns all parsers as one, for completion alone: argparse itself would take an image for a wrong command."""
    first = argparse.ArgumentParser(add_help=False)
    commands = first.add_subparsers(metavar="COMMAND")
    commands.nargs = None  # one word; those that follow are the images of the main command
    for name, parser in parsers.items():
        if name:
            text = (parser.description or "").rstrip(".")
            commands.add_parser(name, parents=[parser], add_help=False, help=text, description=text)
    return argparse.ArgumentParser(SCRIPT, parents=[first, parsers[""]], add_help=False)


def list_parsers() -> dict[str, argparse.ArgumentParser]:
    """Returns the parsers of the sub-commands by name; that of the main command is ``""``."""
    from .main import SUBCOMMANDS
    from .main import build_parser as build_main

    modules = {name: import_module(module, __package__) for name, module in SUBCOMMANDS.items()}
    return {"": build_main(), **{name: module.build_parser() for name, module in modules.items()}}
