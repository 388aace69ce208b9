"""The rollout of docs/scale.md, line by line, on two boxes that take signed models alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from client import StrokeClient
from tests.access import token_of, write_private, write_tokens
from tests.certificates import CA, HOSPITAL, chain, issue_server, key, settings
from tests.fakes import ROOT, SPEC, encode, make_slice, run_module, run_server, write_model
from tests.scraping import find_free_port

PAGE = (ROOT / "docs" / "scale.md").read_text("utf-8")
MAKE, LOOK, STAGE, BACK = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
(HELPER,) = re.findall(r"^on\(\) .*$", MAKE, re.MULTILINE)
BOXES = ("127.0.0.71", "127.0.0.72")
OLD, NEW = "4", "5"
COPY = 'rsync() { cp -r "$2" "boxes/${3%%:*}/stroke-cnn/5"; }'
"""In place of the program, which would ask another machine."""


@pytest.fixture
def office(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """The folder of who rolls out, and the port of the boxes, which serve the old version."""
    spec = replace(SPEC, name="stroke-cnn", version=OLD)
    assert run_module("converter", "key", "--out", str(tmp_path / "signing.pem")).returncode == 0
    (tmp_path / "trusted").mkdir()
    (tmp_path / "signing.pub.pem").rename(tmp_path / "trusted" / "signing.pub.pem")
    write_model(tmp_path / "models", replace(spec, version=NEW))
    own = issue_server(HOSPITAL, *BOXES)
    write_private(tmp_path / "key", key(own).decode().splitlines())
    (tmp_path / "cert").write_bytes(chain(own))
    (tmp_path / "ca.pem").write_bytes(CA)
    tokens = write_tokens(tmp_path / "tokens", office="roles=admin,predict")
    write_private(tmp_path / "admin.token", [token_of("office")])
    (tmp_path / "boxes.txt").write_text("\n".join(BOXES) + "\n")
    port = find_free_port()
    flags = ["--port", str(port), "--tls-cert", str(tmp_path / "cert"), "--tls-key", str(tmp_path / "key")]
    flags += ["--tokens", str(tokens), "--require-signature", str(tmp_path / "trusted"), "--admin", "off"]
    with ExitStack() as stack:
        for box in BOXES:
            models = tmp_path / "boxes" / box
            signed = run_module("converter", "sign", str(write_model(models, spec)), "--key", f"{tmp_path}/signing.pem")
            assert signed.returncode == 0, signed.stderr
            stack.enter_context(run_server(models, "--model", "stroke-cnn", "--host", box, *flags))
        yield tmp_path, port


def run(office: tuple[Path, int], script: str) -> None:
    """Runs lines of the page, every one of which must do what it is to do."""
    folder, port = office
    script = script if HELPER in script else f"{HELPER}\n{script}"
    text = f"set -e\n{COPY}\n{script}".replace(":50051", f":{port}").replace("python -m", f"{sys.executable} -m")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh"], input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    assert not (folder / "failed.txt").exists(), done.stderr


def ask(office: tuple[Path, int], box: str) -> str:
    """The version that answers on a box."""
    target = f"{box}:{office[1]}"
    with StrokeClient(target, tls=settings(), token=token_of("office"), timeout=20) as client:
        return client.predict(encode(make_slice())).version


def test_model_is_rolled_out_and_back(office: tuple[Path, int]) -> None:
    """Signed, shadowed on all boxes, then answering on the first, on the rest, and on none."""
    run(office, MAKE)
    assert [ask(office, box) for box in BOXES] == [OLD, OLD]

    run(office, LOOK)
    seen = [json.loads((office[0] / f"{box}.json").read_text()) for box in BOXES]
    assert [NEW in json.dumps(one) for one in seen] == [True, True]

    canary, first, rest = STAGE.splitlines()
    run(office, canary)
    run(office, first)
    assert [ask(office, box) for box in BOXES] == [NEW, OLD]
    run(office, rest)
    assert [ask(office, box) for box in BOXES] == [NEW, NEW]

    run(office, BACK)
    assert [ask(office, box) for box in BOXES] == [OLD, OLD]
