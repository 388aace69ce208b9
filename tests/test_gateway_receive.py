"""What senders see of the gateway: an instance is on disk before it is answered, and what is no study does no harm."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import RLELossless

from gateway.queue.arrivals import read_not_kept
from gateway.queue.folder import make_key
from tests.dicom_files import PATIENT
from tests.gateway_box import EXPLICIT, IMPLICIT, SECONDARY_CAPTURE, Box, associate, make_files, open_box, send
from tests.studies import SERIES, STUDY, make_slice

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of pynetdicom as the other side


@pytest.fixture
def box(tmp_path: Path):
    with open_box(tmp_path / "queue") as opened:
        yield opened


def test_instance_is_on_disk_when_it_is_answered(box: Box) -> None:
    """Whole, as it was sent, in a file that nobody else may read."""
    (file,) = make_files(1)

    assert send(box.port, [file]) == [0x0000]
    (path,) = box.list_files()
    assert path.parent == box.folder.receiving / make_key(STUDY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(box.folder.root.stat().st_mode) == 0o700
    assert pydicom.dcmread(path).PixelData == pydicom.dcmread(pydicom.filebase.DicomBytesIO(file)).PixelData


def test_same_instance_is_kept_once(box: Box) -> None:
    """A sender that heard no answer sends again."""
    assert send(box.port, make_files(2) + make_files(2)) == [0, 0, 0, 0]
    assert len(box.list_files()) == 2


def test_echo_is_answered(box: Box) -> None:
    """What technicians try first."""
    with associate(box.port) as association:
        assert association.send_c_echo().Status == 0x0000


def test_who_calls_another_title_is_rejected(box: Box) -> None:
    """A wrong entry in an archive's table shows at once."""
    with associate(box.port, called="OTHER") as association:
        assert association.is_rejected


def test_only_titles_that_are_allowed_may_send(tmp_path: Path) -> None:
    """Where there is a list."""
    with open_box(tmp_path / "queue", allowed=("CT1",)) as box:
        with associate(box.port, calling="CT2") as association:
            assert association.is_rejected
        assert send(box.port, make_files(1), calling="CT1") == [0]


def test_more_senders_than_there_are_places_for_are_told_to_come_again(tmp_path: Path) -> None:
    """Rejected for now, as archives understand."""
    with open_box(tmp_path / "queue", most_senders=1) as box, associate(box.port) as first:
        assert first.is_established
        with associate(box.port) as second:
            assert second.is_rejected
            assert second.acceptor.primitive.result == 0x02


def test_uncompressed_pixels_are_preferred(box: Box) -> None:
    """A sender that offers both unpacks itself; one that has nothing else is taken as it is."""
    for offered, accepted in (
        ([RLELossless, IMPLICIT, EXPLICIT], EXPLICIT),
        ([RLELossless, IMPLICIT], IMPLICIT),
        ([RLELossless], RLELossless),
    ):
        with associate(box.port, syntaxes=offered) as association:
            assert {context.transfer_syntax[0] for context in association.accepted_contexts[1:]} == {accepted}


def test_what_is_no_ct_is_taken_and_not_kept(box: Box) -> None:
    """No sender has to sort; the series is told as left out."""
    file = make_slice(0, SOPClassUID=SECONDARY_CAPTURE, **PATIENT)

    assert send(box.port, [file]) == [0]
    assert read_not_kept(box.folder.receiving / make_key(STUDY)) == {SERIES: 1}
    assert all(b"Doe" not in path.read_bytes() for path in box.list_files())


def test_uids_do_not_name_files(box: Box, tmp_path: Path) -> None:
    """A path in a UID is refused, and nothing of it is written anywhere."""
    (file,) = make_files(1)
    hostile = file.replace(STUDY.encode(), b"../../../../../../../out/side"[: len(STUDY)].ljust(len(STUDY), b"x"))
    before = sorted(tmp_path.rglob("*"))

    assert send(box.port, [hostile]) == [0xC000]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_instance_without_its_uids_is_refused(box: Box, missing: str) -> None:
    """It belongs to no study."""
    assert send(box.port, make_files(1, **{missing: None})) == [0xC000]
    assert box.list_files() == []


def test_disk_without_room_is_said(tmp_path: Path) -> None:
    """With the status that has senders try again, and nothing half-written."""
    with open_box(tmp_path / "queue", least_free=1 << 60) as box:
        assert send(box.port, make_files(2)) == [0xA700, 0xA700]
        assert box.list_files() == []
        assert box.arrivals.complete() == []


def test_write_that_fails_leaves_nothing(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may become full in the middle; the instance before stays whole."""
    assert send(box.port, make_files(1)) == [0]

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert send(box.port, make_files(2)) == [0xA700, 0xA700]
    assert len(box.list_files()) == 1
    assert send(box.port, make_files(2)) == [0, 0]


def test_log_names_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of what is taken nor of what is refused; a study by a part of the digest of its UID."""
    caplog.set_level("DEBUG", "gateway")
    with open_box(tmp_path / "queue", least_free=1 << 60) as box:
        send(box.port, make_files(1) + make_files(1, StudyInstanceUID=None))
        with associate(box.port, called="OTHER"):
            pass

    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("gateway"))
    assert make_key(STUDY)[:12] in said
    for secret in (*PATIENT.values(), "Doe", STUDY):
        assert secret not in said
