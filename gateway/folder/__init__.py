"""The files of a folder, judged once: ``python -m gateway judge``, and ``mercure``, the same by mercure's contract."""
