"""``python -m client completion bash|zsh``: prints a script that completes, made from the parsers themselves."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

_EPILOG = """\
examples:
  eval "$(python -m client completion bash)"
  python -m client completion zsh > ~/.stroke.zsh; echo '. ~/.stroke.zsh' >> ~/.zshrc

The program is called through Python, whose own completion is left alone: the script defines the command `stroke`,
which is `python -m client` from any folder, and completes that.
"""

_HEAD = """\
# Defines `stroke`, which is `python -m client` from any folder, and completes it in {shell}.
# Made by `python -m client completion {shell}`: make it again after an update, or when this folder has moved.
stroke() {{
    PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}} {python} -m client "$@"
}}
"""

_BASH = """\
_stroke() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= words=
    if ((COMP_CWORD > 1)); then
        case ${{COMP_WORDS[1]}} in {commands}) command=${{COMP_WORDS[1]}} ;; esac
    fi
    COMPREPLY=()
    case "$command $before" in
{values}
    esac
    case $command in
{flags}
    esac
    if [[ $word != -* ]]; then
        words=
        case "$command" in
{operands}
        esac
        if ((COMP_CWORD == 1)); then words={words}; fi
    fi
    if [[ -n $words ]]; then mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word"); fi
    # Where nothing is left, readline completes file names; a name that begins like a command is offered beside it.
    if ((COMP_CWORD == 1 && ${{#COMPREPLY[@]}})) && [[ $word != -* ]]; then
        compopt -o filenames 2> /dev/null
        mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(compgen -f -- "$word")
    fi
}}
complete -o default -F _stroke stroke
"""

_ZSH = """\
{functions}
_stroke() {{
    if (( CURRENT > 2 && $+functions[_stroke_$words[2]] )); then
        shift words
        (( CURRENT -= 1 ))
        _stroke_$words[1]
        return
    fi
    local -a commands=({commands})
    (( CURRENT > 2 )) || _describe -t commands command commands
    _arguments {arguments}
}}
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
compdef _stroke stroke
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m client completion",
        description="Prints a script that completes the client's command line.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell that is to read the script")
    return parser


def main(argv: list[str]) -> int:
    """Runs the sub-command and returns its exit status; ``argv`` are the arguments after ``completion``."""
    shell = build_parser().parse_args(argv).shell
    parsers = list_parsers()
    head = _HEAD.format(
        shell=shell,
        root=shlex.quote(str(Path(__file__).resolve().parents[2])),
        python=shlex.quote(sys.executable),
    )
    print(head + (write_bash(parsers) if shell == "bash" else write_zsh(parsers)), end="")
    return 0


def list_parsers() -> dict[str, argparse.ArgumentParser]:
    """Returns the parsers of the sub-commands by name; that of the main command is ``""``."""
    from . import main as _cli

    modules = {name: import_module(module, __package__) for name, module in _cli.SUBCOMMANDS.items()}
    return {"": _cli.build_parser(), **{name: module.build_parser() for name, module in modules.items()}}


def write_bash(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """Returns the functions that complete in bash."""
    values: dict[str, list[str]] = {}
    flags, operands = [], []
    for command, parser in parsers.items():
        quoted = shlex.quote(command)
        for action in list_actions(parser):
            for option in action.option_strings if takes_value(action) else ():
                values.setdefault(_fill_bash(action), []).append(f"'{command} {option}'")
            if not action.option_strings and action.choices:
                operands.append(f"            {quoted}) words={shlex.quote(' '.join(map(str, action.choices)))} ;;")
        options = " ".join(option for action in list_actions(parser) for option in action.option_strings)
        flags.append(f"        {quoted}) words={shlex.quote(options)} ;;")
    commands = [command for command in parsers if command]
    return _BASH.format(
        commands="|".join(commands),
        words=shlex.quote(" ".join(commands)),
        values="\n".join(f"        {'|'.join(names)})\n            {fill} ;;" for fill, names in values.items()),
        flags="\n".join(flags),
        operands="\n".join(operands),
    )


def _fill_bash(action: argparse.Action) -> str:
    """Returns the commands that complete an option's value."""
    if action.choices:
        words = shlex.quote(" ".join(map(str, action.choices)))
        return f'mapfile -t COMPREPLY < <(compgen -W {words} -- "$word"); return'
    if action.metavar == "FILE":
        return "return"  # to readline's own file names, which know about spaces and quotes
    if action.metavar == "DIR":
        return "compopt -o dirnames +o default 2> /dev/null; return"
    return "compopt +o default 2> /dev/null; return"  # a number or name that only the user knows


def write_zsh(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """Returns the functions that complete in zsh."""
    functions = [
        f"_stroke_{command}() {{\n    _arguments {' '.join(_describe_zsh(parser))}\n}}"
        for command, parser in parsers.items()
        if command
    ]
    commands = [
        shlex.quote(f"{command}:{_escape_zsh((parser.description or '').rstrip('.'))}")
        for command, parser in parsers.items()
        if command
    ]
    return _ZSH.format(
        functions="\n".join(functions),
        commands=" ".join(commands),
        arguments=" ".join(_describe_zsh(parsers[""])),
    )


def _describe_zsh(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yields the specifications of ``_arguments``."""
    formatter = parser._get_formatter()
    for action in list_actions(parser):
        text = formatter._expand_help(action) if action.help else ""
        value = ""
        if takes_value(action) or not action.option_strings:
            fill = "_files"
            if action.choices:
                fill = f"({' '.join(map(str, action.choices))})"
            elif action.metavar == "DIR":
                fill = "_files -/"
            elif action.option_strings and action.metavar != "FILE":
                fill = ""
            value = f":{_escape_zsh(str(action.metavar or action.dest))}:{fill}"
        for option in action.option_strings:
            yield shlex.quote(f"{option}[{_escape_zsh(text)}]{value}")
        if not action.option_strings:
            yield shlex.quote(("*" if action.nargs in ("*", "+") else "") + value)


def _escape_zsh(text: str) -> str:
    """Returns a text as the specifications of ``_arguments`` and ``_describe`` want it."""
    return re.sub(r"([\\:\[\]])", r"\\\1", text)


def list_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Returns the options and operands that a parser shows."""
    return [action for action in parser._actions if action.help is not argparse.SUPPRESS]


def takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0
