from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import ConfigError, load_experiment, shipped_config

HEAD = "format_version: 1\nname: x\ndataset: {root: data}\n"
ARMS = "arms: [partial, oracle]\n"
FAMILY = "statistics: {family: "


def load(tmp_path: Path, text: str):
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    return load_experiment(path)


def test_shorthand_names_mean_the_three_kinds_of_arm(tmp_path: Path) -> None:
    experiment = load(tmp_path, HEAD + "arms: [partial, pcn-cd, oracle]\n")
    assert [(arm.name, arm.completion, arm.checkpoint) for arm in experiment.arms] == [
        ("partial", "none", None),
        ("pcn-cd", "checkpoint", "pcn-cd"),
        ("oracle", "truth", None),
    ]


def test_paths_count_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    experiment = load(
        tmp_path,
        HEAD
        + "arms: [partial, {name: a, checkpoint: ./mine}, {name: b, checkpoint: ../up}, {name: c, checkpoint: mine}]\n",
    )
    assert experiment.dataset.root == tmp_path / "data"
    assert experiment.arms[1].checkpoint == str(tmp_path / "mine")
    assert experiment.arms[2].checkpoint == str(tmp_path.parent / "up")
    assert experiment.arms[3].checkpoint == "mine"  # a bare name is a shipped one, whatever lies beside the file


def test_a_dump_folder_counts_from_the_file(tmp_path: Path) -> None:
    text = HEAD + "arms: [partial]\ngenerators: [{name: dump, parameters: {folder: theirs}}]\n"
    assert load(tmp_path, text).generators[0].parameters["folder"] == str(tmp_path / "theirs")


def test_a_command_is_an_arm_with_defaults(tmp_path: Path) -> None:
    text = (
        HEAD + "arms: [partial, pcn-cd, {name: theirs, command: \"run me.sh 'a b' {input} {output}\", version: 1.20}]\n"
    )
    experiment = load(tmp_path, text)
    arm = experiment.arms[2]
    assert (arm.completion, arm.merge, arm.frame, arm.version) == ("command", "replace", "camera", "1.2")
    assert arm.command == ("run", "me.sh", "a b", "{input}", "{output}") and arm.directory == tmp_path
    assert experiment.compared()[-1] == ("theirs", "pcn-cd")
    assert "command" not in experiment.arms[1].model_dump(mode="json")  # what was made before there were any is current
    elsewhere = HEAD + "arms: [{name: theirs, command: [x, '{input}/..', '{output}'], directory: ../method}]\n"
    assert load(tmp_path, elsewhere).arms[0].directory == tmp_path.parent / "method"


