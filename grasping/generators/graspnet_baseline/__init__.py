"""The GraspNet-1Billion baseline (Fang et al., *GraspNet-1Billion*, CVPR 2020) as a generator; needs torch alone.

``generator`` is what an experiment names; ``network`` the layers; ``cylinder`` and :mod:`completion.points` the point
operators; ``directions`` and ``decode`` what becomes of its output; ``weights`` reads the published files. Nothing here
is imported before a configuration names the generator: the rest of :mod:`grasping` never imports torch.
"""
