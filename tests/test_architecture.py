"""The arrows of the design: who may import whom, and what must stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("completion", "grasping", "pipeline")


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("package", ["completion", "grasping"])
def test_rooms_do_not_know_each_other(package: str) -> None:
    others = tuple(name for name in PACKAGES if name != package)
    for path in files(package):
        allowed = ("completion.points",) if is_learned_generator(path) else ()
        bad = {
            name
            for name in imported(path)
            if name.split(".")[0] in others and not (allowed and name.startswith(allowed))
        }
        assert not bad, f"{path.relative_to(ROOT)} imports {sorted(bad)}"


def is_learned_generator(path: Path) -> bool:
    """A folder of its own below generators/: the one place in grasping/ that may import torch and completion.points."""
    return path.relative_to(ROOT).parts[:2] == ("grasping", "generators") and path.parent.name != "generators"


def test_grasping_never_imports_torch() -> None:
    assert any(is_learned_generator(path) for path in files("grasping"))
    for path in files("grasping"):
        if is_learned_generator(path):
            continue
        assert not {name for name in imported(path) if name.split(".")[0] == "torch"}, path


def test_the_map_of_the_house_names_every_module() -> None:
    text = ast.get_docstring(ast.parse((ROOT / "pipeline" / "__init__.py").read_text())) or ""
    modules = [path.stem for path in (ROOT / "pipeline").glob("*.py") if not path.stem.startswith(("__init__", "cli_"))]
    assert not [name for name in modules if not re.search(rf"``{name}``|^{name} ", text, re.MULTILINE)]


def test_the_wheel_holds_every_package() -> None:
    named = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert ".".join(path.parent.relative_to(ROOT).parts) in named, path


def test_scripts_are_imported_by_nobody() -> None:
    for package in PACKAGES:
        for path in files(package):
            assert not {name for name in imported(path) if name.split(".")[0] in ("scripts", "tests")}, path


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("pipeline.score, grasping.protocol", ("torch", "open3d", "matplotlib", "trimesh", "pandas")),
        (
            "pipeline.generate, grasping.generators.antipodal, grasping.generators.dump",
            ("torch", "open3d", "matplotlib", "pandas"),
        ),
        ("pipeline.explain, pipeline.visibility", ("torch", "open3d", "matplotlib", "trimesh", "pandas")),
        (
            "pipeline.run_folder, pipeline.units, pipeline.schedule, pipeline.engines.local",
            ("torch", "open3d", "numba", "pandas"),
        ),
        ("pipeline.aggregate, pipeline.summary, pipeline.notebook", ("torch", "open3d", "matplotlib", "plotly")),
        ("pipeline.cli", ("torch", "open3d", "numpy", "pandas")),
    ],
)
def test_workers_start_light(modules: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_completion_imports_with_torch_numpy_and_safetensors_alone() -> None:
    """On a bare GPU machine nothing else of ours is there."""
    hidden = ("scipy", "numba", "yaml", "pydantic", "tqdm", "pandas", "open3d", "trimesh", "pyarrow", "matplotlib")
    hidden += ("triton", "h5py", "tensorboard", "typer", "rich")
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in files("completion")
        if not path.stem.endswith(("_numba", "_triton"))  # imported only where what they are named after is
    ]
    code = "\n".join(
        [
            "import sys",
            f"for name in {hidden}: sys.modules[name] = None",
            *[f"import {module}" for module in modules],
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_a_foreign_package_in_our_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import grasp_utility; grasp_utility.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "tests", check=False)
    assert done.returncode != 0
    assert str(tmp_path / "pipeline") in done.stderr and "hides" in done.stderr
    assert "Traceback" not in done.stderr
