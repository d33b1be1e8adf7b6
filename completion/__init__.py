"""Completion: tensors in, tensors out. Knows no scenes and no grasps.

- :mod:`~completion.losses`, :mod:`~completion.metrics`: pure functions of two batches of clouds, ``(B, N, 3)`` and
  ``(B, M, 3)``, in the caller's unit; :mod:`~completion.nearest` is the one loop below both.
- :mod:`~completion.networks`: partial cloud -> completion, network frame; :mod:`~completion.normalize` leads there.
- :mod:`~completion.train` reads pair files (:mod:`~completion.datasets.pairs`) as a training file
  (:mod:`~completion.configuration`) says, and leaves a checkpoint folder (:mod:`~completion.checkpoint`);
  :mod:`~completion.objective` is what it minimises, :mod:`~completion.resume` what a stopped run needs,
  :mod:`~completion.distributed` how processes share it, :mod:`~completion.watch` what is known to go wrong;
  :mod:`~completion.grid` trains many and tabulates them;
  :mod:`~completion.evaluate` compares it with baselines on objects it never saw and writes its card.
- :mod:`~completion.completer`: a checkpoint as a function from clouds in metres to clouds in metres;
  :mod:`~completion.batches` is how many go through the network at once.

Imports with torch, numpy and safetensors alone; numba (speed), pyyaml (training files), tqdm (progress) are optional.
Never imports ``grasping`` or ``pipeline``.
"""
