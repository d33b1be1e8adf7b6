"""The pair file's reader and the draws made from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from completion.datasets.pairs import Augmentation, PairDataset, PairFileError, read_pairs


def test_reads_back_what_was_written(write_pairs) -> None:
    path = write_pairs()
    file, raw = read_pairs(path), np.load(path)
    assert len(file) == 12 and file.frame == "table"
    start, stop = raw["partial_offsets"][5:7]
    np.testing.assert_array_equal(file.partial(5), raw["partial_points"][start:stop])
    T, points = raw["T_net_object"][5], raw["object_points"][raw["object_index"][5]]
    homogeneous = np.c_[points, np.ones(len(points))] @ T.T
    np.testing.assert_allclose(file.truth(5), homogeneous[:, :3], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"object_index": None}, "lacks object_index"),
        ({"format_version": np.array(7)}, "format_version 7"),
        ({"partial_points": np.zeros((4, 2), np.float32)}, "partial_points is float32"),
        ({"partial_points": np.zeros((4, 3), np.float64)}, "partial_points is float64"),
        ({"partial_offsets": np.array([0, 5], np.int64)}, "partial_offsets"),
        ({"object_index": np.full(12, 9, np.int32)}, "beyond the 3 objects"),
        ({"object_points": np.full((3, 50, 3), np.nan, np.float32)}, "not finite"),
        ({"T_net_object": np.zeros((2, 4, 4), np.float32)}, "T_net_object has 2 rows for 12 pairs"),
    ],
)
def test_a_broken_file_is_named(write_pairs, changes, message) -> None:
    path = write_pairs(**changes)
    with pytest.raises(PairFileError, match=message) as caught:
        read_pairs(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_truncated_and_pickled_files_are_named(write_pairs, tmp_path) -> None:
    with pytest.raises(PairFileError, match="no such pair file"):
        read_pairs(tmp_path / "none.npz")
    path = write_pairs()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PairFileError, match="not a readable"):
        read_pairs(path)
    pickled = write_pairs("evil.npz", source=np.array([{"a": 1}], dtype=object))
    with pytest.raises(PairFileError, match="not a readable"):
        read_pairs(pickled)


def test_frames_are_not_mixed(write_pairs) -> None:
    one, other = read_pairs(write_pairs()), read_pairs(write_pairs("b.npz", frame=np.array("camera")))
    with pytest.raises(PairFileError, match="different frames"):
        PairDataset([one, other], 64, 64)


def test_draws_are_normalised_and_made_of_the_pair(write_pairs) -> None:
    file = read_pairs(write_pairs())
    dataset = PairDataset([file], 64, 256)
    for i in range(len(dataset)):
        pair = dataset.draw(i, np.random.default_rng(i))
        assert pair.partial.shape == (64, 3) and pair.truth.shape == (256, 3) and pair.truth.dtype == np.float32
        whole = pair.normalisation.to_network(file.partial(i))
        assert np.linalg.norm(np.ptp(whole, axis=0)) == pytest.approx(1, abs=1e-5)
        for drawn, source in ((pair.partial, file.partial(i)), (pair.truth, file.truth(i))):
            back = pair.normalisation.to_cloud(drawn)
            gap = np.abs(back[:, None] - source[None]).max(axis=2).min(axis=1)
            assert gap.max() < 1e-5


def test_oracle_scale_comes_from_the_truth(write_pairs) -> None:
    file = read_pairs(write_pairs())
    pair = PairDataset([file], 64, 4096, mode="oracle").draw(0, np.random.default_rng(0))
    assert np.linalg.norm(np.ptp(pair.truth, axis=0)) == pytest.approx(1, abs=1e-5)


def test_a_step_decides_its_batch_and_epochs_visit_everything(write_pairs) -> None:
    file = read_pairs(write_pairs())
    dataset = PairDataset([file], 32, 64, augmentation=Augmentation(15, True, 0.2, 0.003, 0.3), seed=4)
    first, again, other = dataset.batch(7, 5), dataset.batch(7, 5), dataset.batch(8, 5)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], PairDataset([file], 32, 64, seed=5).batch(7, 5)[0])
    seen: list[int] = []
    dataset.draw = lambda i, rng: seen.append(i) or PairDataset.draw(dataset, i, rng)  # type: ignore[method-assign]
    for step in range(4):
        dataset.batch(step, 3)
    assert sorted(seen) == list(range(12))


def test_augmentation_moves_both_clouds_alike(write_pairs) -> None:
    """Partial points of these pairs are samples of the truth: under any affine map they stay so."""
    file = read_pairs(write_pairs())
    how = Augmentation(yaw_degrees=20, mirror=True, stretch=0.3, crop=0.5)
    dataset = PairDataset([file], 50, 4096, augmentation=how)
    shapes = set()
    for seed in range(6):
        pair = dataset.draw(2, np.random.default_rng(seed))
        gap = np.linalg.norm(pair.partial[:, None] - pair.truth[None], axis=2).min(axis=1)
        assert gap.max() < 1e-5
        shapes.add(round(float(np.ptp(pair.truth, axis=0)[2]), 4))
    assert len(shapes) == 6


def test_noise_has_the_declared_size(write_pairs) -> None:
    file = read_pairs(write_pairs())
    dataset = PairDataset([file], 3000, 4096, augmentation=Augmentation(noise=0.01))
    pair = dataset.draw(0, np.random.default_rng(0))
    gap = np.linalg.norm(pair.partial[:, None] - pair.truth[None], axis=2).min(axis=1)
    assert 0.004 < gap.mean() < 0.02


def test_items_are_deterministic_tensors(write_pairs) -> None:
    dataset = PairDataset([read_pairs(write_pairs())], 16, 32, seed=3)
    assert torch.equal(dataset[4][0], dataset[4][0]) and dataset[4][1].shape == (32, 3)
