"""What every column of a run's tables means, with its unit: the one place where that is written down.

``a`` and ``b`` are the two arms of a comparison, in that order; an interval is of the experiment's level; empty fields
are not defined. Shares lie in 0..1, AP in percent.
"""

from __future__ import annotations

_ARM = {"arm": "the arm's name"}
_PAIR = {"arm_a": "the arm that is compared", "arm_b": "the arm that it is compared with"}
_SETTING = {
    "generator": "which generator's grasps; empty for completion metrics",
    "scorer": "who graded them; empty for completion metrics",
    "camera": "realsense or kinect",
}
_SPLIT = {"split": "of the scenes: all of them together, or one split"}
_OBJECT = {"object": "all: whole views; else the dataset's number of the one object"}
_KEYS = {
    **_ARM,
    "replicate": "place of the checkpoint in its arm's list of training seeds, from 0",
    **_SETTING,
    "split": "which the scene belongs to",
    "scene": "scene number",
}
_VIEW = {"view": "view number, 0..255"}
_INTERVAL = {"ci_low": "lower end of the interval, in the unit of the metric", "ci_high": "its upper end"}
_SCENES = {"n_scenes": "scenes behind it"}
_VIEWS = {"n_views": "views behind it"}
_METRIC = {"metric": "which metric; what each means: describe('views') and describe('completion_views')"}
_VISIBLE = {
    "visible_fraction": "share observed of what the camera would see of the object alone; empty without `explain`"
}
_ESTIMATE = {
    **_ARM,
    **_SETTING,
    **_SPLIT,
    **_OBJECT,
    **_METRIC,
    "value": "mean over views within a scene, then over scenes, in the unit of the metric",
    **_INTERVAL,
    **_SCENES,
    **_VIEWS,
    "n_seeds": "checkpoints behind it",
}

_UTILITY = {
    "ap": "average precision of GraspNet-1Billion, percent",
    "ap_0.4": "the same at friction 0.4 alone, percent",
    "ap_0.8": "the same at friction 0.8 alone, percent",
    "feasible": "suppressed candidates that hold at friction 0.8, a count",
    "quality": "mean over the best 10 of max(0, 1.1 - min_friction), 0..0.9",
    **{
        f"success@{k}_mu{mu}": f"share of the best {k} that hold at friction {mu}"
        for k in (1, 5, 10)
        for mu in (0.4, 0.8)
    },
    **{f"any_mu{mu}": f"1 if any suppressed candidate holds at friction {mu}, else 0" for mu in (0.4, 0.8)},
    "oracle_ap": "average precision, percent, of all suppressed candidates in the order of min_friction, the first 50",
}
_HELD = {
    "held": "share of the 50 ranks of a view that physics holds; of the scorer physics only",
    **{f"held@{k}": f"share of the best {k} that physics holds; of the scorer physics only" for k in (1, 5, 10)},
}
_SHARES = {
    "coverage": "share of the true surface within the threshold of the cloud",
    "spurious": "share of the cloud that lies beyond the threshold from the true surface",
    "precision": "share of the cloud within the threshold of the true surface",
    "f1": "harmonic mean of precision and coverage",
}
_THRESHOLDS = {"0.03": "0.03 of the observation's diagonal (the network's frame)", "5mm": "5 mm"}
_FIDELITY = {
    **{f"{name}@{at}": f"{text}; threshold {of}" for at, of in _THRESHOLDS.items() for name, text in _SHARES.items()},
    "cd_l1": "Chamfer distance, mean of both ways, in diagonals of the observation",
    "cd_l2": "Chamfer distance of squares, in squared diagonals of the observation",
    "cd_l1_mm": "Chamfer distance, mean of both ways, mm",
}
_TRIAL = {
    "outcome": "what became of the physics trial (grasping.physics.OUTCOMES); empty where it was not tried",
    "held": "whether physics holds it in more than half of its trials; empty where it was not tried",
    "held_fraction": "share of its trials in which physics holds it",
    "slip": "slip of the object in the hand, metres; empty where it never was in it",
}
_EXPLAINED = {
    "hits_target": "whether the hand hits the object that is meant; empty, as all to `surface`, without `explain`",
    "hits_neighbour": "whether it hits another object",
    "hits_table": "whether it hits the table",
    "touches": "whether both fingers, closed, meet the object",
    "thickness": "of the object where it is held, metres; empty without contacts",
    "observed_distance": "of the farther contact from the object's observed points, metres; inf: it has none",
    "completed_distance": "of the farther contact from the arm's cloud of the object, metres; inf: it has none",
    "surface": "where the contacts lie: on observed surface, on completed, on neither; empty without contacts",
}
_COMBINATION = (
    "own: the arm's grasps; true_collisions: those without hits on the true scene; "
    "oracle: grasps made on true shapes; arm_collisions: those without hits on the arm's clouds"
)
_OPINIONS = {
    "generator": "which generator's grasps",
    "camera": "realsense or kinect",
    "arm": "the arm, or all together",
}

