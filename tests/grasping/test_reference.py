"""Our scores against graspnetAPI's own, grasp by grasp."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from grasping import reference, reference_scene
from grasping.geometry import ObjectGeometry, SignedDistanceGrid, load_object
from grasping.grasps import Grasps
from grasping.protocol import ViewScore, score_view
from grasping.utility import accuracy_table, average_precision
from pipeline.datasets.graspnet import GraspNetDataset

FIELDS = ("index", "object_index", "width", "kept", "collided", "empty", "min_friction", "reason")


@pytest.fixture(scope="module")
def referee() -> None:
    if not reference.available():
        pytest.skip("install the referee with scripts/install_referee.sh")


def assert_same(ours: ViewScore, theirs: ViewScore) -> None:
    for name in FIELDS:
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def only_kept(score: ViewScore) -> ViewScore:
    return ViewScore(**{name: getattr(score, name)[score.kept] for name in FIELDS}, refused=score.refused)


def outcomes(score: ViewScore) -> Counter[str]:
    return Counter(
        f"success at {mu}" if reason == "success" else str(reason)
        for reason, mu in zip(score.reason, score.min_friction, strict=True)
    )


def test_missing_referee_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    reference.load.cache_clear()
    monkeypatch.setitem(sys.modules, "graspnetAPI", None)
    monkeypatch.setitem(sys.modules, "graspnetAPI.graspnet_eval", None)
    with pytest.raises(reference.RefereeMissingError, match=r"scripts/install_referee\.sh"):
        reference.load()
    assert not reference.available()
    reference.load.cache_clear()


@pytest.mark.graspnetapi
def test_scene_of_shapes_is_graded_alike(referee: None, scene, near_antipodal) -> None:  # type: ignore[no-untyped-def]
    """Every candidate, and the kept ones as eval_grasp chooses them; edge cases among them."""
    world = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    parts = [
        near_antipodal(geometry, pose, scene.T_camera_table, 45, 10 + k)
        for k, (geometry, pose) in enumerate(zip(scene.objects, scene.T_camera_object, strict=True))
    ]
    grasps = Grasps.concatenate(parts)
    array = grasps.to_array()
    array[::17, 1], array[5::31, 1], array[3::23, 3] = 0.0, 0.3, -0.01
    array[7::41, 13:16] += 0.3  # far from everything
    array[11, 2] = np.nan
    grasps = Grasps.from_array(array)
    ours = score_view(grasps, *world)
    theirs = reference.score_view_reference(grasps, *world, every_candidate=True)
    assert_same(ours, theirs)
    assert ours.refused == theirs.refused == [(11, "not finite")]
    counts = outcomes(ours)
    assert len(ours) >= 120 and counts["collides"] >= 20 and counts["empty"] >= 10, counts
    assert sum(n for name, n in counts.items() if name.startswith("success")) >= 15, counts
    assert_same(only_kept(ours), reference.score_view_reference(grasps, *world))


@pytest.mark.graspnetapi
def test_contacts_are_the_referees_to_the_last_bit(referee: None, geometries: dict[str, ObjectGeometry]) -> None:
    from grasping.contacts import find_contacts

    grasp_module = reference.load().grasp_type
    rng = np.random.default_rng(0)
    compared = 0
    for geometry in geometries.values():
        assert geometry.sdf is not None
        target = reference.dexnet_object(geometry.sdf)
        low, high = geometry.points.min(axis=0), geometry.points.max(axis=0)
        centres, widths = rng.uniform(low, high, (40, 3)), rng.uniform(0, 0.1, 40)
        axes = rng.normal(size=(40, 3))
        axes[:10] = np.eye(3)[rng.integers(0, 3, 10)]
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
        contacts = find_contacts(geometry.sdf, centres, axes, widths)
        for i in range(40):
            configuration = grasp_module.configuration_from_params(centres[i], axes[i], widths[i], 0.0)
            found, pair = grasp_module(configuration, 0.02).close_fingers(target, check_approach=False)
            assert found == contacts.found[i]
            if found:
                assert np.array_equal([c.point for c in pair], contacts.points[i])
                compared += 1
    assert compared >= 60


@pytest.mark.graspnetapi
def test_empty_view(referee: None, scene) -> None:  # type: ignore[no-untyped-def]
    world = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    for grasps in (Grasps.empty(), Grasps.from_array(np.full((1, 17), np.nan))):
        assert_same(score_view(grasps, *world), reference.score_view_reference(grasps, *world))


def dump_views(
    root: Path, out: Path, scene: int, views: list[int], models: list[ObjectGeometry], count: int, near_antipodal
) -> dict[int, tuple[Grasps, ViewScore]]:  # type: ignore[no-untyped-def]
    dataset = GraspNetDataset(root, "realsense")
    folder = out / f"scene_{scene:04d}" / "realsense"
    folder.mkdir(parents=True)
    result = {}
    for view in views:
        poses, T = dataset.object_poses(scene, view), np.linalg.inv(dataset.T_table_camera(scene, view))
        parts = [
            near_antipodal(g, pose, T, count, 7 * view + k)
            for k, (g, pose) in enumerate(zip(models, poses, strict=True))
        ]
        grasps = Grasps.concatenate(parts)
        np.save(folder / f"{view:04d}.npy", grasps.to_array())
        result[view] = (grasps, score_view(grasps, models, poses, T))
    return result


def assert_scene_like_eval_scene(
    root: Path, scene: int, dump: Path, ours: dict[int, tuple[Grasps, ViewScore]]
) -> float:
    """Compare whole views with eval_scene, loaders and AP included; views are 0, 1, … Returns the AP."""
    theirs = reference_scene.evaluate_scene(root, "realsense", scene, dump, views=ours)
    tables = []
    for view, (_, score) in ours.items():
        referee = theirs[view].score
        assert referee is not None, theirs[view].failure
        assert_same(only_kept(score), referee)
        tables.append(accuracy_table(score.min_friction[score.kept]))
    accuracy = np.array([theirs[view].accuracy for view in ours])
    assert np.abs(accuracy - tables).max() < 1e-15
    ap = average_precision(tables)["ap"]
    assert ap == pytest.approx(100 * np.mean(accuracy), abs=1e-12)
    return ap


@pytest.mark.graspnetapi
def test_eval_scene_on_the_official_layout(  # type: ignore[no-untyped-def]
    referee: None, official_root: Path, tmp_path: Path, near_antipodal
) -> None:
    """graspnetAPI's own loaders read our files, and its AP is ours. Half of the models have no .sdf of their own."""
    models = [load_object(official_root / "models" / f"{k:03d}", k, tmp_path / "cache") for k in range(6)]
    staged = reference_scene.stage_root(official_root, tmp_path / "cache")
    assert reference_scene.stage_root(official_root, tmp_path / "cache") == staged
    assert not list(official_root.rglob("*.obj"))
    ours = dump_views(official_root, tmp_path / "dump", 100, [0, 1], models, 40, near_antipodal)
    assert assert_scene_like_eval_scene(staged, 100, tmp_path / "dump", ours) > 5


