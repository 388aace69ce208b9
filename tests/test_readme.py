"""Every command of the README is run as it stands there, in order; what it shows is what comes out."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proto import __version__
from server.machine.processors import is_suited
from server.models.manifest import INT8_FILE, read_manifest
from tests.fakes import BUNDLED, ROOT

README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", README, re.MULTILINE)
SERVERS = [command for command in COMMANDS if command.startswith("python -m server")]
RUN_ELSEWHERE = {
    "make test": "what runs this test (test_project checks that CI calls it)",
    "make install": "what made the environment that runs this test",
    "make install-server": "needed by `make demo`, which runs here",
    "make install-client": "done by `make test`",
    "make install-web": "adds to .venv-serve what .venv has (test_project checks the lock)",
    **{
        f". {folder}/bin/activate": "done for the shell below by PATH"
        for folder in (".venv", ".venv-serve", ".venv-client")
    },
    "make wheel": "run by test_client_wheel, which installs what it makes and calls the command",
    f'pip install "dist/strokeserve_client-{__version__}-py3-none-any.whl[cli]"': "the same",
    "stroke samples/stroke-1.png": "the same",
}


def put_in(build: Path, command: str) -> str:
    """Has a command use ``build`` instead of the folder of that name in the checkout."""
    return command.replace("build/", f"{shlex.quote(str(build))}/")


def run(command: str, build: Path) -> str:
    """Runs one command in a shell at the root, with the environment of ``make install`` active.

    npm takes from its cache what it has there, as the packages are pinned by their hashes.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "npm_config_prefer_offline": "true", "npm_config_audit": "false"}
    result = subprocess.run(
        put_in(build, command),
        shell=True,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@contextmanager
def serve(command: str, build: Path) -> Iterator[None]:
    """Runs a server command until the end of the block."""
    arguments = shlex.split(put_in(build, command))[1:]
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            assert process.stdout.readline().startswith("serving ")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_demo_shows_what_the_readme_shows(tmp_path: Path) -> None:
    """``make demo`` works without TensorFlow and prints the output that the README quotes, but for the port."""
    quoted = README.split("$ make demo\n")[1].split("$ make test")[0]

    output = run("make --no-print-directory demo", tmp_path)

    shown = output.splitlines()
    if shown[0].startswith("setting up"):  # the first time, make installs
        del shown[0]
    assert [mask(line) for line in shown] == [mask(line) for line in quoted.splitlines()]
    assert not list((ROOT / ".venv-serve").glob("lib/python*/site-packages/tensorflow"))


def test_samples_are_images_alone() -> None:
    """So that the first folder that anybody classifies has nothing that is left out."""
    assert {path.suffix for path in (ROOT / "samples").iterdir()} == {".png", ".dcm"}


def mask(line: str) -> str:
    """Hides the port, and the last digit of a probability: processors round differently.

    Where the INT8 variant does not suit the processor, the fp32 model answers, and its digest and digits are its own.
    """
    line = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", line)
    if not is_suited(read_manifest(BUNDLED).files[INT8_FILE].target):
        line = re.sub(r"sha256 \w+|0\.\d\d\d\b", "#", line)
    return re.sub(r"(0\.\d\d)\d\b", r"\1", line)


def test_commands_run_in_order(tmp_path: Path) -> None:
    """Serve, ask, train, convert and serve again, exactly as written; JavaScript and curl only where they are."""
    bundled, web, own = SERVERS
    seen = {"make demo", *RUN_ELSEWHERE}
    with serve(bundled, tmp_path):
        for command in COMMANDS:
            if command.startswith("python -m client"):
                run(command, tmp_path)
                seen.add(command)
            elif command.startswith(("npm", "node")):
                seen.add(command)
                if shutil.which("node") and shutil.which("npm"):
                    run(command, tmp_path)
    with serve(web, tmp_path):
        for command in COMMANDS:
            if command.startswith("curl"):
                seen.add(command)
                if shutil.which("curl"):
                    assert '"class":"stroke"' in run(command, tmp_path)
    for command in COMMANDS:
        if command.startswith(("python -m training", "python -m converter")):
            run(command, tmp_path)
            seen.add(command)
    with serve(own, tmp_path):
        seen |= {bundled, web, own}

    assert seen == set(COMMANDS)


def test_library_example_runs(tmp_path: Path) -> None:
    """The Python block, as it stands."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    with serve(SERVERS[0], tmp_path):
        (tmp_path / "example.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}")
        output = run(f"python {shlex.quote(str(tmp_path / 'example.py'))}", tmp_path)

    assert re.match(r"(normal|stroke) [\d.]+ \{", output)
    assert "IMAGE_UNDECODABLE" in output


def test_links_lead_somewhere() -> None:
    """Relative links of the README and the docs exist."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
