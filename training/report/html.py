"""Markdown with plots as one HTML file that needs nothing else: no network, no script, no file beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

TEMPLATE = Path(__file__).with_name("page.html")


def write_page(folder: Path, name: str, title: str, markdown: str) -> None:
    """Writes ``name``.md and ``name``.html with the same content.

    Args:
        folder: where they go, and where the PNG files are that the Markdown shows.
        name: of the files.
        title: of the HTML page, plain text.
        markdown: the text. HTML in it is shown as text; of links only those to its images are kept.
    """
    (folder / f"{name}.md").write_text(markdown, encoding="utf-8")
    (folder / f"{name}.html").write_text(render_page(folder, title, markdown), encoding="utf-8")


def render_page(folder: Path, title: str, markdown: str) -> str:
    """Returns the HTML page; see ``write_page``."""
    # js-default knows tables and shows HTML as text.
    parser = MarkdownIt("js-default").disable(["link", "autolink"])
    parser.add_render_rule("image", embed_image)
    parser.add_render_rule("table_open", lambda *_: '<div class="table"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    body = parser.render(markdown, {"folder": folder})
    return Template(TEMPLATE.read_text("utf-8")).substitute(title=html.escape(title), body=body)


def embed_image(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: dict[str, Any]) -> str:
    """Renders an image with the file's bytes in place of its name."""
    token = tokens[index]
    data = base64.b64encode((env["folder"] / str(token.attrs["src"])).read_bytes()).decode()
    alt = html.escape(renderer.renderInlineAsText(token.children or [], options, env))
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'
