"""Archives and results in an object store: moto's server speaks S3 on this machine, pyarrow's client asks."""

from __future__ import annotations

import json
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs

from cluster.archive.files import walk
from cluster.archive.judge import Judge
from cluster.archive.parts import find_parts
from cluster.archive.run import Worker
from cluster.archive.storage import Storage
from server.machine.processors import count_processors
from tests.cluster.archives import drop_measured, judge_alone, make_archive, make_job, make_models, read_parts
from tests.cluster.test_command import run_cluster
from tests.cluster.test_serve import find_port
from tests.fakes import wait_until
from tests.tracing import ROOT

PROGRAM = ROOT / "build" / "neighbours" / "moto" / "bin" / "moto_server"
ARCHIVES, RESULTS = "ctscans", "results"
SECONDS = 300

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="moto is not installed: make install-neighbours")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a store with two empty buckets; for this process and all that it starts."""
    address = f"http://127.0.0.1:{(port := find_port())}"
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([str(PROGRAM), "-H", "127.0.0.1", "-p", str(port)], stdout=quiet, stderr=quiet)
    settings = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_REGION": "us-east-1",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            wait_until(lambda: answers(port), SECONDS)
            for bucket in (ARCHIVES, RESULTS):
                store, path = fs.FileSystem.from_uri(f"s3://{bucket}?allow_bucket_creation=true")
                store.create_dir(path)
            yield address
    finally:
        server.kill()
        server.wait()


def answers(port: int) -> bool:
    """Whether somebody listens on a port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture
def archive(tmp_path: Path, endpoint: str) -> Path:
    """An archive in a folder, which lies in the store, too."""
    folder = make_archive(tmp_path, count=24)
    (folder / "link.png").unlink()  # there are none in a store
    store = Storage(f"s3://{ARCHIVES}/{tmp_path.name}")
    fs.copy_files(str(folder), store.locate(""), destination_filesystem=store.filesystem)
    return folder


def test_a_store_is_walked_and_read_like_a_folder(archive: Path) -> None:
    """The same files in the same order, to the byte and the length."""
    store, folder = Storage(f"s3://{ARCHIVES}/{archive.parent.name}"), Storage(str(archive))

    paths = list(walk(store, Counter()))

    assert paths == list(walk(folder, Counter()))
    assert len(paths) == 28
    for path in paths:
        ours, theirs = store.read(path, 1 << 20), folder.read(path, 1 << 20)
        assert (ours.data, ours.size) == (theirs.data, theirs.size)
    assert len(store.read(paths[0], 10).data) == 10


def test_nothing_is_left_of_a_file_that_is_not_written_to_its_end(endpoint: str) -> None:
    """Nor is it there before, under its own name."""
    store = Storage(f"s3://{RESULTS}/half")
    store.make()
    seen: list[Any] = []

    def write(stream: Any) -> None:
        stream.write(b"half")
        seen.extend(store.list(""))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.write("part", write)

    assert "part" not in [name for name, _ in seen]
    assert store.list("") == []


def test_a_bucket_that_is_not_there_is_one_line(archive: Path, tmp_path: Path) -> None:
    """With status 2."""
    models = str(make_models(tmp_path))

    for source, out in (("s3://nowhere/ct", str(tmp_path / "out")), (str(archive), "s3://nowhere/results")):
        result = run_cluster("score", source, "--out", out, "--models", models, "--cache", "off")
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert "s3://nowhere" in result.stderr


def test_a_run_in_a_store_goes_on_where_it_was(archive: Path, tmp_path: Path) -> None:
    """From store to store on a real cluster: a part that is finished stays, what a killed process has left goes, and
    the rows are those of a process alone in a folder, to the bit."""
    models = make_models(tmp_path)
    source, out = f"s3://{ARCHIVES}/{tmp_path.name}", f"s3://{RESULTS}/{tmp_path.name}"
    job = make_job(source, models, out, partition_files=8)  # type: ignore[arg-type]
    list(Worker(job, Judge)({"partition": np.array([1])}))
    finished = job.out.filesystem.get_file_info(job.out.locate("part-000001.parquet")).mtime_ns
    job.out.put(f".part-000000.parquet.{'0' * 32}", b"half")
    job.out.put(".part-000002.mark", json.dumps({"died_at": [], "in_hand": None}).encode())

    settings = ("--partition-files", "8", "--models", str(models), "--cache", "off", "--json")
    result = run_cluster("score", source, "--out", out, *settings, "--workers", str(min(2, count_processors())))

    assert result.returncode == 1, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["files"], summary["missing"], summary["skipped_partitions"]) == (28, 0, 1)
    assert job.out.filesystem.get_file_info(job.out.locate("part-000001.parquet")).mtime_ns == finished
    names = [name for name, _ in job.out.list("")]
    assert names == ["_plan.parquet", *(f"part-{number:06}.parquet" for number in range(4))]
    assert len(find_parts(job.out, job.plan)) == 4
    copied = tmp_path / "copied"
    copied.mkdir()
    fs.copy_files(job.out.locate(""), str(copied), source_filesystem=job.out.filesystem)
    alone = judge_alone(make_job(archive, models, tmp_path / "alone", partition_files=8))
    own = ("file", "file_modified")
    assert drop_measured(read_parts(copied), own).equals(drop_measured(alone, own))
    assert read_parts(copied).column("file").to_pylist() == [
        file.replace(str(archive), source) for file in alone.column("file").to_pylist()
    ]
