from __future__ import annotations

import io

import numpy as np
from PIL import Image

from pipeline.report.render import OVERSAMPLING, Camera, Layer, Wire, draw, look_at, png

RED, BLUE = (200, 30, 30), (30, 30, 200)


def straight(width: int = 60, height: int = 40, focal: float = 100.0) -> Camera:
    return Camera(np.eye(4), focal, width, height, (width / 2, height / 2))


def naive_owner(camera: Camera, layers: list[Layer]) -> np.ndarray:
    """Which layer owns each pixel of the oversampled picture, pixel by pixel and point by point; -1: none."""
    width, height, focal = (OVERSAMPLING * value for value in (camera.width, camera.height, camera.focal))
    owner = np.full((height, width), -1)
    nearest = np.full((height, width), np.inf)
    for index, layer in enumerate(layers):
        for x, y, z in layer.points:
            u, v = focal * x / z + width / 2, focal * y / z + height / 2
            radius = max(1.0, 0.8 * layer.size * focal / z)
            for row in range(height):
                for column in range(width):
                    inside = (column - u) ** 2 + (row - v) ** 2 <= radius**2
                    if inside and z - layer.nearer < nearest[row, column]:
                        nearest[row, column], owner[row, column] = z - layer.nearer, index
    return owner


def test_the_nearest_point_owns_a_pixel() -> None:
    rng = np.random.default_rng(0)
    camera = straight()
    layers = [
        Layer(rng.uniform([-0.3, -0.2, 0.8], [0.3, 0.2, 1.4], (25, 3)), RED, 0.03),
        Layer(rng.uniform([-0.3, -0.2, 0.8], [0.3, 0.2, 1.4], (25, 3)), BLUE, 0.04, nearer=0.05),
        Layer(np.zeros((0, 3)), BLUE, 0.04),
    ]
    owner = naive_owner(camera, layers)
    assert {-1, 0, 1} == set(np.unique(owner))
    picture = np.asarray(draw(camera, layers, []))
    blocks = owner.reshape(camera.height, OVERSAMPLING, camera.width, OVERSAMPLING).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(camera.height, camera.width, -1)
    for index, bright in ((0, 0), (1, 2)):
        full = (blocks == index).all(axis=2)
        assert full.sum() > 20
        assert (picture[full][:, bright] > 2 * picture[full][:, 2 - bright]).all()
        assert (picture[full][:, 3] == 255).all()
    assert (picture[(blocks == -1).all(axis=2)] == 0).all()


def test_cameras_show_what_they_are_to_frame_with_up_being_up() -> None:
    rng = np.random.default_rng(1)
    for eye in ([0.4, 0.1, 0.5], [0.0, 0.0, 0.7], [-0.3, 0.6, 0.05]):
        points = rng.uniform(-0.15, 0.15, (50, 3))
        camera = look_at(np.array(eye), points.mean(axis=0), points, 300, 200)
        pixels, z = camera.project(points)
        assert (z > 0).all() and (pixels > 0).all() and (pixels < [300, 200]).all()
        margins = np.concatenate([pixels.min(axis=0), [300, 200] - pixels.max(axis=0)])
        assert np.allclose(margins[:2], margins[2:])  # in the middle
        assert margins.min() < 40  # and filling it
        R = camera.T_camera_world[:3, :3]
        assert np.allclose(R @ R.T, np.eye(3)) and np.isclose(np.linalg.det(R), 1)
        if eye[2] < 0.6:
            low, high = camera.project(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.1]]))[0]
            assert high[1] < low[1]


def test_points_behind_the_camera_are_not_drawn() -> None:
    picture = np.asarray(draw(straight(), [Layer(np.array([[0.0, 0.0, -1.0]]), RED, 0.1)], []))
    assert (picture == 0).all()


def test_a_gripper_is_drawn_strongly_before_and_faintly_behind_things() -> None:
    grid = np.stack(np.meshgrid(np.linspace(-0.3, 0.3, 80), np.linspace(-0.2, 0.2, 60)), axis=-1).reshape(-1, 2)
    wall = Layer(np.column_stack([grid, np.ones(len(grid))]), RED, 0.02)

    def middle(z: float) -> np.ndarray:
        stroke = np.array([[[-0.2, 0.0, z], [0.2, 0.0, z]]])
        return np.asarray(draw(straight(), [wall], [Wire(stroke, BLUE)]))[20, 30].astype(int)

    plain = np.asarray(draw(straight(), [wall], []))[20, 30].astype(int)
    before, behind = middle(0.9), middle(1.1)
    assert before[2] > before[0] + 100
    assert plain[0] > behind[0] > before[0] and plain[2] < behind[2] < before[2]
    assert np.array_equal(middle(-1.0), plain)  # behind the camera


def test_a_picture_survives_its_file() -> None:
    layers = [Layer(np.array([[0.0, 0.0, 1.0]]), RED, 0.1)]
    image = draw(straight(), layers, [])
    stored = Image.open(io.BytesIO(png(image))).convert("RGBA")
    assert stored.size == (60, 40)
    assert np.abs(np.asarray(stored, int)[20, 30] - np.asarray(image, int)[20, 30]).max() < 12
    assert np.asarray(stored)[0, 0, 3] == 0
