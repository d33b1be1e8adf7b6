"""What writer and reader of pair files must agree on; apart from the reader because writers need no torch."""

from __future__ import annotations

FORMAT_VERSION = 1
SURFACE_POINTS = 16384  # of each object
