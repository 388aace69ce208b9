"""The file that shows where the evidence for an answer lies: the fp32 model again, with a heatmap beside its answer.

It is loaded with ``--explain`` alone. Whatever runs the model, this runs on ONNX Runtime, in one session with the threads
of a busy server: explanations are rare, and are not to take the processors from those who want answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelFileError
from server.images.overlay import Box
from server.models.contract import HEATMAP_KEY, HEATMAP_NAME, OUTPUT_NAME
from server.models.engine import EngineOptions, Port
from server.models.golden import GoldenVector, make_golden_input
from server.models.manifest import HOW_TO_MEND
from server.models.onnx_header import read_header
from server.models.onnxruntime_engine import OnnxRuntimeEngine
