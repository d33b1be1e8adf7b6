"""Cut one mesh into convex parts with CoACD, in a process of its own: ``python -m grasping.physics.decompose IN OUT``.

Its own process, because coacd and open3d bring clashing copies of one C++ library: whichever is imported second may
fail. IN is an npz with ``vertices (V, 3)``, ``faces (F, 3)`` and the parameters; OUT an npz with ``points (P, 3)`` and
``sizes (parts,)``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(source: Path, target: Path) -> None:
    try:
        import coacd
    except ImportError:
        raise SystemExit("coacd is not installed") from None
    with np.load(source, allow_pickle=False) as given:
        mesh = coacd.Mesh(given["vertices"], given["faces"])
        clean = bool(given["clean"])
        threshold, resolution = float(given["threshold"]), int(given["resolution"])
        iterations, nodes = int(given["iterations"]), int(given["nodes"])
    coacd.set_log_level("off")
    parts = coacd.run_coacd(
        mesh,
        threshold=threshold,
        preprocess_mode="off" if clean else "on",
        resolution=resolution,
        mcts_iterations=iterations,
        mcts_nodes=nodes,
        seed=0,
    )
    points = [np.asarray(vertices, dtype=np.float64).reshape(-1, 3) for vertices, _ in parts]
    np.savez(target, points=np.concatenate(points), sizes=np.array([len(p) for p in points]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
