"""Fixtures of tests that look at the page in a browser. Playwright is loaded by those alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.web_browser import Visit


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a module."""
    from tests.web_browser import open_browser

    with open_browser() as opened:
        yield opened


@pytest.fixture
def here(browser: Browser, url: str) -> Iterator[Visit]:
    """A visit of the page at the module's own fixture ``url``."""
    from tests.web_browser import visit

    with visit(browser, url) as opened:
        opened.open()
        yield opened


@pytest.fixture(scope="module")
def study_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder whose model judges studies and can explain."""
    from tests.explaining import write_explained
    from tests.studies import STUDY_SPEC

    root = tmp_path_factory.mktemp("models")
    write_explained(root, STUDY_SPEC)
    return root
