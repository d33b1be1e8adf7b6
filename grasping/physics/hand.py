"""The free-floating hand and its objects as one compiled MuJoCo model, reused for many grasps.

Canonical frame of the hand: x approach, y closing, z height, the grasp's translation at its origin. The hand is a base
with a back plate and two fingers, boxes as the analytic protocol draws them. The base has no arm: three slides and a
hinge about y carry it, and an inertia so large (:data:`BASE_MASS`) that prescribing its acceleration prescribes its
motion; unlike a kinematic (mocap) body it has a velocity, which friction needs to see. The fingers slide along ±y,
mirror each other (a stiff joint coupling), and are pushed by the stated force against a damping that limits their
speed.

What differs between grasps (opening, depth, poses) is written into the compiled model, so nothing is compiled again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grasping.gripper import Gripper
from grasping.physics.bodies import PhysicsBody
from grasping.physics.outcomes import TrialSettings

if TYPE_CHECKING:
    import mujoco

FloatArray = NDArray[np.float64]

BASE_MASS = 1e5  # kg (and kg m²): 100 N for a second move it by half a millimetre
BASE_DOFS, FINGER_DOFS = slice(0, 4), slice(4, 6)
FIRST_OBJECT_DOF = 6
HAND, THING = 1, 2  # contact bits: hand against things, things against things
MINIMUM_FINGER = 0.001  # metres of finger length that remain where a grasp's depth leaves none


@dataclass(frozen=True, eq=False)
class World:
    """A compiled model and where things are in it. Not thread-safe: trials write into it.

    Attributes:
        model, data: MuJoCo's.
        settings, gripper: what it was built with.
        base: the base's body number.
        plate, fingers: numbers of the geoms of the back plate and of the two fingers.
        objects: ``(K,)`` body numbers of the objects.
        owner: ``(geoms,)`` index of the object a geom belongs to; -1 for fingers and plate, -2 for the table.
    """

    model: mujoco.MjModel
    data: mujoco.MjData
    settings: TrialSettings
    gripper: Gripper
    base: int
    plate: int
    fingers: tuple[int, int]
    objects: NDArray[np.int64]
    owner: NDArray[np.int64]


def build_world(
    bodies: Sequence[PhysicsBody], settings: TrialSettings, gripper: Gripper, *, table: bool, hand: bool = True
) -> World:
    """Compile a hand (or none) and objects, in free space or above a table whose top is z = 0."""
    import mujoco

    spec = mujoco.MjSpec()
    _set_options(spec, settings)
    plate = fingers = None
    if hand:
        base, plate, fingers = _add_hand(spec, settings, gripper)
    if table:
        geom = spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], name="table")
        _set_contact(geom, settings, THING, THING | HAND)
    items = [_add_object(spec, body, k, settings) for k, body in enumerate(bodies)]
    model = spec.compile()
    # The solver's tolerance is relative to the mean inertia, which the base's would drown.
    model.stat.meaninertia = float(np.mean([b.mass for b in bodies])) if bodies else settings.finger_mass
    objects = np.array([item.id for item in items], np.int64)
    owner = np.full(model.ngeom, -1, np.int64)
    for k, number in enumerate(objects):
        owner[model.geom_bodyid == number] = k
    if table:
        owner[model.geom("table").id] = -2
    return World(
        model=model,
        data=mujoco.MjData(model),
        settings=settings,
        gripper=gripper,
        base=base.id if hand else -1,
        plate=plate.id if plate is not None else -1,
        fingers=(fingers[0].id, fingers[1].id) if fingers is not None else (-1, -1),
        objects=objects,
        owner=owner,
    )


def _set_options(spec: Any, settings: TrialSettings) -> None:
    import mujoco

    option = spec.option
    option.timestep = settings.timestep
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = settings.impratio
    option.noslip_iterations = settings.noslip_iterations
    option.iterations = settings.iterations
    option.gravity = [0.0, 0.0, 0.0]
    if hasattr(mujoco.mjtEnableBit, "mjENBL_MULTICCD"):  # on by default from MuJoCo 4
        option.enableflags |= int(mujoco.mjtEnableBit.mjENBL_MULTICCD)


def _set_contact(geom: Any, settings: TrialSettings, group: int, against: int) -> None:
    torsion = settings.friction * settings.patch_radius * 2 / 3
    geom.contype, geom.conaffinity = group, against
    geom.condim = 4
    geom.friction = [settings.friction, torsion, 0.0]
    geom.solref = [settings.contact_time, 1.0]
    geom.solimp = [*settings.impedance, 0.001, 0.5, 2.0]


def _add_hand(spec: Any, settings: TrialSettings, gripper: Gripper) -> tuple[Any, Any, tuple[Any, Any]]:
    import mujoco

    slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
    base = spec.worldbody.add_body(name="hand", gravcomp=1.0)
    base.explicitinertial = True
    base.mass, base.ipos, base.inertia = BASE_MASS, [-settings.wrist, 0.0, 0.0], [BASE_MASS] * 3
    for axis in range(3):
        base.add_joint(type=slide, axis=np.eye(3)[axis])
    base.add_joint(type=hinge, axis=[0.0, 1.0, 0.0], pos=[-settings.wrist, 0.0, 0.0])
    plate = base.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[-gripper.finger_back - gripper.base_thickness / 2, 0.0, 0.0],
        size=[gripper.base_thickness / 2, gripper.max_width / 2 + gripper.finger_thickness, gripper.height / 2],
        rgba=[0.35, 0.35, 0.4, 1.0],
    )
    _set_contact(plate, settings, HAND, THING)
    fingers, joints = [], []
    for name, sign in (("left", 1.0), ("right", -1.0)):
        body = base.add_body(name=name, gravcomp=1.0)
        body.explicitinertial = True
        body.mass, body.ipos, body.inertia = settings.finger_mass, [0.0, 0.0, 0.0], [1e-4] * 3
        joint = body.add_joint(
            name=name,
            type=slide,
            axis=[0.0, sign, 0.0],
            range=[0.0, gripper.max_width / 2],
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
            damping=[settings.closing_force / settings.closing_speed, 0.0, 0.0],
            solref_limit=[settings.contact_time, 1.0],
        )
        finger = body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[0.0, sign * gripper.finger_thickness / 2, 0.0],
            size=[gripper.finger_back, gripper.finger_thickness / 2, gripper.height / 2],
            rgba=[0.5, 0.5, 0.56, 1.0],
        )
        _set_contact(finger, settings, HAND, THING)
        fingers.append(finger)
        joints.append(joint)
    coupling = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, name1="left", name2="right")
    coupling.data[:5] = [0.0, 1.0, 0.0, 0.0, 0.0]
    coupling.solref = [settings.contact_time, 1.0]
    coupling.solimp = [0.99, 0.999, 0.001, 0.5, 2.0]
    return base, plate, (fingers[0], fingers[1])


def _add_object(spec: Any, body: PhysicsBody, number: int, settings: TrialSettings) -> Any:
    """Add an object whose frame is moved to its centre of mass (see :func:`free_joint_position`)."""
    import mujoco

    item = spec.worldbody.add_body(name=f"object{number}")
    item.add_freejoint()
    inertia = body.inertia
    item.explicitinertial = True
    item.mass, item.ipos = body.mass, [0.0, 0.0, 0.0]
    item.fullinertia = [*np.diag(inertia), inertia[0, 1], inertia[0, 2], inertia[1, 2]]
    for j, part in enumerate(body.parts):
        name = f"part{number}_{j}"
        mesh = spec.add_mesh(name=name, uservert=np.ascontiguousarray(part - body.centre).ravel())
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
        geom = item.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, rgba=_colour(number))
        _set_contact(geom, settings, THING, THING | HAND)
    return item


def _colour(number: int) -> list[float]:
    palette = [(0.85, 0.55, 0.2), (0.3, 0.55, 0.75), (0.45, 0.65, 0.35), (0.75, 0.4, 0.5), (0.6, 0.5, 0.75)]
    return [*palette[number % len(palette)], 1.0]


def shape_hand(world: World, opening: float, depth: float) -> None:
    """Give the fingers their reach and the back plate its width, in the compiled model."""
    model, gripper = world.model, world.gripper
    length = max(depth + gripper.finger_back, MINIMUM_FINGER)
    for finger in world.fingers:
        _resize(model, finger, 0, length / 2, length / 2 - gripper.finger_back)
    _resize(model, world.plate, 1, opening / 2 + gripper.finger_thickness, 0.0)


def _resize(model: Any, geom: int, axis: int, half: float, middle: float) -> None:
    """Change one side of a box and everything that the compiler derives from it."""
    model.geom_size[geom, axis] = half
    model.geom_pos[geom, axis] = middle
    model.geom_rbound[geom] = np.sqrt((model.geom_size[geom] ** 2).sum())
    model.geom_aabb[geom, 3:] = model.geom_size[geom]
    body = model.geom_bodyid[geom]
    # A body with one geom has one box around it (a leaf): the geom's own, in the frame of the body's inertia.
    box = model.bvh_aabb[model.body_bvhadr[body]]
    box[:3] = model.geom_pos[geom] - model.body_ipos[body]
    box[3:] = model.geom_size[geom]


def free_joint_position(T_world_object: FloatArray, centre: FloatArray) -> FloatArray:
    """Return the seven numbers (position, quaternion wxyz; w ≥ 0 makes them unique) of an object's free joint.

    The joint sits in the centre of mass: integrated about a model's own origin, which may lie a metre away, an object
    that turns with the hand would creep out of it.
    """
    from scipy.spatial.transform import Rotation

    R, t = T_world_object[:3, :3], T_world_object[:3, 3]
    x, y, z, w = Rotation.from_matrix(R).as_quat(canonical=True)
    return np.array([*(R @ centre + t), w, x, y, z])


def pose_of_free_joint(numbers: FloatArray, centre: FloatArray) -> FloatArray:
    """Return ``T_world_object`` ``(4, 4)`` from the seven numbers of :func:`free_joint_position`."""
    from scipy.spatial.transform import Rotation

    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(numbers[[4, 5, 6, 3]]).as_matrix()
    T[:3, 3] = numbers[:3] - T[:3, :3] @ centre
    return T
