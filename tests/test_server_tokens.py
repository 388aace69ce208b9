"""The file of tokens: what its lines may be, and what becomes of it when it changes."""

from __future__ import annotations

import logging
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server.security.clients import parse_allowed
from server.security.files import AccessFileError, WatchedFile
from server.security.tokens import BOUNDS, Entry, Limits, digest_token, format_line, parse_date, parse_tokens
from tests.access import write_private
from tests.fakes import ROOT

PAGE = (ROOT / "docs" / "access.md").read_text("utf-8")
DIGEST = digest_token("open sesame")
LINE = f"ward-3 {DIGEST}"


def test_line_says_whose_the_token_is_and_what_it_may() -> None:
    """Comments and spaces are for people; an option that is left out has its default."""
    text = (
        f"# who       digest\n\n  ward-3\t{DIGEST}  # the one by the window\n"
        f"archive@b {digest_token('b')} expires=2027-12-31 roles=read,admin requests=20 images=4 bytes=1000\n"
    )

    entries = parse_tokens(text)

    assert list(entries.values()) == [
        Entry("ward-3", DIGEST, frozenset({"predict"}), Limits(), None),
        Entry(
            "archive@b",
            digest_token("b"),
            frozenset({"read", "admin"}),
            Limits(20, 4, 1000),
            parse_date("2027-12-31"),
        ),
    ]
    assert [parse_tokens(format_line(entry))[entry.digest] for entry in entries.values()] == list(entries.values())


def test_page_shows_files_as_they_are_read() -> None:
    """Its examples are good ones, and its table has the words that there are."""
    tokens, allowed = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

    assert [entry.name for entry in parse_tokens(tokens).values()] == ["ward-3", "archive"]
    assert parse_allowed(allowed) == {"dns:station-3.hospital.example", "Radiology CT 1"}
    assert re.findall(r"^\| `(\w+)=` \|", PAGE, re.MULTILINE) == ["roles", *BOUNDS, "expires"]


def test_last_day_is_a_whole_one() -> None:
    """It ends with the day, in UTC; without one never."""
    entry = Entry("ward-3", DIGEST, expires=parse_date("2027-02-28"))

    assert entry.expires_at == datetime(2027, 3, 1, tzinfo=UTC).timestamp()
    assert Entry("ward-3", DIGEST).expires_at == float("inf")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("ward-3", "after the name comes the SHA-256"),
        ("ward-3 my-secret-token", "after the name comes the SHA-256"),
        ("my-secret-token", "after the name comes the SHA-256"),
        (f"ward-3 {DIGEST.upper()}", "after the name comes the SHA-256"),
        (f"ward/3 {DIGEST}", "a name has 1 to 64 letters"),
        (f"{'x' * 65} {DIGEST}", "a name has 1 to 64 letters"),
        (f"{LINE} my-secret-token", "word 3 of 'ward-3' is none of roles="),
        (f"{LINE} speed=3", "is none of roles="),
        (f"{LINE} images=1 images=2", "images= is there twice"),
        (f"{LINE} images=0", "images= is a whole number from 1 to 100000"),
        (f"{LINE} requests=0.5", "requests= is a whole number"),
        (f"{LINE} bytes=-1", "bytes= is a whole number"),
        (f"{LINE} roles=", "roles are predict, read, admin"),
        (f"{LINE} roles=predict,root", "roles are predict, read, admin"),
        (f"{LINE} expires=2027-02-29", "expires= is a day"),
        (f"{LINE} expires=soon", "expires= is a day"),
        (f"{LINE} expires=20270228", "expires= is a day"),
    ],
)
def test_mistake_is_named_with_its_line(line: str, fault: str) -> None:
    """And no word that may be a token that somebody has put there."""
    with pytest.raises(ValueError, match=r"^line 3: ") as caught:
        parse_tokens(f"# comment\n\n{line}\n")

    assert fault in str(caught.value)
    assert "my-secret-token" not in str(caught.value)


def test_token_belongs_to_one_line() -> None:
    """Otherwise it would not name its client. A name may have two tokens."""
    with pytest.raises(ValueError, match="line 2: the token is that of 'ward-3'"):
        parse_tokens(f"{LINE}\nother {DIGEST}")

    assert len(parse_tokens(f"{LINE}\nward-3 {digest_token('next')}")) == 2


def test_names_of_certificates_are_whole_lines() -> None:
    """They may hold spaces and the signs of addresses."""
    names = parse_allowed("# stations\nstation-3\nRadiology CT 1  # by the door\nspiffe://hospital/ct#2\n")

    assert names == {"station-3", "Radiology CT 1", "spiffe://hospital/ct#2"}


def watch(path: Path) -> WatchedFile[object]:
    return WatchedFile(path, parse_tokens, is_confidential=True)


def test_change_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once it is looked for; a file that has not changed is not read again unless it is asked for."""
    file = watch(write_private(tmp_path / "tokens", [LINE]))
    before = file.content
    with caplog.at_level(logging.INFO):
        file.check()
        assert file.content is before
        assert caplog.messages == []

        write_private(tmp_path / "tokens", [LINE, f"other {digest_token('b')}"])
        file.check()
        assert list(file.content) == [DIGEST, digest_token("b")]  # type: ignore[call-overload]

        file.check(anyway=True)
    assert caplog.messages == [f"read again: {tmp_path / 'tokens'}"] * 2


@pytest.mark.parametrize("fault", ["mistake", "empty", "mode", "gone", "folder", "not text"])
def test_bad_new_file_changes_nothing(fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was read before holds on; one line of the log says so, and the flag until it is right again."""
    path = write_private(tmp_path / "tokens", [LINE])
    file = watch(path)
    if fault == "mode":
        path.chmod(0o620)
    elif fault == "gone":
        path.unlink()
    elif fault == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"mistake": b"ward-3\n", "empty": b"", "not text": b"\xff\n"}[fault])

    for _ in range(3):
        file.check()

    assert list(file.content) == [DIGEST]  # type: ignore[call-overload]
    assert not file.is_current
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"not taken, what was read before holds on: {path}: ")
    if fault == "folder":
        path.rmdir()
    write_private(path, ["# nobody any more"])
    file.check()
    assert file.is_current
    assert not file.content


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_file_that_others_may_write_to_is_refused(mode: int, tmp_path: Path) -> None:
    """They could let in whom they like."""
    path = write_private(tmp_path / "tokens", [LINE])
    path.chmod(mode)

    with pytest.raises(AccessFileError, match="others may write to it"):
        watch(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """It is theirs to change."""
    path = write_private(tmp_path / "tokens", [LINE])
    os.chown(path, 4711, 4711)

    with pytest.raises(AccessFileError, match="belongs to another user"):
        watch(path)


@pytest.mark.parametrize(("mode", "is_warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_file_that_everybody_may_read_is_warned_of(
    mode: int, is_warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No more: digests of random tokens tell nothing, but names and limits are nobody's business."""
    path = write_private(tmp_path / "tokens", [LINE])
    path.chmod(mode)

    watch(path)

    assert [f"everybody on this machine may read {path} (chmod o-r)"] * is_warned == caplog.messages
