"""Entry point of the command ``grasp-utility``, and the guard of its three import names.

``pipeline``, ``completion`` and ``grasping`` are generic names: a foreign package of the same name earlier on the
path would be imported instead of ours, and fail in a puzzling way. This module's own name is not generic, so it is
the place to find that out.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGES = ("pipeline", "completion", "grasping")


def foreign_package() -> str | None:
    """Return a sentence that names a package which hides one of ours, or None."""
    home = Path(__file__).resolve().parent
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else list(spec.submodule_search_locations or [spec.origin or "built in"])
        if not places:
            return f"the package {name!r} of grasp-utility is not installed; install grasp-utility again"
        if Path(places[0]).resolve().parent != home:
            return (
                f"another package called {name!r} at {places[0]} hides grasp-utility's own; take it off PYTHONPATH, "
                "or install grasp-utility into a virtual environment of its own"
            )
    return None


def main() -> None:
    """Run the command line."""
    problem = foreign_package()
    if problem is not None:
        sys.exit(f"grasp-utility: {problem}")
    from pipeline.cli import main as run

    run()


if __name__ == "__main__":
    main()
