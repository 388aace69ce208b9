"""The commands of docs/http.md, in order, and what it says of paths, options and fields."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from server.config import ServerConfig
from server.core.capacity import HTTP_CONNECTIONS
from server.images.png_file import PNG_SIGNATURE
from server.models.runtime import load_model
from server.web.bodies import OPTIONS
from server.web.connection import MOST_HEAD_BYTES
from server.web.methods.study import SLICE_OPTIONS
from server.web.openapi.document import make_document
from server.web.openapi.schemas import EXPLANATION, JUDGEMENT, STUDY
from tests.fakes import BUNDLED, ROOT, run_module, run_server
from tests.scraping import find_free_port

PAGE = (ROOT / "docs" / "http.md").read_text("utf-8")
ALL_COMMANDS = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)
COMMANDS = [command for command in ALL_COMMANDS if ".dcm" not in command]
(OF_DICOM,) = [command for command in ALL_COMMANDS if ".dcm" in command]
PROGRAM = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]


def curl(command: str, folder: Path, **environment: str) -> str:
    """What a command of the page prints."""
    made = command.replace("curl", "curl --silent --show-error --fail-with-body --noproxy '*'", 1)
    made = made.replace("certs/", f"{folder}/certs/")
    result = subprocess.run(
        made, shell=True, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, f"{made}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_commands_work_in_their_order(tmp_path: Path) -> None:
    """One line judges a sample, as a form, as it is, with options, and several; the paper's program does."""
    install, start, *curls = COMMANDS[:6]
    study, picture = COMMANDS[6:8]
    spec = load_model(BUNDLED).spec
    port = str(find_free_port())
    assert install == "make install-web"
    with run_server(ROOT / "models", *shlex.split(start.replace("8000", port))[3:]):
        answers = [json.loads(curl(command.replace("8000", port), tmp_path)) for command in curls]
        if spec.windows:
            assert json.loads(curl(OF_DICOM.replace("8000", port), tmp_path))["class"] == "stroke"
        if spec.study_top_k:
            judged = json.loads(curl(study.replace("8000", port), tmp_path))
            assert (judged["id"], judged["class"], judged["status"]) == ("study-4", "stroke", "ANALYSED")
            assert judged["first_look_id"] in ("2", "3")
        curl(picture.replace("8000", port).replace("seen.png", f"{tmp_path}/seen.png"), tmp_path)
        program = PROGRAM.replace("8000", port)
        printed = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    assert [answer["class"] for answer in answers[:3]] == ["stroke", "normal", "stroke"]
    assert answers[1]["id"] == "case-7"
    assert [(one["id"], one["class"]) for one in answers[3]["results"]] == [
        ("study-3-1", "stroke"),
        ("study-3-2", "normal"),
    ]
    assert (tmp_path / "seen.png").read_bytes().startswith(PNG_SIGNATURE)
    assert printed.startswith("stroke 0.9")


def test_commands_with_tls_and_token_work(tmp_path: Path) -> None:
    """Who has no token is refused."""
    certs, token, start, ask = COMMANDS[8:]
    put_in = re.compile(r"(?<=--out )certs|\bcerts/|\btokens\.txt")
    words = [
        shlex.split(put_in.sub(lambda found: f"{tmp_path}/{found[0]}", line))[2:] for line in (certs, token, start)
    ]
    assert run_module(*words[0]).returncode == 0
    secret = run_module(*words[1]).stdout.strip()
    port = str(find_free_port())
    with run_server(ROOT / "models", *[word.replace("8443", port) for word in words[2][1:]]):
        asked = ask.replace("8443", port)
        assert json.loads(curl(asked, tmp_path, TOKEN=secret))["class"] == "stroke"
        with pytest.raises(AssertionError, match="TOKEN_WRONG"):
            curl(asked, tmp_path, TOKEN="guessed")


def test_page_says_what_there_is() -> None:
    """Paths, options, fields of the answer and bounds."""
    document = json.loads(bytes(make_document().body))
    paths = {re.sub(r"\?.*", "", path) for path in re.findall(r"`(?:GET|POST) (/[^`]*)`", PAGE)}
    options = set(
        re.findall(
            r"`(\w+)`",
            "".join(
                re.findall(r"^\| (.+?) \| .*$", PAGE.partition("| option |")[2].partition("\n\n")[0], re.MULTILINE)
            ),
        )
    )

    assert paths - {"/openapi.json"} == set(document["paths"])
    assert options == set(OPTIONS)
    fields = {**JUDGEMENT["properties"], **STUDY["properties"], **EXPLANATION["properties"]}
    assert [name for name in fields if f"`{name}`" not in PAGE] == []
    assert [name for name in SLICE_OPTIONS if f"`{name}`" not in PAGE] == []
    assert f"{MOST_HEAD_BYTES // 1024} KiB of head" in PAGE
    assert f"most {HTTP_CONNECTIONS} connections" in PAGE
    assert f"{ServerConfig().most_message_bytes // 2**20} MiB of body" in PAGE
