"""Synthesized datasets: exact layout, annotations that agree with the pictures, same parameters same bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from grasping.clouds import backproject
from grasping.geometry import SignedDistanceGrid
from grasping.transforms import invert, transform_points
from pipeline.datasets import rendering
from pipeline.datasets.check import check_dataset
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.datasets.mesh_folder import MeshFolderError, list_meshes, load_shape
from pipeline.datasets.scene_files import annotation
from pipeline.datasets.settling import Body, SettlingError, settle
from pipeline.datasets.shapes import NOVEL_IDS, TRAINING_IDS, make_object
from pipeline.datasets.synthetic import PRESETS, SynthesisError, synthesize

SMALL: dict[str, Any] = {"scenes": (100, 160), "views": (0, 196), "objects_per_scene": (4, 5), "seed": 5}


def _hashes(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "sample"
    synthesize(out, **SMALL, sdf="none")
    return out


def test_layout_is_complete_for_reader_and_check(sample: Path) -> None:
    dataset = GraspNetDataset(sample, "realsense")
    assert dataset.scene_ids() == [100, 160]
    assert dataset.scene_ids("test_novel") == [160]
    assert dataset.view_ids(100) == [0, 196]
    assert [p for p in check_dataset(sample) if p.severity == "error"] == []
    assert set(dataset.object_ids(100)) <= set(TRAINING_IDS)
    assert set(dataset.object_ids(160)) <= set(NOVEL_IDS)
    camera = sample / "scenes/scene_0100/realsense"
    assert len(list((camera / "annotations").glob("*.xml"))) == 256
    assert np.load(camera / "camera_poses.npy").shape == (256, 4, 4)
    assert np.allclose(np.load(camera / "camera_poses.npy")[0], np.eye(4))
    for folder, suffix in (("depth", "png"), ("label", "png"), ("rgb", "png"), ("meta", "mat")):
        assert sorted(p.name for p in (camera / folder).iterdir()) == [f"0000.{suffix}", f"0196.{suffix}"]
    listed = [int(line) for line in (camera.parent / "object_id_list.txt").read_text().split()]
    assert tuple(listed) == dataset.object_ids(100)
    for object_id in listed:
        mesh = trimesh.load(sample / f"models/{object_id:03d}/nontextured.ply", process=False)
        assert mesh.is_watertight
        text = trimesh.load(sample / f"models/{object_id:03d}/textured.obj", process=False)
        assert np.allclose(mesh.vertices, text.vertices, atol=1e-7)
        assert (mesh.faces == text.faces).all()
    manifest = json.loads((sample / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["noise"]["realsense"]["axial_square"] == rendering.NOISE["realsense"].axial_square


@pytest.mark.parametrize(("scene", "view"), [(100, 0), (100, 196), (160, 196)])
def test_labelled_pixels_lie_on_the_posed_models(sample: Path, scene: int, view: int) -> None:
    dataset = GraspNetDataset(sample, "realsense")
    seen = dataset.view(scene, view)
    points = backproject(seen.depth, seen.intrinsics)
    sigma = rendering.NOISE["realsense"].axial_floor + rendering.NOISE["realsense"].axial_square * 0.5**2
    checked = 0
    for object_id, T in zip(seen.object_ids, seen.T_camera_object, strict=True):
        cloud = points[(seen.label == object_id + 1) & (seen.depth > 0)]
        if len(cloud) < 200:
            continue
        shape = make_object(object_id)
        distance = _distance(shape.vertices, shape.faces, transform_points(invert(T), cloud[::17]))
        assert np.quantile(distance, 0.5) < 1.5 * sigma
        assert np.quantile(distance, 0.99) < 5 * sigma
        checked += 1
    assert checked >= 3
    table = transform_points(seen.T_table_camera, points[(seen.label == 0) & (seen.depth > 0)])
    assert np.abs(np.median(table[:, 2])) < 0.0005
    assert table[:, 2].std() < 0.003


def _distance(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    import open3d

    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(vertices.astype(np.float32), faces.astype(np.uint32))
    return scene.compute_distance(points.astype(np.float32)).numpy()


def test_objects_rest_on_the_table_in_all_annotations(sample: Path) -> None:
    dataset = GraspNetDataset(sample, "realsense")
    for scene in (100, 160):
        reference = None
        for view in (0, 17, 101, 255):
            T_table_object = dataset.T_table_camera(scene, view) @ dataset.object_poses(scene, view)
            if reference is None:
                reference = T_table_object
            # Four decimals, seen from afar: half a unit in the last place, times 2 for the quaternion.
            assert np.abs(T_table_object[:, :3, :3] - reference[:, :3, :3]).max() < 8e-4
            assert np.abs(T_table_object[:, :3, 3] - reference[:, :3, 3]).max() < 3e-4
        assert reference is not None
        lows = []
        for object_id, T in zip(dataset.object_ids(scene), reference, strict=True):
            points = transform_points(T, make_object(object_id).vertices)
            lows.append(points[:, 2].min())
            assert np.hypot(*T[:2, 3]) < 0.28
        assert min(lows) > -0.0015
        assert np.median(lows) < 0.002


def test_same_parameters_same_bytes_whatever_the_workers(sample: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "again", **SMALL, sdf="none", workers=2)
    assert _hashes(tmp_path / "again") == _hashes(sample)


def test_finished_is_left_alone_and_interrupted_goes_on(sample: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sample, copy)
    before = _hashes(copy)
    steps: list[tuple[int, int]] = []
    synthesize(copy, **SMALL, sdf="none", progress=lambda done, total: steps.append((done, total)))
    assert steps == []
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    shutil.rmtree(copy / "scenes/scene_0160")
    next((copy / "models").iterdir()).rename(tmp_path / "lost")
    (copy / "scenes/.scene_0160.1.tmp/realsense").mkdir(parents=True)
    (copy / "scenes/.scene_0160.1.tmp/object_id_list.txt").write_text("6")
    kept = copy / "scenes/scene_0100/object_id_list.txt"
    stamp = kept.stat().st_mtime_ns
    synthesize(copy, **SMALL, sdf="none", progress=lambda done, total: steps.append((done, total)))
    assert _hashes(copy) == before
    assert kept.stat().st_mtime_ns == stamp
    assert steps[-1][0] == steps[-1][1]


def test_foreign_folders_are_refused(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match=r"other parameters \(its seed 5, asked 6\)"):
        synthesize(sample, **{**SMALL, "seed": 6}, sdf="none")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SynthesisError, match="is not empty"):
        synthesize(tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": (190,)}, "scenes must be"),
        ({"views": (256,)}, "views must be"),
        ({"cameras": ("zed",)}, "cameras must be"),
        ({"unit": "cm"}, "unit must be"),
        ({"sdf": "yes"}, "sdf must be"),
        ({"objects_per_scene": (5, 4)}, "objects_per_scene must be"),
        ({"seed": -1}, "seed must"),
    ],
)
def test_bad_parameters_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SynthesisError, match=message):
        synthesize(tmp_path / "new", **{**SMALL, **change})
    assert not (tmp_path / "new").exists()


def test_signed_distances_only_for_scored_objects(tmp_path: Path) -> None:
    manifest = synthesize(
        tmp_path / "d", scenes=(0, 160), views=(0,), objects_per_scene=(2, 2), cameras=("kinect",), seed=1
    )
    made = {p.parent.name for p in (tmp_path / "d/models").glob("*/textured.sdf")}
    assert made == {name for name, entry in manifest["objects"].items() if entry["novel"]}
    assert len(made) == 2
    assert manifest["scenes"].keys() == {"0000", "0160"}
    seen = GraspNetDataset(tmp_path / "d", "kinect").view(160, 0)
    assert np.allclose(seen.intrinsics, rendering.intrinsics("kinect"))
    assert (seen.label > 0).sum() > 500


def test_presets_name_the_splits_they_promise() -> None:
    sample = PRESETS["sample"]
    assert sum(100 <= s < 130 for s in sample.scenes) >= 4
    assert sum(160 <= s < 190 for s in sample.scenes) >= 4
    assert len(sample.views) == 4
    assert all(s < 100 for s in PRESETS["training"].scenes)
    assert not set(PRESETS["novel"].scenes) & set(sample.scenes)


# --- pieces -----------------------------------------------------------------------------------------------------


def test_annotation_is_read_back_within_its_rounding() -> None:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(0)
    T = np.tile(np.eye(4), (50, 1, 1))
    T[:, :3, :3] = Rotation.random(50, rng=rng).as_matrix()
    T[:, :3, 3] = rng.uniform(-0.5, 0.5, (50, 3))
    text, poses = annotation(list(range(50)), ["thing"] * 50, T)
    assert text.count("<obj>") == 50
    assert np.abs(poses[:, :3, 3] - T[:, :3, 3]).max() <= 0.5e-4 + 1e-7
    assert np.abs(poses[:, :3, :3] - T[:, :3, :3]).max() < 4e-4
    assert np.abs(poses - T).max() > 1e-6  # it did go through the text


def test_render_matches_a_box_by_hand() -> None:
    """A box under a camera that looks straight down: depths and outline follow from the pinhole model."""
    half = 0.03
    mesh = trimesh.creation.box((2 * half, 2 * half, 2 * half))
    T_table_camera = np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.5], [0, 0, 0, 1.0]])
    T_table_object = np.eye(4)
    T_table_object[2, 3] = half
    model = rendering.Model(mesh.vertices, mesh.faces, 7, (200, 50, 50))
    seen = rendering.render([model], (invert(T_table_camera) @ T_table_object)[None], T_table_camera, "realsense")
    fx, fy, cx, cy = rendering.INTRINSICS["realsense"]
    u, v = np.meshgrid(np.arange(1280), np.arange(720))
    top = 0.5 - 2 * half
    inside = (np.abs(u - cx) < half / top * fx - 1e-3) & (np.abs(v - cy) < half / top * fy - 1e-3)
    assert (seen.label == 7)[inside].all()
    assert abs(int((seen.label == 7).sum()) - int(inside.sum())) <= 400  # less than a pixel around
    assert np.allclose(seen.depth[inside], top, atol=1e-6)
    assert np.allclose(seen.depth[seen.label == 0], 0.5, atol=1e-9)
    assert seen.cosine[350, 651] == pytest.approx(1.0, abs=1e-5)


def test_noise_has_the_stated_size_and_dropouts() -> None:
    noise = rendering.NOISE["realsense"]
    flat, straight = np.full((400, 400), 0.5), np.ones((400, 400))
    readings = noise.apply(flat, straight, np.random.default_rng(0)).astype(float)
    stated = noise.axial_floor + noise.axial_square * 0.25
    assert (readings == 0).mean() == pytest.approx(noise.dropout, abs=5e-4)
    assert readings[readings > 0].std() / 1000 == pytest.approx(np.hypot(stated, 0.001 / np.sqrt(12)), rel=0.1)
    assert readings[readings > 0].mean() == pytest.approx(500, abs=0.1)
    step = flat.copy()
    step[:, 200:] = 0.6
    at_edge = noise.apply(step, straight, np.random.default_rng(0))[:, 199:201]
    assert (at_edge == 0).mean() == pytest.approx(noise.edge_dropout, abs=0.05)
    grazing = noise.apply(flat, np.full_like(flat, np.cos(np.radians(79.0))), np.random.default_rng(0))
    assert (grazing == 0).mean() == pytest.approx(0.5, abs=0.02)
    assert (noise.apply(np.zeros((9, 9)), np.zeros((9, 9)), np.random.default_rng(0)) == 0).all()


def test_camera_path_is_like_the_real_one(real_data: Path) -> None:
    real = GraspNetDataset(real_data / "graspnet_real", "realsense")
    theirs = np.array([real.T_table_camera(0, v) for v in range(256)])
    ours = rendering.camera_path("realsense")
    for T in (theirs, ours):
        assert np.allclose(np.linalg.det(T[:, :3, :3]), 1, atol=1e-5)
    assert ours[:, 2, 3].min() == pytest.approx(theirs[:, 2, 3].min(), abs=0.04)
    assert ours[:, 2, 3].max() == pytest.approx(theirs[:, 2, 3].max(), abs=0.04)
    tilt = [np.degrees(np.arcsin(-T[:, 2, 2])) for T in (theirs, ours)]
    assert tilt[0].min() == pytest.approx(tilt[1].min(), abs=4)
    assert tilt[0].max() == pytest.approx(tilt[1].max(), abs=4)
    assert np.sign(np.median(theirs[:, 2, 1])) == np.sign(np.median(ours[:, 2, 1]))  # mounted upside down


def _body(object_id: int) -> Body:
    shape = make_object(object_id)
    return Body.of_mesh(object_id, shape.vertices, shape.faces, shape.parts, shape.density)


def test_settled_objects_neither_move_nor_meet() -> None:
    bodies = [_body(i) for i in (0, 9, 12, 21, 33, 48)]
    first = settle(bodies, np.random.default_rng(3), at_least=4)
    again = settle(bodies, np.random.default_rng(3), at_least=4)
    assert first.object_ids == again.object_ids
    assert first.T_table_object.tobytes() == again.T_table_object.tobytes()
    assert len(first.object_ids) >= 4
    by_id = {b.object_id: b for b in bodies}
    for i, T_i in zip(first.object_ids, first.T_table_object, strict=True):
        shape = make_object(i)
        for j, T_j in zip(first.object_ids, first.T_table_object, strict=True):
            if i != j:
                points = transform_points(invert(T_i) @ T_j, by_id[j].vertices)
                assert _signed(shape.vertices, shape.faces, points).min() > -0.0025


def _signed(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    import open3d

    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(vertices.astype(np.float32), faces.astype(np.uint32))
    return scene.compute_signed_distance(points.astype(np.float32)).numpy()


def test_what_cannot_settle_is_said() -> None:
    bodies = [_body(6)]
    with pytest.raises(SettlingError, match="fewer than 2 of 1"):
        settle(bodies, np.random.default_rng(0), at_least=2)


def test_body_weighs_what_its_mesh_weighs() -> None:
    body = _body(0)  # a box 45 x 95 x 150 mm
    assert body.mass == pytest.approx(0.045 * 0.095 * 0.150 * 350, rel=1e-5)
    assert np.allclose(body.centre, 0, atol=1e-6)
    a, b, c = 0.045, 0.095, 0.150
    expected = body.mass / 12 * np.array([b * b + c * c, a * a + c * c, a * a + b * b])
    assert np.allclose(np.diag(body.inertia), expected, rtol=1e-4)


# --- meshes of the user's own -----------------------------------------------------------------------------------


def test_scenes_from_a_folder_of_meshes(tmp_path: Path) -> None:
    folder = tmp_path / "meshes"
    folder.mkdir()
    trimesh.creation.box((60, 40, 30)).export(folder / "block.stl")
    trimesh.creation.cylinder(20, 80).export(folder / "rod.obj")
    trimesh.creation.icosphere(2, 30).export(folder / "ball.ply")
    assert [p.stem for p in list_meshes(folder).values()] == ["ball", "block", "rod"]
    with pytest.raises(MeshFolderError, match="check the unit"):
        load_shape(folder, 0, "m")
    manifest = synthesize(
        tmp_path / "d", scenes=(0,), views=(0,), objects_per_scene=(2, 3), models=folder, unit="mm", sdf="none", seed=2
    )
    assert manifest["collision"] == "convex hull of each mesh"
    dataset = GraspNetDataset(tmp_path / "d", "realsense")
    block = next((i for i in dataset.object_ids(0) if i == 1), None)
    if block is not None:
        mesh = trimesh.load(dataset.model_dir(block) / "nontextured.ply", process=False)
        assert np.allclose(np.sort(mesh.extents), [0.03, 0.04, 0.06], atol=1e-6)
    for object_id in dataset.object_ids(0):
        mesh = trimesh.load(dataset.model_dir(object_id) / "nontextured.ply", process=False)
        assert mesh.is_watertight
        assert np.quantile(mesh.edges_unique_length, 0.98) < 0.0051


def test_mesh_folder_errors_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MeshFolderError, match="no such folder"):
        list_meshes(tmp_path / "nowhere")
    with pytest.raises(MeshFolderError, match="no meshes in it"):
        list_meshes(tmp_path)


@pytest.mark.real_data
def test_scenes_from_real_models(real_data: Path, tmp_path: Path) -> None:
    models = real_data / "graspnet_real" / "models"
    assert list(list_meshes(models))[:3] == [0, 1, 2]
    synthesize(tmp_path / "d", scenes=(100,), views=(30,), models=models, objects_per_scene=(4, 5), sdf="none", seed=0)
    assert [p for p in check_dataset(tmp_path / "d") if p.severity == "error"] == []
    seen = GraspNetDataset(tmp_path / "d", "realsense").view(100, 30)
    assert len(np.unique(seen.label)) >= 4


@pytest.mark.graspnetapi
def test_the_referee_loads_it(sample: Path) -> None:
    """graspnetAPI's own classes: ids, models, poses (equal to the last bit) and the scene's cloud."""
    pytest.importorskip("graspnetAPI")
    from graspnetAPI import GraspNet
    from graspnetAPI.graspnet_eval import GraspNetEval

    api = GraspNet(str(sample), camera="realsense", split="custom", sceneIds=[100, 160])
    dataset = GraspNetDataset(sample, "realsense")
    assert set(api.getObjIds([100])) == set(dataset.object_ids(100))
    models = api.loadObjModels(list(dataset.object_ids(100)))
    assert all(len(model.points) > 500 for model in models)
    cloud = api.loadScenePointCloud(100, "realsense", 196)
    assert len(cloud.points) > 100_000
    evaluator = GraspNetEval(str(sample), "realsense", split="custom")
    for view in (0, 196, 255):
        ids, poses, camera_pose, align = evaluator.get_model_poses(160, view)
        assert tuple(ids) == dataset.object_ids(160)
        assert np.array_equal(np.array(poses, dtype=np.float32), dataset.object_poses(160, view))
        assert np.allclose(align @ camera_pose, dataset.T_table_camera(160, view))


@pytest.mark.graspnetapi
def test_the_referee_reads_our_grids(tmp_path: Path) -> None:
    """Its loaders of .ply, .obj and .sdf, as its evaluation calls them."""
    reference = pytest.importorskip("grasping.reference")
    if not reference.available():
        pytest.skip("graspnetAPI is not installed: scripts/install_referee.sh")
    from graspnetAPI.graspnet_eval import GraspNetEval

    synthesize(tmp_path / "d", scenes=(160,), views=(0,), objects_per_scene=(2, 2), seed=1)
    models, graspables, ids = GraspNetEval(str(tmp_path / "d"), "realsense", split="custom").get_scene_models(160, 0)
    assert len(models) == len(graspables) == len(ids) == 2
    for object_id, graspable in zip(ids, graspables, strict=True):
        grid = SignedDistanceGrid.load(tmp_path / f"d/models/{object_id:03d}/textured.sdf")
        assert np.allclose(graspable.sdf.data, grid.values, atol=1e-9)
        assert graspable.sdf.resolution == pytest.approx(grid.resolution)
        assert len(graspable.mesh.vertices) == len(make_object(object_id).vertices)
