"""The project has one version number: in ``proto/__init__.py``, which client and server both reach."""

from __future__ import annotations

import re

from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import client
import proto
from tests.fakes import ROOT


def test_client_and_wheel_have_the_version_of_the_api() -> None:
    """Nobody states a version of their own."""
    metadata = ProjectMetadata(str(ROOT), PluginManager())

    assert "version" in metadata.dynamic
    assert metadata.version == client.__version__ == proto.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", proto.__version__)


def test_changelog_knows_the_version() -> None:
    """It is that of the newest release, or, while changes are collected, the next one, which was not released yet."""
    newest, *older = re.findall(r"^## \[?([\w.]+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    if newest == "Unreleased":
        assert proto.__version__ not in older
    else:
        assert proto.__version__ == newest
