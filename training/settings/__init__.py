"""The settings of each command, each defined once: its flag, range, default and help are all made of it.

Nothing here imports TensorFlow, so that ``--help`` answers at once.
"""
