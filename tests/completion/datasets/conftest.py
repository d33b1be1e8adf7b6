"""Tiny benchmarks in the layouts in which the real ones are distributed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

TRUE, SEEN, VIEWS = 64, 40, 26


def cloud(rng: np.random.Generator, points: int = TRUE) -> np.ndarray:
    """Points on an ellipsoid, about as large as PCN's."""
    directions = rng.standard_normal((points, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (directions * rng.uniform(0.1, 0.4, 3)).astype(np.float32)


def seen(truth: np.ndarray, rng: np.random.Generator, points: int = SEEN) -> np.ndarray:
    """A partial cloud made of true points."""
    return truth[np.argsort(truth @ rng.standard_normal(3))[:points]]


def pcd_bytes(points: np.ndarray, binary: bool) -> bytes:
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
        f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\n"
        f"DATA {'binary' if binary else 'ascii'}\n"
    ).encode()
    if binary:
        return header + points.astype("<f4").tobytes()
    return header + "".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in points.astype(float).tolist()).encode()


def write_mvp(root: Path, rng: np.random.Generator) -> None:
    import h5py

    for split, labels in (("Train", (3, 0)), ("Test", (15,))):
        truths = np.stack([cloud(rng) for _ in labels])
        partials = np.stack([seen(truth, rng) for truth in truths for _ in range(VIEWS)])
        with h5py.File(root / f"MVP_{split}_CP.h5", "w") as file:
            file["complete_pcds"], file["incomplete_pcds"] = truths, partials
            file["labels"] = np.repeat(labels, VIEWS)


def write_mvp_large(root: Path, rng: np.random.Generator) -> None:
    """VRCNet's layout: inputs and truths apart, further categories under other names, truths of two sizes."""
    import h5py

    shapes = {"": (0, 1), "novel_": (8,)}
    with h5py.File(root / "mvp_test_input.h5", "w") as inputs:
        for prefix, labels in shapes.items():
            truths = np.stack([cloud(rng) for _ in labels])
            inputs[f"{prefix}incomplete_pcds"] = np.stack([seen(one, rng) for one in truths for _ in range(VIEWS)])
            inputs[f"{prefix}labels"] = np.repeat(labels, VIEWS)
            for points, size in ((2048, TRUE // 2), (4096, TRUE)):
                with h5py.File(root / f"mvp_test_gt_{points}pts.h5", "a") as gt:
                    gt[f"{prefix}complete_pcds"] = truths[:, :size]


def write_pcn(root: Path, rng: np.random.Generator) -> None:
    models = {"02691156": ("airplane", 2), "03001627": ("chair", 1)}
    rows = []
    for number, (taxonomy, (name, count)) in enumerate(models.items()):
        row: dict = {"taxonomy_id": taxonomy, "taxonomy_name": name}
        for split in ("train", "val", "test"):
            row[split] = [f"{split}{k}{taxonomy}" for k in range(count)]
            for model in row[split]:
                truth = cloud(rng)
                complete = root / split / "complete" / taxonomy / f"{model}.pcd"
                complete.parent.mkdir(parents=True, exist_ok=True)
                # Both encodings are in use.
                complete.write_bytes(pcd_bytes(truth, binary=number == 0))
                folder = root / split / "partial" / taxonomy / model
                folder.mkdir(parents=True)
                for view in range(8 if split == "train" else 1):
                    partial = seen(truth, rng, 30 + view)
                    (folder / f"{view:02d}.pcd").write_bytes(pcd_bytes(partial, binary=number == 1))
        rows.append(row)
    (root / "PCN.json").write_text(json.dumps(rows))


def write_shapenet55(root: Path, rng: np.random.Generator) -> None:
    (root / "shapenet_pc").mkdir()
    lists = {
        "ShapeNet-55/train.txt": ("02691156-aa.npy", "03797390-bb.npy", "03797390-cc.npy"),
        "ShapeNet-55/test.txt": ("03797390-dd.npy", "02691156-ee.npy"),
        "ShapeNet-34/train.txt": ("02691156-aa.npy",),
        "ShapeNet-34/test.txt": ("02691156-ee.npy",),
        "ShapeNet-Unseen21/test.txt": ("02773838-ff.npy",),
    }
    for name, files in lists.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("".join(f"{file}\n" for file in files))
        for file in files:
            np.save(root / "shapenet_pc" / file, cloud(rng, 96) + np.float32(0.2))


def write_completion3d(root: Path, rng: np.random.Generator) -> None:
    import h5py

    (root / "synsetoffset2category.txt").write_text("plane\t02691156\ncar\t02958343\n")
    lists = {"train": ("02958343/b", "02691156/a", "02691156/c"), "val": ("02691156/d",), "test": ("all/e",)}
    for split, models in lists.items():
        (root / f"{split}.list").write_text("\n".join(models) + "\n")
        for model in models:
            truth = cloud(rng)
            for kind, points in (("gt", truth), ("partial", seen(truth, rng))):
                if kind == "partial" or split != "test":
                    path = root / split / kind / f"{model}.h5"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with h5py.File(path, "w") as file:
                        file["data"] = points


WRITERS = {
    "mvp": write_mvp,
    "mvp_large": write_mvp_large,
    "pcn": write_pcn,
    "shapenet55": write_shapenet55,
    "completion3d": write_completion3d,
}


@pytest.fixture
def write_benchmark(tmp_path: Path) -> Callable[..., Path]:
    """``write_benchmark(name)`` -> its root, ``tmp_path / name``."""
    pytest.importorskip("h5py")

    def write(name: str, seed: int = 0) -> Path:
        root = tmp_path / name
        root.mkdir()
        WRITERS[name](root, np.random.default_rng(seed))
        return root

    return write
