"""How many servers a name has: it gets others while a run lasts."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread


class ServerCount:
    """Tells at once how many there were when they were last looked up, and looks them up again for the next time."""

    def __init__(self, count: Callable[[], int]) -> None:
        """Looks nothing up yet.

        Args:
            count: looks them up, which may take seconds.
        """
        self._count = count
        self._found = 0
        self._looking: Thread | None = None

    def __call__(self) -> int:
        """Returns how many were found last, 0 when nobody has looked yet. It does not wait."""
        if self._looking is None or not self._looking.is_alive():
            self._looking = Thread(target=self._look, name="stroke-client-servers", daemon=True)
            self._looking.start()
        return self._found

    def _look(self) -> None:
        self._found = self._count()
