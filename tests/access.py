"""Files of tokens and lists of clients for tests."""

from __future__ import annotations

from pathlib import Path

from server.security.tokens import digest_token


def write_tokens(path: Path, **clients: str) -> Path:
    """Writes a file of tokens, as ``token-of-NAME`` each: options by the name of the client. Returns its path."""
    return write_private(
        path, ["# nobody", *(f"{name} {digest_token(token_of(name))} {words}" for name, words in clients.items())]
    )


def write_private(path: Path, lines: list[str]) -> Path:
    """Replaces a file, as editors do: it has never half of its lines."""
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n")
    new.chmod(0o600)
    new.rename(path)
    return path


def token_of(name: str) -> str:
    return f"token-of-{name}"
