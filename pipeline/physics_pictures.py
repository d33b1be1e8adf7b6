"""Pictures of a trial, drawn after it from what its recorder saw.

MuJoCo renders without a display through EGL, if told so before it is imported: :func:`load_mujoco`.
World frame: the table's, z up, or the hand's where a grasp is tried in isolation (then the approach axis points down).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_PHASE_OF = {"closed": "close", "lifted": "lift", "shaken": "hold"}
FIELD_OF_VIEW = 30.0  # degrees, vertical
DISTANCE = 0.62  # metres from the grasp, so that approach and lift stay in the picture
ELEVATIONS = np.radians([18.0, 50.0])
AZIMUTHS = np.radians(np.arange(0, 360, 45))  # about the vertical, from the side that the height axis points to
_ABOVE = 0.06  # metres above the grasp at which the camera looks
_BACKGROUND = 255
_HAND, _TARGET, _OTHERS, _TABLE = (0.2, 0.22, 0.25), (0.9, 0.5, 0.1), (0.55, 0.66, 0.76), (0.86, 0.87, 0.88)
_AMBIENT, _DIFFUSE = 0.45, 0.5


class RendererMissingError(OSError):
    """Nothing here can render; the message says what it takes."""


def load_mujoco() -> Any:
    """Import mujoco so that it renders through EGL, unless the environment names another way.

    Raises:
        RendererMissingError: where the way that the environment names does not exist here.
    """
    os.environ.setdefault("MUJOCO_GL", "egl")  # read on import; most machines have no display
    try:
        import mujoco
    except Exception as error:  # a library that is not there, or MUJOCO_GL=nonsense
        raise _missing(error) from None
    return mujoco


def _missing(error: Exception) -> RendererMissingError:
    return RendererMissingError(
        f"no renderer for MuJoCo here ({' '.join(str(error).split())}); a trial's picture needs EGL (libegl1 with a "
        "software or GPU driver) and MUJOCO_GL=egl when mujoco is imported"
    )


@dataclass
class Recording:
    """A recorder of one trial: keeps the state at every look; drawing comes afterwards.

    Attributes:
        model: MuJoCo's, of the trial.
        phases: of each look.
        states: positions at each look.
    """

    model: Any = None
    phases: list[str] = field(default_factory=list)
    states: list[FloatArray] = field(default_factory=list)

    def __call__(self, phase: str, model: Any, data: Any) -> None:
        self.model = model
        self.phases.append(phase)
        self.states.append(data.qpos.copy())

    def moments(self) -> list[tuple[str, int]]:
        """Return the looks that tell the trial, by name; those it did not live to see are left out."""
        chosen = [("approach", 0)] if self.states else []
        if "close" not in self.phases and self.states:
            chosen.append(("at the grasp", len(self.states) - 1))
        for name, phase in _PHASE_OF.items():
            looks = [index for index, seen in enumerate(self.phases) if seen == phase]
            if looks:
                chosen.append((name, looks[-1]))
        last = len(self.states) - 1
        if self.states and chosen[-1][1] != last:
            chosen.append(("the end", last))
        return chosen


def trial_pictures(
    recording: Recording, T_world_hand: FloatArray, up: FloatArray, target: int, size: tuple[int, int], every: int
) -> tuple[list[tuple[str, NDArray[np.uint8]]], list[NDArray[np.uint8]]]:
    """Draw a trial.

    Args:
        recording: of the trial.
        T_world_hand: ``(4, 4)`` the grasp.
        up: ``(3,)`` unit vector against gravity.
        target: number of the object that is meant.
        size: width and height in pixels.
        every: of how many looks one becomes a picture of the moving ones; 0 for none.

    Returns:
        Named pictures of the moments, and the moving ones; each ``(H, W, 3)`` uint8.

    Raises:
        RendererMissingError: where MuJoCo finds no renderer.
    """
    mujoco = load_mujoco()
    width, height = size
    model = recording.model
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    model.vis.global_.fovy = FIELD_OF_VIEW
    _paint(model, target)
    data = mujoco.MjData(model)
    try:
        renderer = mujoco.Renderer(model, height=height, width=width)
    except Exception as error:  # EGL, OSMesa and GLFW each fail in their own way
        raise _missing(error) from None
    try:
        moments = recording.moments()
        closed = next((index for name, index in moments if name in ("closed", "at the grasp")), 0)
        view = _best_view(renderer, model, data, recording.states[closed], T_world_hand, up, target)
        pictures = [(name, _draw(renderer, model, data, recording.states[index], view)) for name, index in moments]
        looks = recording.states[::every] if every else []
        return pictures, [_draw(renderer, model, data, state, view) for state in looks]
    finally:
        renderer.close()


def _paint(model: Any, target: int) -> None:
    """Set off the object that is meant; neighbouring parts differ a little, so that one sees them."""
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = _AMBIENT, _DIFFUSE
    model.vis.headlight.specular[:] = 0.1
    for geom in range(model.ngeom):
        body = model.body(model.geom_bodyid[geom]).name
        colour = _OTHERS
        if not body.startswith("object"):
            colour = _TABLE if model.geom_bodyid[geom] == 0 else _HAND
        elif body == f"object{target}":
            colour = _TARGET
        model.geom_rgba[geom, :3] = np.array(colour) * (1.0 if geom % 2 else 0.93)


@dataclass(frozen=True)
class _View:
    eye: FloatArray
    forward: FloatArray
    up: FloatArray


def _best_view(
    renderer: Any, model: Any, data: Any, state: FloatArray, T_world_hand: FloatArray, up: FloatArray, target: int
) -> _View:
    """Choose where hand and object show best, and rather along the hand's height axis: one finger on either side."""
    height = T_world_hand[:3, 2]
    side = height - (height @ up) * up
    if np.linalg.norm(side) < 0.1:  # it points up or down
        side = np.cross(up, T_world_hand[:3, 1])
    side /= np.linalg.norm(side)
    best, view = -1.0, None
    for elevation in ELEVATIONS:
        for azimuth in AZIMUTHS:
            level = np.cos(azimuth) * side + np.sin(azimuth) * np.cross(up, side)
            towards = np.cos(elevation) * level + np.sin(elevation) * up
            right = np.cross(up, towards) / np.cos(elevation)
            eye = T_world_hand[:3, 3] + _ABOVE * up + DISTANCE * towards
            one = _View(eye, -towards, np.cross(towards, right))
            hand, thing = _visible(renderer, model, data, state, one, target)
            worth = (hand * thing) ** 0.5 * (0.3 + abs(towards @ height))
            if worth > best:
                best, view = worth, one
    assert view is not None
    return view


