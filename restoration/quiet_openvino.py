"""OpenVINO, imported so that it tells nobody.

Its package for telemetry, once it is imported, calls a server of its makers' by name, and writes to the home folder.
"""

import sys

# As if it were not installed, which OpenVINO provides for
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

__all__ = ["openvino", "ops"]
