"""Grasp generators: from a view's cloud to grasps with a confidence.

``GENERATORS`` maps a name to a factory. Packages from outside add theirs as entry points of the group
``grasp_utility.generators``; those are imported only when :func:`make_generator` is asked for their name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol, runtime_checkable

from numpy.typing import ArrayLike

from grasping.grasps import Grasps

ENTRY_POINT_GROUP = "grasp_utility.generators"


class GeneratorError(ValueError):
    """A generator that cannot be made or used; the message says what to change."""


class ViewInput(NamedTuple):
    """What a :class:`Generator` is called with, for one view."""

    cloud: ArrayLike
    object_ids_of_points: ArrayLike
    collision_cloud: ArrayLike
    T_camera_table: ArrayLike
    viewpoint: ArrayLike
    seed: int


@runtime_checkable
class Generator(Protocol):
    """Anything that turns the cloud of one view into grasps; it holds no state that a call changes.

    It may say more of itself by attributes: ``deterministic``, whether the same input and seed give the same bytes
    (left out: nobody knows, and results say so); ``sees_background``, whether it wants what stands around the objects
    in its cloud too, as a detector of whole scenes does (left out: objects alone); ``default_input``, the mode of input
    that suits it where an experiment names none (left out: ``replace``). And do more: see :class:`ViewBound`,
    :class:`Batched`, :class:`Placed` and :class:`Proposing`.
    """

    def __call__(
        self,
        cloud: ArrayLike,
        object_ids_of_points: ArrayLike,
        collision_cloud: ArrayLike,
        T_camera_table: ArrayLike,
        viewpoint: ArrayLike,
        seed: int,
    ) -> Grasps:
        """Return grasps in the camera frame, by falling confidence.

        Args:
            cloud: ``(N, 3)`` float32 metres, camera frame: where grasps are looked for.
            object_ids_of_points: ``(N,)`` int, the object each point belongs to, -1 for background.
            collision_cloud: ``(M, 3)`` float32 metres, camera frame: what the gripper must not touch.
            T_camera_table: ``(4, 4)``, the table top being the plane z = 0 of the table frame.
            viewpoint: ``(3,)`` metres, camera frame: where the sensor stood (its origin).
            seed: of every random draw; the same input and seed give the same bytes.
        """
        ...


@runtime_checkable
class ViewBound(Protocol):
    """A generator that must be told which view it is to answer for before it is called."""

    def for_view(self, scene: int, camera: str, view: int) -> Generator: ...


@runtime_checkable
class Batched(Protocol):
    """A generator that does several views at once faster than one by one; ``batch_size`` is how many suit it."""

    @property
    def batch_size(self) -> int: ...

    def batch(self, views: Sequence[ViewInput]) -> list[Grasps]: ...


@runtime_checkable
class Proposing(Protocol):
    """A generator that thinks of obstacles last: a call is :meth:`propose` and then :meth:`clear`.

    ``propose`` never looks at a view's collision cloud; ``clear`` returns, by falling confidence, what of it touches
    nothing there. Arms that share a cloud then share what is proposed on it, which is made once.
    """

    def propose(self, views: Sequence[ViewInput]) -> list[Grasps]: ...

    def clear(self, grasps: Grasps, collision_cloud: ArrayLike) -> Grasps: ...


@runtime_checkable
class Placed(Protocol):
    """A generator that may compute on a GPU: ``on`` returns it as it is on a run's device, ``device`` says which that
    is, ``cpu`` or ``cuda``. Neither needs the device to be there: a run is planned on one machine and done on others.
    """

    @property
    def device(self) -> str: ...

    def on(self, device: str) -> Generator: ...


def for_view(generator: Any, scene: int, camera: str, view: int) -> Generator:
    """Return the generator of one view: the generator itself unless it is a :class:`ViewBound`."""
    return generator.for_view(scene, camera, view) if isinstance(generator, ViewBound) else generator


def sees_background(generator: Any) -> bool:
    """Return whether a generator wants the background's points in its cloud, with the object id -1."""
    return bool(getattr(generator, "sees_background", False))


def is_deterministic(generator: Any) -> bool | None:
    """Return what a generator declares of itself; None where it declares nothing."""
    declared = getattr(generator, "deterministic", None)
    return None if declared is None else bool(declared)


def identity(generator: Any, scene: int, camera: str, views: Sequence[int]) -> Any:
    """Return what a generator's grasps depend on besides its input, for fingerprints: JSON can say it.

    A generator may say so itself by a method ``identity(scene, camera, views)``; otherwise its dataclass fields, or the
    name of its class or function, and its ``version`` count. (What an experiment's file says of it counts besides.)
    """
    if hasattr(generator, "identity"):
        return generator.identity(scene, camera, views)
    if is_dataclass(generator) and not isinstance(generator, type):
        fields: Any = asdict(generator)
    else:  # not its repr, which has an address in it: the same generator would be another in every process
        named = generator if hasattr(generator, "__qualname__") else type(generator)
        fields = f"{named.__module__}:{named.__qualname__}"
    return {"parameters": fields, "version": getattr(generator, "version", None)}


def _antipodal(**parameters: Any) -> Any:
    from grasping.generators.antipodal import Antipodal  # numba: not paid for by those who only read dumps

    return Antipodal(**parameters)


def _dump(**parameters: Any) -> Any:
    from grasping.generators.dump import DumpGenerator

    return DumpGenerator(**parameters)


def _graspnet_baseline(**parameters: Any) -> Any:
    from grasping.generators.graspnet_baseline.generator import GraspNetBaselineGenerator  # torch

    return GraspNetBaselineGenerator(**parameters)


GENERATORS: dict[str, Callable[..., Any]] = {
    "antipodal": _antipodal,
    "dump": _dump,
    "graspnet_baseline": _graspnet_baseline,
}


def make_generator(name: str, **parameters: Any) -> Any:
    """Make a generator by its name, our own or a plug-in's.

    Returns:
        A :class:`Generator`, or a :class:`ViewBound` that :func:`for_view` turns into one.

    Raises:
        GeneratorError: on an unknown name or parameters the generator refuses.
    """
    factory = GENERATORS.get(name)
    if factory is None:
        plugins = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
        if name not in plugins:
            known = sorted(GENERATORS.keys() | plugins.keys())
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
            raise GeneratorError(f"unknown generator {name!r}; {hint}")
        factory = plugins[name].load()
    try:
        return factory(**parameters)
    except (TypeError, ValueError) as error:
        raise GeneratorError(f"generator {name!r}: {error}") from error
