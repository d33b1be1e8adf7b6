"""From partial scene observations to grasp utility, arm against arm: the map of the house.

Stages meet only in files below one run folder; each is a module with one ``run`` and a command of its own.

=============  ==========================================  ==================================================
stage          reads                                       writes
=============  ==========================================  ==================================================
observe        dataset views                               ``observations/``: per-object partial clouds, background
complete       ``observations/``                           ``arms/<arm>/clouds/``: one completed cloud an object
generate       ``observations/``, ``arms/<arm>/clouds/``   ``arms/<arm>/dump/``: grasps in the official layout
score          ``arms/<arm>/dump/`` + true geometry        ``arms/<arm>/scores/``: one row per grasp
explain        scores, dumps, clouds, ``observations/``    ``arms/<arm>/explained/``, ``visibility/``: why
aggregate      ``arms/*/scores/``, ``arms/*/clouds/``      ``tables/``, ``summary.json``
report         ``tables/``, clouds and dumps               ``report.html``
=============  ==========================================  ==================================================

Beside the stages: ``cli`` and ``console`` (commands in, lines out), ``config`` (the experiment file and every
default), ``selection`` (scenes and views), ``experiment`` (the stages in order), ``run_folder`` (paths and units),
``artifacts`` (fingerprints, stamps, locks), ``engine`` (processes), ``cloud_files`` (clouds on disk), ``frames`` (the
networks' input frame), ``truth`` (true surfaces), ``visibility`` and ``explained_view`` (the work of ``explain``),
``fidelity`` (completion metrics in two units), ``statistics``,
``summary`` (``summary.json``), ``pairs`` (training pairs), ``datasets/`` (GraspNet-1Billion's layout, and samples made
by code), ``score_dump`` with ``dump_scene`` (its workers), ``dump_result``, ``dump_text`` and ``true_grasps`` (AP of
anybody's grasps, without an experiment), ``scorers`` (which there are), ``physics_score``, ``physics_utility`` and
``agreement`` (the second opinion, and what it says of the first), ``physics_trial`` with ``physics_pictures`` (one
trial as a picture strip), and ``frame`` with ``segment`` and ``frame_picture`` (one RGB-D image of the
user's own).

For people at work on a run: ``view`` with ``viewer`` (layers of any view, in a browser), ``notebook`` with
``table_columns`` (:func:`load_run`: tables and clouds as arrays, what each column means), both by ``run_contents``.

``pipeline`` is the only package that knows both ``completion`` and ``grasping``; those never import each
other or ``pipeline``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.notebook import Run, load_run

__all__ = ["Run", "load_run"]


def __getattr__(name: str) -> Any:
    # On demand: workers import this package and must start light.
    if name in __all__:
        from pipeline import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
