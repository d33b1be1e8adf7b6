"""From partial scene observations to grasp utility, arm against arm: the map of the house.

Stages meet only in files below one run folder; each is a module and a command of its own. The
first five say by ``plans`` which units they have and what each is made from; the last two ``run``.

=============  ==========================================  ==================================================
stage          reads                                       writes
=============  ==========================================  ==================================================
observe        dataset views                               ``observations/``: per-object partial clouds, background
complete       ``observations/``                           ``arms/<arm>/clouds/``: one completed cloud an object
generate       ``observations/``, ``arms/<arm>/clouds/``   ``arms/<arm>/dump/``: grasps in the official layout;
                                                           ``proposals/``: what arms share of a detector's
score          ``arms/<arm>/dump/`` + true geometry        ``arms/<arm>/scores/``: one row per grasp
explain        scores, dumps, clouds, ``observations/``    ``arms/<arm>/explained/``, ``visibility/``: why
aggregate      scores, clouds, what was explained          ``tables/``, ``summary.json``
report         ``tables/``, clouds and dumps               ``report.html``, ``report/``: its figures and tables
=============  ==========================================  ==================================================

Beside the stages:

commands
    ``cli`` and the ``cli_*`` beside it (arguments in), ``console``, ``console_run`` and ``console_checkpoint`` (lines
    out), ``progress`` (a bar).
a run
    ``config`` with ``config_sections`` and ``arms`` (the experiment file and every default), ``selection`` (scenes and
    views), ``experiment`` (the stages in order), ``declaration`` (what was declared before results), ``run_folder``
    (paths), ``artifacts`` (fingerprints, stamps, locks), ``summary`` (``summary.json``).
how a run is carried out
    ``units`` (a unit of work, planned and made), ``schedule`` (each as soon as what it reads is finished),
    ``run_progress`` (how far it is, as the process that works writes it down), ``failures`` (what is known of a unit
    that failed), ``run_status`` with ``run_accounts`` (where a run stands, seen from anywhere), ``dry_run`` (what would
    be made, and why), ``engine_options`` (what the command line says of it), ``engines/`` (where units
    run: ``local``, ``dask_cluster``, and ``slurm`` with ``slurm_jobs`` and ``profile``; both Dask engines share
    ``dask_crew``, ``dask_client`` and ``worker_check``), ``store`` with ``store_gc`` (finished units that runs share),
    ``view_files`` (a unit's files of single views, packed or not).
clouds and grasps
    ``cloud_files`` (clouds on disk), ``frames`` (the networks' input frame), ``command_completer`` and
    ``command_generator`` (methods in another environment) by ``run_command``, ``arm_completion`` and
    ``completed_unit`` (the work of ``complete``), ``generators`` (an experiment's, made and held to what they were),
    ``generator_input`` (how completion enters their clouds) and ``proposals`` (what a detector finds once for all
    arms), ``truth`` (true surfaces), ``fidelity`` with ``metric_names`` (completion metrics in two units),
    ``grasp_rows`` (columns of a scored grasp), ``scorers`` (which there are), ``physics_score`` and
    ``physics_utility`` (the second opinion), ``physics_trial`` with ``physics_pictures`` (one trial as a picture
    strip), ``visibility`` and ``explained_view`` (the work of ``explain``).
what ``aggregate`` makes
    ``run_rows`` (the rows that it rests on) in ``row_tables`` (written unit by unit, read scene by scene),
    ``scene_values`` (from views to scenes), ``estimates`` (means and differences), ``attribution`` with
    ``grasp_levels`` (where differences arise), ``crossed`` (with one part exchanged), ``mediation`` (whether coverage
    goes with them), ``agreement`` and ``best_grasp`` (what physics says of the protocol, and of the grasp tried
    first), ``run_counts`` (failures aloud), ``statistics/`` (inference, which knows none of them);
    ``table_files`` (how tables are read back) and ``table_columns`` (what each column means).
several runs
    ``compare`` (their arms as if of one run), ``comparable`` (what they must share for that).
people at work on a run
    ``view`` with ``viewer`` (layers of any view, in a browser), ``notebook`` (:func:`load_run`: tables and clouds as
    arrays), both by ``run_contents``; ``dump_export`` (its grasps as graspnetAPI reads them).
without an experiment
    ``score_dump`` with ``dump_scene`` (its workers), ``dump_result``, ``dump_text`` and ``true_grasps`` (AP of
    anybody's grasps), ``frame`` with ``segment`` and ``frame_picture`` (one RGB-D image of the user's own), ``pairs``
    (training pairs), ``datasets/`` (GraspNet-1Billion's layout, and samples made by code).

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
