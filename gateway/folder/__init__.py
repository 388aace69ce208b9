"""The files of a folder, judged once: ``python -m gateway judge``, and ``mercure``, which is judge by mercure's contract."""
