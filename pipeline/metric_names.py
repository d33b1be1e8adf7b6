"""What completion metrics are called. Light: the configuration knows the names, and must not wait for torch."""

from __future__ import annotations

FIDELITY_PARTS = ("coverage", "spurious", "precision", "f1")
FIDELITY = (
    *(f"{name}@0.03" for name in FIDELITY_PARTS),
    *(f"{name}@5mm" for name in FIDELITY_PARTS),
    "cd_l1",
    "cd_l2",
    "cd_l1_mm",
)