@pytest.mark.graspnetapi
def test_sdf_reader_gives_what_the_referees_gives(referee: None, official_root: Path) -> None:
    from importlib import import_module

    path = official_root / "models" / "004" / "textured.sdf"
    theirs = import_module("graspnetAPI.utils.dexnet.grasping.meshpy.sdf_file").SdfFile(str(path)).read()
    ours = SignedDistanceGrid.load(path)
    assert np.array_equal(theirs.data, ours.values) and np.array_equal(theirs.origin, ours.origin)
    assert theirs.resolution == ours.resolution


@pytest.mark.graspnetapi
@pytest.mark.real_data
@pytest.mark.slow
def test_real_scene_is_graded_alike(referee: None, real_data: Path, tmp_path_factory, near_antipodal) -> None:  # type: ignore[no-untyped-def]
    """Every candidate of some views of the real scene, every outcome common among them; then eval_scene itself."""
    root = real_data / "graspnet_real"
    cache = tmp_path_factory.mktemp("cache")
    dataset = GraspNetDataset(root, "realsense")
    models = [load_object(dataset.model_dir(k), k, cache) for k in dataset.object_ids(0)]
    counts: Counter[str] = Counter()
    for view in (0, 40, 85, 130, 170, 200, 230, 255):
        poses, T = dataset.object_poses(0, view), np.linalg.inv(dataset.T_table_camera(0, view))
        pool = Grasps.concatenate(
            [
                near_antipodal(g, pose, T, 4000, 1000 * view + k)
                for k, (g, pose) in enumerate(zip(models, poses, strict=True))
            ]
        )
        chosen = choose(pool, score_view(pool, models, poses, T))
        ours = score_view(chosen, models, poses, T)
        assert_same(ours, reference.score_view_reference(chosen, models, poses, T, every_candidate=True))
        counts += outcomes(ours)
    print(counts)
    passing = sum(n for name, n in counts.items() if name.startswith("success"))
    assert counts.total() >= 2000 and passing >= 300, counts
    expected = [
        "collides",
        "empty",
        "no_contact",
        "no_closure",
        *(f"success at {mu}" for mu in (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)),
    ]
    assert all(counts[name] >= 20 for name in expected), counts

    staged = reference_scene.stage_root(root, cache)
    dump = cache / "dump"
    whole = dump_views(root, dump, 0, [0, 1], models, 100, near_antipodal)
    assert assert_scene_like_eval_scene(staged, 0, dump, whole) > 1


def choose(pool: Grasps, score: ViewScore) -> Grasps:
    """At most so many of each outcome: an evenly mixed view, whose rare outcomes are all there."""
    rows: list[int] = []
    names = np.array([f"{reason}{mu}" for reason, mu in zip(score.reason, score.min_friction, strict=True)])
    for name in np.unique(names):
        limit = 150 if name.startswith(("collides", "empty")) else 12
        rows.extend(score.index[names == name][:limit].tolist())
    return pool[sorted(rows)]
