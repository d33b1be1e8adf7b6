"""What the README tells people to type or paste: commands exist with their options, snippets run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml

from completion import checkpoint
from completion.completer import Completer
from completion.configuration import parse_config
from grasping.generators import ViewInput, is_deterministic, make_generator
from pipeline.arms import Arm
from pipeline.cli import app
from pipeline.command_completer import CommandCompleter, PartialCloud
from pipeline.command_generator import CommandGenerator, CommandView

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, without the indentation of a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", README, flags=re.MULTILINE | re.DOTALL)
    return ["\n".join(line.removeprefix(indent) for line in text.splitlines()) for indent, text in found]


def lines(program: str) -> Iterator[list[str]]:
    """The words of every line of a bash block that calls this program."""
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if program in words[:1]:
                yield words


COMMANDS = list(lines("grasp-utility"))


def test_the_blocks_are_found() -> None:
    assert len(COMMANDS) >= 12 and len(blocks("yaml")) >= 3 and len(blocks("python")) >= 2


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_and_options_exist(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands"):  # a group
        assert rest and rest[0] in command.commands, f"no command {rest[:1]} in {sorted(command.commands)}"
        command, rest = command.commands[rest[0]], rest[1:]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in rest if word.startswith("--")} <= options


@pytest.mark.parametrize("words", [*COMMANDS, *lines("python"), *lines("bash"), *lines("torchrun")], ids=" ".join)
def test_files_of_ours_exist(words: list[str]) -> None:
    for word in words:
        if word.startswith(("configs/", "scripts/", "tests/")):
            assert (ROOT / word).exists(), word


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
    titles = re.findall(r"^#+ (.*)$", README, flags=re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(#([^)]+)\)", README):
        assert target in headings, target


def test_a_checkpoint_is_saved_as_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = [block for block in blocks("python") if "checkpoint.save" in block]
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "my_module.py").write_text(
        "import torch\n\n\nclass MyNet(torch.nn.Module):\n    def __init__(self, width):\n        super().__init__()\n"
        "        self.layer = torch.nn.Linear(3, 6 * width // width)\n\n    def forward(self, points):\n"
        "        return self.layer(points).reshape(len(points), -1, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    from my_package.my_module import MyNet

    network = MyNet(128)
    exec(snippet, {"network": network})
    with pytest.raises(checkpoint.CheckpointError, match="--trust-code"):
        Completer.load("checkpoints/mine", "cpu")
    cloud = np.random.default_rng(0).random((1024, 3))
    (made,) = Completer.load("checkpoints/mine", "cpu", trust_code=True)([cloud])
    assert made.shape == (2048, 3)
    sys.modules.pop("my_package.my_module")


def test_the_method_in_another_environment_runs(tmp_path: Path) -> None:
    (snippet,) = [block for block in blocks("python") if "request.json" in block]
    (arms,) = [block for block in blocks("yaml") if "{input}" in block and "arms:" in block]
    (listed,) = [entry for entry in yaml.safe_load(arms)["arms"] if isinstance(entry, dict)]
    arm = Arm(**listed)
    assert arm.command is not None and arm.frame == "table" and arm.version == "1.2"
    method = "def my_method(points, seed):\n    return np.concatenate([points, -points]) + seed\n"
    # numpy comes before the method that uses it.
    (tmp_path / "complete.py").write_text(snippet.replace("import numpy as np\n", f"import numpy as np\n{method}"))
    command = (sys.executable, *arm.command[1:])
    clouds = [PartialCloud(np.full((20, 3), float(i), np.float32), seed=i, view=0) for i in range(2)]
    completer = CommandCompleter(command, tmp_path, arm.frame, 60.0)
    with completer.complete(tmp_path / "work", 0, "realsense", clouds) as read:
        assert read(1).tolist() == [[2.0] * 3] * 20 + [[0.0] * 3] * 20


def test_the_generator_in_another_environment_runs(tmp_path: Path) -> None:
    (block,) = [block for block in blocks("yaml") if "{input}" in block and "generators:" in block]
    (listed,) = [entry for entry in yaml.safe_load(block)["generators"] if "command" in entry]
    command = (sys.executable, *shlex.split(listed["command"])[1:])
    generator = CommandGenerator(command, ROOT, 60.0, listed["deterministic"])
    corners = np.stack(np.meshgrid([0, 0.03], [0, 0.06], [0, 0.04]), axis=-1).reshape(-1, 3).astype(np.float32)
    given = ViewInput(corners, np.zeros(8, np.int64), corners, np.eye(4), np.zeros(3), 1)
    view = CommandView.of_input(9, given)
    with generator.generate(tmp_path / "work", 0, "realsense", [view]) as read:
        assert read(9).width == pytest.approx([0.05])


def test_a_detector_in_python_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (module,) = [block for block in blocks("python") if "class FromAbove" in block]
    (declared,) = [block for block in blocks("toml") if "grasp_utility.generators" in block]
    name, target = next(iter(tomllib.loads(declared)["project"]["entry-points"]["grasp_utility.generators"].items()))
    (tmp_path / f"{target.split(':')[0]}.py").write_text(module)
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[grasp_utility.generators]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, target.split(":")[0], raising=False)  # another block's
    (line,) = re.findall(r"`- (\{name: " + name + r", .*?\}\})`", README)
    listed = yaml.safe_load(line)
    generator = make_generator(listed["name"], **listed["parameters"])
    corners = np.stack(np.meshgrid([0, 0.03], [0, 0.06], [0.5, 0.54]), axis=-1).reshape(-1, 3).astype(np.float32)
    cloud, ids = np.concatenate([corners, corners + np.float32(0.2)]), np.repeat([3, 8], 8)
    grasps = generator(cloud, ids, cloud, np.diag([1.0, -1.0, -1.0, 1.0]), np.zeros(3), 0)
    assert is_deterministic(generator) and grasps.object_id.tolist() == [3, 8]
    assert grasps.width.tolist() == [listed["parameters"]["width"]] * 2
    assert grasps.rotation[:, :, 0].tolist() == [[0, 0, 1]] * 2 and np.allclose(np.linalg.det(grasps.rotation), 1)
    assert np.allclose(grasps.translation, [[0.015, 0.03, 0.52], [0.215, 0.23, 0.72]])


def test_training_keys_are_read() -> None:
    (block,) = [block for block in blocks("yaml") if "gradient_scale" in block]
    keys = yaml.safe_load(block)
    config = parse_config({**keys, "pairs": ["x.npz"], "network": "pcn", "steps": 1})
    assert config.gradient_scale == "equal" and config.loss.parameters == {"scale": 0.05}
    for text in re.findall(r"`(dataset: .*?|epsilon: .*?)`", README.replace("\n", " ")):
        assert isinstance(next(iter(yaml.safe_load(text).values())), dict)


def test_a_loss_works_in_foreign_code() -> None:
    """Losses come with torch and numpy alone, as the README says."""
    code = "import sys\nfor name in ('numba', 'yaml'): sys.modules[name] = None\nimport torch\n"
    code += "from completion.losses import qal\nprint(float(qal(torch.zeros(1, 4, 3), torch.ones(1, 5, 3))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(float(_qal_by_hand()))


def _qal_by_hand() -> torch.Tensor:
    d = torch.tensor(3.0, dtype=torch.float64).sqrt()
    sigma = torch.sigmoid(10 * (0.001 - d))
    # Every prediction is nearest to the first of five targets; the other four are uncovered.
    return 2 * (1.5 - sigma) * d + 4 / 5 * sigma * d