def test_default_comparisons_are_against_partial_and_the_first_checkpoint(tmp_path: Path) -> None:
    experiment = load(tmp_path, HEAD + "arms: [partial, pcn-cd, pcn-qal, oracle]\n")
    assert experiment.compared() == (
        ("pcn-cd", "partial"),
        ("pcn-qal", "partial"),
        ("oracle", "partial"),
        ("pcn-qal", "pcn-cd"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", ["not valid YAML"]),
        ("- 1", ["mapping"]),
        (HEAD, ["missing key 'arms'"]),
        (HEAD + "armz: [partial]\n", ["unknown key 'armz'", "did you mean 'arms'"]),
        (HEAD + "arms: [partial]\nstatistics: {drows: 3}\n", ["unknown key 'statistics.drows'", "'draws'"]),
        (HEAD + "arms: [{name: a, chekpoint: b}]\n", ["'checkpoint'"]),
        (HEAD + "arms: [{name: a}]\n", ["needs `checkpoint:`"]),
        (HEAD + "arms: [{name: 'a/b', completion: none}]\n", ["names a folder"]),
        (HEAD + "arms: [{name: a, command: 'x {input}'}]\n", ["arms.0.command", "must name {output}"]),
        (HEAD + 'arms: [{name: a, command: "x \'y {input} {output}"}]\n', ["cannot be split"]),
        (HEAD + "arms: [{name: a, completion: command}]\n", ["needs `command:`"]),
        (HEAD + "arms: [{name: a, checkpoint: b, timeout: 5}]\n", ["`timeout` goes with `command:`"]),
        (HEAD + "arms: [{name: a, command: 'x {input} {output}', timeout: 0}]\n", ["timeout", "greater than 0"]),
        (HEAD + "arms: [{name: a, command: 'x {input} {output}', frame: tabel}]\n", ["frame", "'table'"]),
        (HEAD + "arms: [{name: a, command: 'x {input} {output}', versoin: 2}]\n", ["did you mean 'version'"]),
        (HEAD + "arms: [{name: a, command: 'x {input} {output}', checkpoint: b}]\n", ["`checkpoint` goes with"]),
        (HEAD + "arms: [{name: a, completion: none, merge: append}]\n", ["`merge` goes with"]),
        (HEAD + "arms: [partial, partial]\n", ["two arms are called 'partial'"]),
        (HEAD + "arms: []\n", ["list of names"]),
        (HEAD + "arms: [partial]\nprimary_metric: app\n", ["did you mean 'ap'"]),
        (HEAD + "arms: [partial]\ncomparisons: [[partial, oracel]]\n", ["unknown arm 'oracel'"]),
        (HEAD + "arms: [partial]\ncomparisons: [[partial, partial]]\n", ["an arm with itself"]),
        (HEAD + f"{ARMS}comparisons: [[oracle, partial], [oracle, partial]]\n", ["names one twice"]),
        (HEAD + f"{ARMS}{FAMILY}{{metrics: [coverag@5mm]}}}}\n", ["'coverag@5mm'", "did you mean 'coverage@5mm'"]),
        (HEAD + f"{ARMS}{FAMILY}{{metrics: [held@1]}}}}\n", ["unknown metric 'held@1'"]),
        (HEAD + f"{ARMS}{FAMILY}{{metrics: []}}}}\n", ["statistics.family", "`metrics` is empty"]),
        (HEAD + f"{ARMS}{FAMILY}{{metrics: [ap, ap]}}}}\n", ["`metrics` names one twice"]),
        (HEAD + f"{ARMS}{FAMILY}{{splits: [test_sen]}}}}\n", ["statistics.family.splits.0", "'test_seen'"]),
        (
            HEAD.replace("{root: data}", "{root: d, splits: [train]}") + f"{ARMS}{FAMILY}{{splits: [test_seen]}}}}\n",
            ["'test_seen' is none of dataset.splits: train"],
        ),
        (HEAD + f"{ARMS}{FAMILY}{{comparisons: [[partial, oracle]]}}}}\n", ["none of the comparisons"]),
        (HEAD + "arms: [partial]\ndensity: 0.001\n", ["density"]),
        (
            HEAD + "arms: [partial]\nscorers: [analytic, phisics]\n",
            ["unknown scorer 'phisics'", "did you mean 'physics'"],
        ),
        (HEAD + "arms: [partial]\nscorers: [physics]\n", ["use scorers: [analytic, physics]"]),
        (HEAD + "arms: [partial]\nphysics: {friction: 0.4}\n", ["use scorers: [analytic, physics]"]),
        (
            HEAD + "arms: [partial]\nscorers: [analytic, physics]\nphysics: {frction: 0.4}\n",
            ["unknown key 'physics.frction'", "did you mean 'friction'"],
        ),
        (HEAD + "arms: [partial]\nscorers: [analytic, physics]\nphysics: {friction: -1}\n", ["physics.friction"]),
        (HEAD + "arms: [partial]\nscorers: [analytic, physics]\nphysics: {mode: table}\n", ["physics.mode", "'scene'"]),
        (HEAD.replace("name: x", "name: ../x") + "arms: [partial]\n", ["name"]),
        (HEAD.replace("{root: data}", "{root: d, splits: [train], scenes: [1]}") + "arms: [partial]\n", ["not both"]),
    ],
)
def test_bad_files_are_refused_in_one_line_that_names_file_and_key(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "experiment.yaml" in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_family_may_test_what_the_run_measures(tmp_path: Path) -> None:
    text = HEAD + f"{ARMS}{FAMILY}{{metrics: [ap, coverage@5mm, held@1], splits: [all, test_novel]}}}}\n"
    family = load(tmp_path, text + "scorers: [analytic, physics]\n").statistics.family
    assert family.metrics == ("ap", "coverage@5mm", "held@1") and family.splits == ("all", "test_novel")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_experiment(tmp_path / "nowhere.yaml")


def test_every_shipped_experiment_is_valid() -> None:
    folder = shipped_config("demo.yaml").parent
    names = sorted(path.name for path in folder.glob("*.yaml"))
    assert "demo.yaml" in names
    for name in names:
        load_experiment(folder / name)


def test_overrides_replace_nested_keys(tmp_path: Path) -> None:
    experiment = load_experiment(shipped_config("demo.yaml"), {"dataset.root": str(tmp_path), "cache": str(tmp_path)})
    assert experiment.dataset.root == tmp_path
    assert experiment.cache_folder() == tmp_path


def test_physics_has_defaults_and_leaves_no_trace_where_it_is_not_asked(tmp_path: Path) -> None:
    without = load(tmp_path, HEAD + "arms: [partial]\n")
    assert without.physics is None and "physics" not in without.model_dump(mode="json")
    bare = load(tmp_path, HEAD + "arms: [partial]\nscorers: [analytic, physics]\n")
    assert (bare.trials().mode, bare.trials().friction, bare.trials().repeats) == ("scene", 0.6, 1)
    text = (
        HEAD + "arms: [partial]\nscorers: [analytic, physics]\nphysics: {mode: isolation, friction: 0.4, repeats: 8}\n"
    )
    given = load(tmp_path, text)
    assert (given.trials().mode, given.trials().friction, given.trials().repeats) == ("isolation", 0.4, 8)
    assert given.model_dump(mode="json")["physics"] == given.trials().model_dump(mode="json")
