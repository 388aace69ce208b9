"""The page when things go wrong: refusals have their sentence, what passes is waited for, a run can be gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.access import token_of, write_tokens
from tests.fakes import encode, make_slice
from tests.web_browser import Visit, needs_browser, numbered, problem, serve_page, visit

pytestmark = needs_browser

DARK = encode(make_slice(20))
SENT = "predict?*"
BUSY = problem(503, "QUEUE_FULL", "More images wait than the server accepts.", {"Retry-After": "1"}, retry_after_ms=1)
STOPPING = problem(503, "SERVER_STOPPING", "The server stops.", {"Retry-After": "0"})
LIMITED = problem(429, "LIMIT_IMAGES", "As many images of this client are in work as it may have.", retry_after_ms=1)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[str]:
    """A server that knows one client who may judge, and one who may only look."""
    tokens = write_tokens(tmp_path_factory.mktemp("access") / "tokens", reader="roles=predict", looker="roles=read")
    with serve_page(tiny_models, "--tokens", str(tokens)) as address:
        yield address


@pytest.fixture
def here(browser: Browser, url: str) -> Iterator[Visit]:
    """A visit of somebody who has given a token."""
    with visit(browser, url) as opened:
        opened.open()
        give_token(opened, "reader")
        yield opened


def give_token(here: Visit, name: str) -> None:
    here.page.fill("#token", token_of(name))
    here.page.keyboard.press("Enter")
    if name != "nobody":
        expect(here.page.locator("#token-form")).to_be_hidden()


# Tokens.


def test_a_token_is_asked_for_and_kept_nowhere(browser: Browser, url: str) -> None:
    """With the server's reason; after another loading it is asked for again."""
    with visit(browser, url) as here:
        here.open()
        expect(here.page.locator("#token")).to_be_focused()
        assert here.text("token-why").endswith("[TOKEN_MISSING]")
        here.add(("a.png", DARK))
        assert here.column(1) == ["not judged"]
        here.page.fill("#token", "Schlüssel")  # no header of HTTP can carry it
        here.page.keyboard.press("Enter")
        expect(here.page.locator("#token:invalid")).to_be_visible()
        give_token(here, "nobody")
        expect(here.page.locator("#token-why")).to_contain_text("[TOKEN_WRONG]")
        give_token(here, "reader")
        here.wait()
        assert here.column(1) == ["○ normal"]  # gone on with by itself
        stored = "[localStorage.length, sessionStorage.length, document.cookie]"
        assert here.page.evaluate(stored) == [0, 0, ""]
        assert token_of("reader") not in here.page.content() + here.page.url

        here.page.reload()
        expect(here.page.locator("#token-form")).to_be_visible()


def test_a_token_that_does_not_allow_it_is_told_once(browser: Browser, url: str) -> None:
    """Not for each of the images, which can be judged with another token."""
    with visit(browser, url) as here:
        here.open()
        give_token(here, "looker")
        here.add(*numbered([DARK], 20))
        expect(here.page.locator("#token-head")).to_have_text("This token does not allow it")
        expect(here.page.locator("#token-why")).to_contain_text("[ROLE_MISSING]")
        assert here.column(1) == ["not judged"] * 20
        assert here.asked("predict") <= 4
        give_token(here, "reader")
        here.wait()
        assert here.column(1) == ["○ normal"] * 20


# Refusals.


def test_what_passes_is_asked_for_again(here: Visit) -> None:
    """When the server says so, and until it says otherwise."""
    here.answer(
        SENT, BUSY, LIMITED, STOPPING, problem(500, "INTERNAL", "Internal error of the server (id 17).", id="17")
    )
    here.add(("a.png", DARK))

    assert here.column(4) == ["Internal error of the server (id 17). INTERNAL"]
    assert here.asked("predict") == 4


def test_it_is_not_asked_for_ever(here: Visit) -> None:
    """Six times; then the refusal is shown, and the image can be sent again by hand."""
    here.answer(SENT, BUSY)
    here.add(("a.png", DARK))
    assert here.asked("predict") == 6
    assert here.column(4) == ["More images wait than the server accepts. QUEUE_FULL"]

    here.page.unroute(f"**/{SENT}")
    here.page.click("text=Judge 1 remaining image")
    here.wait()
    assert here.column(1) == ["○ normal"]


AGAIN = "Try again; twice in a row: "
STRANGE = {
    "The server answered with status 502 and did not say why. HTTP_502": {"status": 502, "body": "<h1>Bad</h1>"},
    "What answers here does not speak as StrokeServe does. Check the address. ANSWER_INVALID": {"body": "<h1>Hi</h1>"},
    f"The answer of the server cannot be read. {AGAIN}report it. ANSWER_INVALID": {"json": {"status": "ANALYSED"}},
    f"The image was changed on its way to the server. {AGAIN}check the network. IMAGE_ALTERED": {
        "json": {"status": "NOT_ANALYSED", "image_sha256": "0"}
    },
    "The body is too large. MESSAGE_TOO_LARGE": problem(413, "MESSAGE_TOO_LARGE", "The body is too large."),
}
"""Answers, by what is said of them."""


def test_strange_answers_are_refusals(here: Visit) -> None:
    """Also those that are not the server's."""
    here.answer(SENT, *STRANGE.values())
    for number in range(len(STRANGE)):
        here.add((f"{number}.png", DARK))

    assert [row[1:] for row in here.rows()] == [["✕ refused", "", "", sentence, ""] for sentence in STRANGE]


# No server.


def test_a_server_that_is_gone_is_told_once_and_the_run_can_be_gone_on_with(here: Visit) -> None:
    """Nothing is lost of what had been judged."""
    here.add(*numbered([DARK], 3))
    here.answer(SENT, None)
    here.answer("health/live", None)
    here.add(*numbered([DARK], 20))

    assert (
        here.text("problem-text")
        == "The server does not answer. Check that it runs, and the network between. [SERVER_UNREACHABLE]"
    )
    assert here.column(1) == ["○ normal"] * 3 + ["not judged"] * 20
    assert here.asked("predict") <= 3 + 4

    here.page.unroute_all()
    here.page.click("text=Judge 20 remaining images")
    here.wait()
    assert here.column(1) == ["○ normal"] * 23


def test_a_connection_that_breaks_under_one_image_is_that_images_fault(here: Visit) -> None:
    """The server is there; so the others go on."""
    here.answer(SENT, None)
    here.add(("a.png", DARK))

    assert here.column(1) == ["✕ refused"]
    assert "Perhaps that is more than it accepts" in here.column(4)[0]
    assert here.column(4)[0].endswith("CONNECTION_LOST")


def test_a_page_without_a_server_says_so(browser: Browser, url: str) -> None:
    """And works once it is there."""
    with visit(browser, url) as here:
        here.answer("models", None)
        here.open()
        assert here.text("problem-text").startswith("The server does not answer.")
        here.page.unroute_all()
        here.page.click("text=Try again")
        expect(here.page.locator("#token-form")).to_be_visible()


def test_a_browser_that_makes_no_digests_judges_as_well(here: Visit) -> None:
    """As it is over plain HTTP from another machine: then nothing is compared."""
    here.page.evaluate("Object.defineProperty(crypto, 'subtle', {value: undefined})")
    here.add(("a.png", DARK))

    assert here.column(1) == ["○ normal"]
    assert "image_sha256" not in here.requests[-1]