def _aim(renderer: Any, model: Any, data: Any, state: FloatArray, view: _View) -> None:
    import mujoco

    data.qpos[:] = state
    mujoco.mj_forward(model, data)
    renderer.update_scene(data)
    for camera in renderer.scene.camera:
        camera.pos, camera.forward, camera.up = view.eye, view.forward, view.up
    light = renderer.scene.lights[0]  # the headlight, which stood where MuJoCo's own camera does
    light.pos, light.dir = view.eye, view.forward


def _draw(renderer: Any, model: Any, data: Any, state: FloatArray, view: _View) -> NDArray[np.uint8]:
    _aim(renderer, model, data, state, view)
    picture = np.array(renderer.render())
    renderer.enable_segmentation_rendering()
    empty = renderer.render()[..., 0] < 0
    renderer.disable_segmentation_rendering()
    picture[empty] = _BACKGROUND
    return picture


def _visible(renderer: Any, model: Any, data: Any, state: FloatArray, view: _View, target: int) -> tuple[int, int]:
    """Count the pixels of the hand and of the object that is meant."""
    _aim(renderer, model, data, state, view)
    renderer.enable_segmentation_rendering()
    seen = renderer.render()[..., 0]
    renderer.disable_segmentation_rendering()
    names = [model.body(number).name for number in model.geom_bodyid]
    hand = [geom for geom, name in enumerate(names) if name in ("hand", "left", "right")]
    thing = [geom for geom, name in enumerate(names) if name == f"object{target}"]
    return int(np.isin(seen, hand).sum()), int(np.isin(seen, thing).sum())
