"""Whole runs on a real Ray cluster of two machines, of which one is lost and processes are killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cluster.ray_session import quieten
from tests.cluster.archives import drop_measured, judge_alone, make_archive, make_job, make_models, read_parts
from tests.fakes import wait_until
from tests.tracing import ROOT

OBJECT_BYTES = 80 * 1024 * 1024
SECONDS = 600
"""Far more than it takes."""


class Box:
    """A Ray cluster of two machines, which are groups of processes here."""

    def __init__(self) -> None:
        quieten()
        from ray.cluster_utils import Cluster

        options = {"object_store_memory": OBJECT_BYTES, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **options})
        self.second = self.add_machine()

    def add_machine(self) -> object:
        """Another machine with one processor."""
        return self.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_BYTES)

    def lose_machine(self) -> None:
        """The second one, without a warning."""
        self.cluster.remove_node(self.second, allow_graceful=False)

    def kill_worker(self, chance: random.Random) -> None:
        """One of the processes that judge, once there are some."""
        wait_until(self.find_workers, SECONDS)
        chance.choice(self.find_workers()).kill()

    def find_workers(self) -> list[psutil.Process]:
        """The processes that judge."""
        found = []
        for node in self.cluster.list_all_nodes():
            for raylet in node.all_processes.get("raylet", ()):
                children = psutil.Process(raylet.process.pid).children(recursive=True)
                found += [child for child in children if is_worker(child)]
        return found


def is_worker(process: psutil.Process) -> bool:
    """Whether it judges; one that has ended has no command any more."""
    with suppress(psutil.Error):
        return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::MapWorker")
    return False


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """The cluster, ended whatever happens."""
    box = Box()
    try:
        yield box
    finally:
        box.cluster.shutdown()


def start(archive: Path, models: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """Starts the command, as a user would."""
    command = [sys.executable, "-m", "cluster", "score", str(archive), "--out", str(out), "--models", str(models)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, "--cache", "off", "--json", *more], cwd=ROOT, stdout=pipe, stderr=pipe, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, dict[str, object], str]:
    """Its exit code, its summary, and what it said on standard error."""
    said, complaints = process.communicate(timeout=SECONDS)
    return process.returncode, json.loads(said or "{}"), complaints


def wait_for_parts(run: subprocess.Popen[str], out: Path, more: int) -> None:
    """Waits until there are more than ``more``, or the run has ended."""
    wait_until(lambda: run.poll() is not None or len(list(out.glob("part-*"))) > more, SECONDS)


def test_no_row_is_lost_and_none_is_twice_whoever_dies(tmp_path: Path, box: Box) -> None:
    """Processes that judge are killed, then a whole machine; the rows are those of one process alone, to the bit."""
    archive, models, out = make_archive(tmp_path, count=900), make_models(tmp_path), tmp_path / "out"
    chance = random.Random(19)

    run = start(archive, models, out, "--partition-files", "20", "--address", box.cluster.address)
    for number in range(4):
        wait_for_parts(run, out, more=len(list(out.glob("part-*"))))
        assert run.poll() is None, run.communicate()
        if number == 2:
            box.lose_machine()
        else:
            box.kill_worker(chance)
    code, summary, complaints = finish(run)

    assert (code, summary["files"], summary["missing"]) == (1, 904, 0), complaints
    assert summary["failed"] == {"IMAGE_EMPTY": 1, "IMAGE_TRUNCATED": 1, "IMAGE_UNDECODABLE": 1}
    alone = judge_alone(make_job(archive, models, tmp_path / "alone", partition_files=20))
    assert drop_measured(read_parts(out)).equals(drop_measured(alone))
    assert sorted(path.name for path in out.iterdir()) == [
        "_plan.parquet",
        *(f"part-{number:06}.parquet" for number in range(46)),
    ]


def test_a_run_that_was_killed_goes_on(tmp_path: Path, box: Box) -> None:
    """With the same command: what is finished stays as it is, to the file's number."""
    archive, models, out = make_archive(tmp_path, count=300), make_models(tmp_path), tmp_path / "out"
    settings = ("--partition-files", "20", "--address", box.cluster.address)
    first = start(archive, models, out, *settings)
    wait_for_parts(first, out, more=2)
    first.kill()
    first.communicate()
    wait_until(lambda: not box.find_workers(), SECONDS)
    (out / f".part-000000.parquet.{'0' * 32}").write_bytes(b"half")
    finished = {path.name: os.stat(path).st_ino for path in out.glob("part-*")}

    code, summary, complaints = finish(start(archive, models, out, *settings))

    assert (code, summary["files"], summary["skipped_partitions"]) == (1, 304, len(finished)), complaints
    assert finished.items() <= {path.name: os.stat(path).st_ino for path in out.glob("part-*")}.items()
    alone = judge_alone(make_job(archive, models, tmp_path / "alone", partition_files=20))
    assert drop_measured(read_parts(out)).equals(drop_measured(alone))
    assert not list(out.glob(".part-*"))

    again = finish(start(archive, models, out, *settings))
    assert again[1]["skipped_partitions"] == 16  # without a cluster: there is nothing to do
