"""Grasps, grippers, object geometry and their scoring. Numpy in, numpy out; torch is never imported here.

Conventions
-----------
* Lengths in metres, angles in radians, poses as float64 ``(4, 4)`` matrices.
* ``T_a_b`` takes points given in frame ``b`` to frame ``a``: ``p_a = T_a_b @ p_b``.
* Frames: ``camera`` (x right, y down, z forward: OpenCV), ``table`` (z up, the table top is z = 0),
  ``object`` (the model's own).
* Clouds are float32 ``(N, 3)``.
* Gripper axes are the columns of a grasp's rotation: x approaches the object, y is the closing direction,
  z is the direction of the fingers' height. A grasp's translation is the point between the fingers from
  which ``depth`` is measured along x.
"""

from grasping import compiled_cache

compiled_cache.settle()
