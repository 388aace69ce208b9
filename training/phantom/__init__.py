"""Synthetic head-CT slices.

From outside these may be used: ``dataset`` (``write_dataset``, ``choose_kind``, ``LESION_FOLDER``), ``slice``
(``generate_slice``, ``Slice``), ``patient.Patient`` and ``recipe`` (``Recipe``, ``PARTS``, ``FINDINGS``).
"""
