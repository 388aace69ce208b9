"""docs/architecture.md says what is there."""

from __future__ import annotations

import re

from tests.fakes import ROOT
from tests.test_imports import MAY_IMPORT, SERVER_PARTS, list_modules

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
ROWS = {
    folder: (text, may_import)
    for folder, text, may_import in re.findall(r"^\| `([a-z0-9/]+)` \| (.*?) \|(.*)\|$", PAGE, re.MULTILINE)
}
MOST_LINES, MOST_ENTRIES, MOST_FILE_LINES = 70, 19, 400


def list_folders() -> set[str]:
    """Every package of the product, as a folder below the root."""
    return {path.parent.relative_to(ROOT).as_posix() for path in list_modules().values() if path.name == "__init__.py"}


def test_every_folder_is_in_the_table() -> None:
    """By a row of its own, or named in the row of the folder around it."""
    named = set(ROWS)
    for folder, (text, _) in ROWS.items():
        named |= {f"{folder}/{name}" for name in re.findall(r"`([a-z0-9]+)`", text)}

    assert set(ROWS) <= list_folders()
    assert list_folders() <= named


def test_files_that_it_names_exist() -> None:
    """A way through the code that leads nowhere is no help."""
    files = re.findall(r"`([a-z_0-9/]+\.py)`", PAGE)

    assert len(files) > 30
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_it_says_what_the_import_rules_are() -> None:
    """The table's last column is what is tested."""
    stated = {
        folder.replace("/", "."): set(re.findall(r"`([a-z/]+)`", column.replace("what `training` may", "")))
        for folder, (_, column) in ROWS.items()
    }

    for package, allowed in MAY_IMPORT.items():
        wanted = set(allowed) - (set(SERVER_PARTS) if package == "training.judge" else set())
        assert stated[package] == {name.replace(".", "/") for name in wanted}, package


def test_it_fits_on_a_screen() -> None:
    """Longer, and nobody reads it."""
    assert len(PAGE.splitlines()) <= MOST_LINES


def test_folders_and_files_can_be_overlooked() -> None:
    """One subject a folder, one idea a file: where they outgrow that, they are to be divided."""
    for folder in list_folders():
        entries = [entry for entry in (ROOT / folder).iterdir() if entry.name != "__pycache__"]
        assert len(entries) <= MOST_ENTRIES, folder
    for module, path in list_modules().items():
        if "_pb2" not in module:
            assert len(path.read_text("utf-8").splitlines()) <= MOST_FILE_LINES, module