PHYSICS_COLUMNS = {"grasps": tuple(_TRIAL), "views": tuple(_HELD)}
"""Columns that only the run of an experiment with the scorer ``physics`` has."""

COLUMNS: dict[str, dict[str, str]] = {
    "utility": _ESTIMATE,
    "completion": _ESTIMATE,
    "comparisons": {
        **_PAIR,
        **_SETTING,
        **_SPLIT,
        **_OBJECT,
        **_METRIC,
        "difference": "a - b, paired by view, mean over scenes, in the unit of the metric",
        **_INTERVAL,
        **_SCENES,
        "n_differ": "scenes in which the arms differ at all; where they are few, no interval covers",
        **_VIEWS,
        "seeds_a": "checkpoints behind arm a",
        "seeds_b": "checkpoints behind arm b",
        "se": "standard error of the difference, in the unit of the metric",
        "interval": "how the interval was made: t over scenes (and training seeds), or a bootstrap",
        "p_permutation": "two-sided p-value by flipping the signs of scenes; this and what follows: whole views only",
        "p_wilcoxon": "two-sided p-value of Wilcoxon's signed-rank test over scenes",
        "p_value": "the p-value that counts",
        "p_method": "which test gave it",
        "in_family": "whether the test was declared before the run",
        "p_holm": "p_value adjusted for all tests of the declared family (Holm)",
        "mde": "minimum detectable effect at the experiment's power, in the unit of the metric",
        "improvement": "share of scenes in which arm a is higher, ties half; of several checkpoints their mean",
        "improvement_low": "lower end of its interval, which counts scenes alone",
        "improvement_high": "upper end of its interval",
    },
    "recovered": {
        **_ARM,
        **_SETTING,
        **_SPLIT,
        **_METRIC,
        "value": "(arm - partial) / (oracle - partial): 0 no better than the partial cloud, 1 as good as the truth",
        **_INTERVAL,
        "reason": "why there is no value; empty where there is one",
    },
    "grasps": {
        **_KEYS,
        **_VIEW,
        "row": "of the dump file, from 0",
        "rank": "by confidence among the view's suppressed candidates, from 0",
        "object": "the dataset's number of the object that is grasped",
        "confidence": "what the generator says of it",
        "width": "opening of the hand, clipped as it was graded, metres",
        "kept": "whether it is in the protocol's cut (10 an object, 50 a view)",
        "collided": "whether the hand hits anything",
        "empty": "whether the hand closes on nothing",
        "min_friction": "least friction at which it holds; inf: at none",
        "reason": "what the protocol found: success, or why it fails",
        **_EXPLAINED,
        **_TRIAL,
        **_VISIBLE,
    },
    "views": {
        **_KEYS,
        **_VIEW,
        "failed": "whether the unit failed; it then counts as zero",
        "object": "-1: the whole view; else the dataset's number of the one object",
        **_UTILITY,
        **_HELD,
        **_VISIBLE,
    },
    "completion_views": {
        **_KEYS,
        **_VIEW,
        "object": "the dataset's number of the object",
        "status": "ok, or why the cloud is not what it should be",
        "observed_points": "points of the partial cloud, a count",
        "completed_points": "points of the completed cloud, a count",
        **_FIDELITY,
    },
    "crossed_views": {
        **_KEYS,
        **_VIEW,
        "combination": _COMBINATION,
        **_UTILITY,
    },
    "attribution": {
        **_PAIR,
        **_SETTING,
        "factor": "what parts the difference: object, width, thickness, surface, visible, reason, occlusion",
        "level": "of the factor",
        **_METRIC,
        "additive": "whether the levels' differences sum to the whole difference (occlusion: no)",
        "a": "what the level adds in arm a, in the unit of the metric; of reason what it loses, sign turned",
        "b": "the same in arm b",
        "difference": "a - b, mean over scenes, in the unit of the metric",
        **_INTERVAL,
        **_SCENES,
        "grasps_a": "kept grasps a view in arm a; of occlusion objects in views, a count",
        "grasps_b": "the same in arm b",
        "rate_a": "share of arm a's kept grasps that hold at friction 0.8",
        "rate_b": "the same in arm b",
    },
    "crossed": {
        **{**_PAIR, "arm_b": "the arm that it is compared with; empty: the value is arm a's own"},
        **_SETTING,
        "combination": _COMBINATION,
        **_METRIC,
        "value": "mean over scenes, or the difference a - b, in the unit of the metric",
        **_INTERVAL,
        **_SCENES,
    },
    "mediation": {
        **_PAIR,
        **_SETTING,
        **_METRIC,
        "model": "which terms the line has: both, coverage alone, spurious alone",
        "term": "coverage@5mm, spurious@5mm or intercept",
        "slope": "change of the metric a unit of the term (a share: from none to all)",
        "se": "its standard error, clustered by scene",
        **{"ci_low": "lower end of the slope's interval", "ci_high": "its upper end"},
        "p_value": "two-sided, of a slope of zero",
        "mean_change": "mean of the term's change a - b, a share",
        "effect": "slope x mean_change, in the unit of the metric",
        "effect_low": "lower end of its interval",
        "effect_high": "upper end of its interval",
        **_SCENES,
        "n_points": "objects in scenes behind it",
        "reason": "why there is no line; empty where there is one",
    },
    "mediation_points": {
        **_PAIR,
        **_SETTING,
        "split": "which the scene belongs to",
        "scene": "scene number",
        "object": "the dataset's number of the object",
        **_METRIC,
        "utility": "change a - b of the object's metric, mean over views",
        "coverage@5mm": "change a - b of its coverage, a share",
        "spurious@5mm": "change a - b of its spurious share",
    },
    "agreement": {
        **_OPINIONS,
        **_OBJECT,
        "friction": "at which the protocol passes a grasp",
        "n": "kept grasps, a count; the next five are counts of them",
        "n_held": "held by physics",
        "both": "passed by the protocol and held by physics",
        "analytic_only": "passed, not held",
        "physics_only": "not passed, held",
        "neither": "not passed, not held",
        "held_if_passed": "share held of those that pass",
        "held_if_failed": "share held of those that do not pass",
        "accuracy": "share on which both agree",
        "kappa": "Cohen's kappa: agreement beyond chance, 1 at best",
        "auc": "area under the ROC curve of -min_friction for held",
        "auc_low": "lower end of its interval, scenes resampled",
        "auc_high": "upper end of its interval",
        **_SCENES,
    },
    "roc": {
        **_OPINIONS,
        "friction": "at which the protocol passes a grasp",
        "passed": "grasps that pass, a count",
        "true_positive_rate": "share of the held that pass",
        "false_positive_rate": "share of those not held that pass",
    },
    "physics_outcomes": {
        **_OPINIONS,
        "reason": "what the protocol found",
        "min_friction": "least friction at which it holds by the protocol; inf: at none",
        "outcome": "what became of the physics trial",
        "n": "grasps, a count",
    },
    "best_grasp": {
        **_PAIR,
        "generator": "which generator's grasps",
        "camera": "realsense or kinect",
        "views": "views that both arms have, a count",
        "scenes": "their scenes, a count",
        "both": "views whose best grasp physics holds in both arms, a count; of several checkpoints a mean over pairs",
        "only_a": "in arm a alone",
        "only_b": "in arm b alone",
        "neither": "in neither",
        "share_a": "share of views held in arm a",
        "share_a_low": "lower end of Wilson's interval, views taken as independent",
        "share_a_high": "upper end of it",
        "share_b": "share of views held in arm b",
        "share_b_low": "lower end of its interval",
        "share_b_high": "upper end of its interval",
        "p_mcnemar": "McNemar's exact test of only_a against only_b, as of independent views; empty for several seeds",
    },
}
