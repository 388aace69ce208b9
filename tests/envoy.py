"""Envoy itself with the file that deploy/ has, on this machine: addresses and paths are changed, and nothing else."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.fakes import ROOT
from tests.oip_calls import require_program
from tests.scraping import find_free_port

FILE = ROOT / "deploy" / "envoy" / "envoy.yaml"
TLS = "/etc/envoy/tls"
START_SECONDS = 60.0


def read_config(certificates: Path) -> Any:
    """The file, with its certificates in another folder."""
    return yaml.safe_load(FILE.read_text("utf-8").replace(TLS, str(certificates)))


def place_envoy(config: Any, name_server: str, port: int) -> str:
    """Puts it on free ports of this machine, with servers on ``port`` of what a name server says, asked every second.
    Returns where it listens, HOST:PORT."""
    host, _, asked = name_server.rpartition(":")
    (listener,), (cluster,) = config["static_resources"]["listeners"], config["static_resources"]["clusters"]
    own, admin = find_free_port(), find_free_port()
    listener["address"]["socket_address"].update(address="127.0.0.1", port_value=own)
    config["admin"]["address"]["socket_address"]["port_value"] = admin
    (group,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = group["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
    cluster["dns_refresh_rate"] = "1s"
    cluster["typed_dns_resolver_config"] = {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {"address": host, "port_value": int(asked)}}],
        },
    }
    return f"127.0.0.1:{own}"


def validate(config: Any, folder: Path) -> str:
    """What Envoy says of a configuration without running it, warnings included; that it is fine, at its end."""
    file = write(config, folder)
    command = [require_program("envoy", "envoy"), "--mode", "validate", "--config-path", file, "--log-level", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr + done.stdout


def write(config: Any, folder: Path) -> Path:
    """Writes a configuration to a file."""
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def run_envoy(config: Any, folder: Path) -> Iterator[int]:
    """Runs it until the block ends, from when it has a server that is well. Yields the port of its own figures."""
    program = require_program("envoy", "envoy")
    options = ["--concurrency", "2", "--use-dynamic-base-id", "--log-level", "error", "--drain-time-s", "1"]
    admin: int = config["admin"]["address"]["socket_address"]["port_value"]
    with (
        (folder / "envoy.log").open("wb") as log,
        subprocess.Popen([program, "--config-path", write(config, folder), *options], stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while not count(admin, "cluster.strokeserve.membership_healthy"):
                assert process.poll() is None, (folder / "envoy.log").read_text()
                assert time.monotonic() < deadline, "Envoy has found no server that is well"
                time.sleep(0.05)
            yield admin
        finally:
            process.kill()


def count(admin: int, name: str) -> int:
    """One of Envoy's figures; 0 while it has none."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{admin}/stats?filter={name}$", timeout=5) as page:
        for line in page.read().decode().splitlines():
            found, _, value = line.partition(": ")
            if found == name:
                return int(value)
    return 0


def list_well(admin: int) -> set[str]:
    """Addresses of the servers that Envoy knows and takes for well."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/clusters", timeout=5) as page:
        text = page.read().decode()
    return set(re.findall(r"^strokeserve::([\d.]+):\d+::health_flags::healthy$", text, re.MULTILINE))
