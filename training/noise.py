"""TensorFlow's greetings, kept off the terminal of somebody who trains or converts a model."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from server.process.console import PATIENCE_SECONDS, write_all


@contextlib.contextmanager
def hide_import_noise() -> Iterator[None]:
    """Keeps TensorFlow's greetings off the terminal; whatever was said is shown when the import fails.

    Its C++ libraries write some lines before any log level applies, so the descriptor itself is turned aside.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except BaseException:
            noise.seek(0)
            write_all(terminal, noise.read(), PATIENCE_SECONDS)
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
    # Keras calls the .h5 file that was asked for "legacy" on every save.
    from absl import logging

    logging.set_verbosity(logging.ERROR)
