"""What a training file can ask for: schedules, averages, equal gradients, warm starts, stages, precision, logs."""

from __future__ import annotations

import csv
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from completion import checkpoint
from completion.configuration import ConfigurationError, TrainingConfig, parse_config, plain
from completion.datasets.pairs import PairDataset, chosen, read_pairs
from completion.losses import LOSSES, cd_l1, gradient_magnitude
from completion.losses.qal import qal
from completion.networks import NETWORKS, Completion, CompletionNetwork, Denoising
from completion.objective import denoising_clouds, gradient_factors, loss_terms, total_loss
from completion.resume import WeightAverage, differences
from completion.schedules import learning_rate
from completion.train import DivergenceError, train
from completion.training_log import read_log


def run(keys: dict, out: Path, **options) -> Path:
    return train(parse_config(keys), out, "cpu", progress=False, **options)


def state(out: Path) -> dict:
    return torch.load(out / "training.pt", weights_only=True)


def clouds(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed)) - 0.5


# --- schedules --------------------------------------------------------------------------------------------------


def test_mvps_schedule_cuts_the_rate_every_forty_epochs(training_keys, tmp_path) -> None:
    mvp = {"name": "step", "every": 40, "unit": "epochs", "gamma": 0.7}
    config = parse_config(training_keys(tmp_path / "x", schedule=mvp, steps=1000, warmup_steps=0, batch_size=4))
    pairs = 10  # an epoch is two and a half steps
    rates = [learning_rate(config, step, pairs) for step in range(1000)]
    naive = [config.learning_rate * 0.7 ** ((step * 4 // 10) // 40) for step in range(1000)]
    assert rates == naive and rates[99] == config.learning_rate and rates[100] == pytest.approx(0.7e-3)
    with pytest.raises(ValueError, match="number of pairs"):
        learning_rate(config, 1)


def test_steps_and_constant(training_keys, tmp_path) -> None:
    every = parse_config(training_keys(tmp_path, schedule={"name": "step", "every": 3, "gamma": 0.5}, warmup_steps=2))
    assert [learning_rate(every, step) / 1e-3 for step in range(7)] == pytest.approx([0.5, 1, 1, 0.5, 0.5, 0.5, 0.25])
    constant = parse_config(training_keys(tmp_path, schedule="constant", warmup_steps=2))
    assert [learning_rate(constant, step) for step in range(4)] == [0.0005, 0.001, 0.001, 0.001]


def test_loss_parameters_follow_their_schedule(write_pairs, training_keys, tmp_path, monkeypatch) -> None:
    seen = []

    def watched(prediction: Tensor, target: Tensor, *, epsilon: float = 0.1, omega: float = 1.0) -> Tensor:
        seen.append((epsilon, omega))
        return cd_l1(prediction, target)

    monkeypatch.setitem(LOSSES, "watched", watched)
    parameters = {"epsilon": {"schedule": "linear", "from": 0.01, "to": 0.05}, "omega": 7.0}
    loss = {"name": "watched", "parameters": parameters}
    run(training_keys(write_pairs(), steps=5, loss=loss, coarse_loss="cd_l1"), tmp_path / "out")
    assert [epsilon for epsilon, _ in seen] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    assert {omega for _, omega in seen} == {7.0}


# --- averaged weights ---------------------------------------------------------------------------------------------


def test_the_average_is_the_recurrence() -> None:
    layer = torch.nn.BatchNorm1d(2)
    average = WeightAverage(layer, 0.9)
    expected = layer.weight.detach().clone()
    for step in range(4):
        with torch.no_grad():
            layer.weight.add_(torch.tensor([1.0, -step]))
            layer.num_batches_tracked.add_(1)
        expected = 0.9 * expected + 0.1 * layer.weight.detach()
        average.update(layer)
    torch.testing.assert_close(average.values["weight"], expected)
    assert average.values["num_batches_tracked"] == 4


def test_the_checkpoint_holds_the_averaged_weights(write_pairs, training_keys, tmp_path) -> None:
    keys = training_keys(write_pairs(), ema=0.8)
    out = run(keys, tmp_path / "out")
    kept, stored = state(out), checkpoint.load(out, "cpu").network.state_dict()
    for key, value in kept["ema"].items():
        torch.testing.assert_close(stored[key], value.half().float(), rtol=0, atol=0)
    assert any(not torch.equal(kept["ema"][key], value) for key, value in kept["network"].items())
    plainly = run({**keys, "ema": 0.0}, tmp_path / "plain")
    assert all(torch.equal(value, kept["network"][key]) for key, value in state(plainly)["network"].items())
    assert "decay 0.8" in (out / "README.md").read_text()


# --- equal gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["qal", "infocd", "hypercd", "cd_l1"])
def test_factors_bring_a_loss_to_the_gradient_of_cd(training_keys, tmp_path, loss: str) -> None:
    config = parse_config(training_keys(tmp_path, loss=loss, gradient_scale="equal"))
    prediction = Completion((clouds(3, 16), clouds(3, 64, seed=1)))
    truth = clouds(3, 64, seed=2)
    factors = gradient_factors(config, prediction, truth, 0.0, lambda value: value)

    def scaled(name: str, one: Tensor, other: Tensor) -> Tensor:
        return factors[name] * LOSSES[loss](one, other)

    for name, cloud in (("coarse", prediction.coarse), ("fine", prediction.fine)):
        now = gradient_magnitude(partial(scaled, name), cloud, truth).mean()
        torch.testing.assert_close(now, gradient_magnitude(cd_l1, cloud, truth).mean())
    assert loss != "cd_l1" or factors == {"coarse": 1.0, "fine": 1.0}


def test_a_loss_and_its_hundredfold_train_alike_at_equal_gradients(
    write_pairs, training_keys, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(LOSSES, "hundredfold", lambda a, b: 128 * cd_l1(a, b))
    keys = training_keys(write_pairs(), steps=4, gradient_scale="equal", clip_norm=0.01)
    one = run(keys, tmp_path / "one")
    other = run({**keys, "loss": "hundredfold"}, tmp_path / "other")
    for key, value in state(one)["network"].items():
        torch.testing.assert_close(state(other)["network"][key], value, rtol=1e-5, atol=1e-6)
    assert state(other)["factors"]["fine"] == pytest.approx(1 / 128)
    config = json.loads((other / "config.json").read_text())
    assert config["training"]["gradient_factors"]["fine"] == pytest.approx(1 / 128)
    assert "gradient magnitude" in (other / "README.md").read_text()
    parts = run({**keys, "loss": "hundredfold"}, tmp_path / "parts", stop_after=2)
    run({**keys, "loss": "hundredfold"}, parts)
    assert state(parts)["factors"] == state(other)["factors"]
    assert all(torch.equal(value, state(parts)["network"][k]) for k, value in state(other)["network"].items())


def test_a_loss_without_gradient_cannot_be_scaled(write_pairs, training_keys, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(LOSSES, "nothing", lambda a, b: 0 * cd_l1(a, b))
    with pytest.raises(ConfigurationError, match=r"cannot scale the fine loss.*is 0\.0"):
        run(training_keys(write_pairs(), loss="nothing", gradient_scale="equal"), tmp_path / "out")


# --- warm start ---------------------------------------------------------------------------------------------------


def test_fine_tuning_begins_with_the_checkpoints_weights(
    write_pairs, training_keys, save_checkpoint, tmp_path, monkeypatch
) -> None:
    cd = save_checkpoint(tmp_path / "cd")
    keys = training_keys(write_pairs(), init=str(cd), loss="qal", steps=2, learning_rate=1e-12, warmup_steps=0)
    out = run(keys, tmp_path / "out")
    begun = checkpoint.load(cd, "cpu").network.state_dict()
    for key, value in state(out)["network"].items():
        torch.testing.assert_close(value, begun[key], rtol=0, atol=1e-9)
    recorded = json.loads((out / "config.json").read_text())["training"]["init"]
    assert recorded["name"] == "cd" and len(recorded["sha256"]) == 64
    assert str(tmp_path) not in (out / "config.json").read_text()
    # Elsewhere it is the same run; other weights under the same name are another.
    moved = cd.rename(tmp_path / "moved")
    run({**keys, "init": str(moved)}, out)
    network = checkpoint.load(moved, "cpu").network
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    checkpoint.save(moved, network, {k: v for k, v in checkpoint.read_config(moved).items()}, "# card\n")
    with pytest.raises(ConfigurationError, match=r"init \(content\)"):
        run({**keys, "init": str(moved)}, out)


def test_a_checkpoint_that_does_not_fit_is_refused(write_pairs, training_keys, save_checkpoint, tmp_path) -> None:
    cd = save_checkpoint(tmp_path / "cd")
    keys = training_keys(write_pairs(), init=str(cd))
    wider = {**keys["network"]["parameters"], "decoder_channels": 20}
    with pytest.raises(ConfigurationError, match=r"init: .*does not fit.*decoder\.conv|decoder\.fc1"):
        run({**keys, "network": {"name": "pcn", "parameters": wider}}, tmp_path / "out")
    with pytest.raises(ValueError, match="no such checkpoint folder"):
        run({**keys, "init": str(tmp_path / "none")}, tmp_path / "out")


# --- stages and denoising -----------------------------------------------------------------------------------------


def test_all_stages_but_the_last_share_the_coarse_loss(training_keys, tmp_path) -> None:
    config = parse_config(training_keys(tmp_path, loss="qal", coarse_loss="cd_l2"))
    stages, truth = tuple(clouds(2, n, seed=n) for n in (8, 16, 64)), clouds(2, 64, seed=1)
    terms = loss_terms(config, Completion(stages), truth, 0.0)
    naive = LOSSES["cd_l2"](stages[0], truth) + LOSSES["cd_l2"](stages[1], truth)
    torch.testing.assert_close(terms["coarse"], naive)
    torch.testing.assert_close(terms["fine"], qal(stages[2], truth))
    means = {name: value.mean() for name, value in terms.items()}
    torch.testing.assert_close(total_loss(config, means, 0.5, {}), naive.mean() + 0.5 * terms["fine"].mean())
    alone = loss_terms(config, Completion(stages[2:]), truth, 0.0)
    torch.testing.assert_close(total_loss(config, {"fine": alone["fine"].mean()}, 0.01, {}), terms["fine"].mean())


def test_denoising_compares_each_centre_with_its_own_neighbourhood(training_keys, tmp_path) -> None:
    truth, centres = clouds(2, 50), clouds(2, 5, seed=1)
    made = centres[:, :, None] + 0.1 * clouds(2, 5, 6, seed=2)
    predicted, targets = denoising_clouds(Denoising(centres, made), truth)
    for b in range(2):
        for q in range(5):
            order = (truth[b] - centres[b, q]).norm(dim=1).argsort()[:6]
            assert torch.equal(predicted[5 * b + q], made[b, q])
            assert sorted(map(tuple, targets[5 * b + q].tolist())) == sorted(map(tuple, truth[b][order].tolist()))
    config = parse_config(training_keys(tmp_path, denoising_weight=0.25))
    prediction = Completion((clouds(2, 8), clouds(2, 32)), Denoising(centres, made))
    terms = loss_terms(config, prediction, truth, 0.0)
    torch.testing.assert_close(terms["denoising"], cd_l1(predicted, targets).view(2, 5).mean(dim=1))
    means = {name: value.mean() for name, value in terms.items()}
    total = total_loss(config, means, 1.0, {})
    torch.testing.assert_close(total, means["coarse"] + means["fine"] + 0.25 * means["denoising"])


class _Stages(CompletionNetwork):
    """Three clouds, denoising in training, noise from torch's generator, the truth as an argument."""

    output_points, uses_truth = 32, True

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, partial: Tensor, truth: Tensor | None = None) -> Completion:
        fine = self.layer(partial[:, :32]) + 0.01 * torch.randn(partial.shape[0], 32, 3)
        aside = None
        if self.training:
            assert truth is not None
            centres = truth[:, :4] + 0.01 * torch.randn(len(truth), 4, 3)
            aside = Denoising(centres, self.layer(centres)[:, :, None].expand(-1, -1, 8, -1))
        return Completion((fine[:, :8], fine[:, :16], fine), aside)


def test_a_network_with_stages_noise_and_denoising_trains_and_resumes(
    write_pairs, training_keys, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(NETWORKS, "stages", _Stages)
    keys = training_keys(write_pairs(), network="stages", gradient_scale="equal", loss="qal", ema=0.5)
    out = run(keys, tmp_path / "whole")
    parts = run(keys, tmp_path / "parts", stop_after=3)
    run(keys, parts)
    assert all(torch.equal(value, state(parts)["network"][key]) for key, value in state(out)["network"].items())
    assert set(state(out)["factors"]) == {"coarse", "fine", "denoising"}
    assert all(row["denoising"] > 0 and row["coarse"] > 0 for row in read_log(out / "log.csv"))
    checkpoint.load(out, "cpu").network(clouds(1, 64))  # inference needs no truth


def test_losses_between_equal_sizes_say_what_to_change(write_pairs, training_keys, tmp_path) -> None:
    keys = training_keys(write_pairs(), loss="emd")
    with pytest.raises(ConfigurationError, match=r"cloud 1 of 2 has 16, the truth 64; set coarse_loss: cd_l1"):
        run(keys, tmp_path / "out")
    with pytest.raises(ConfigurationError, match=r"cloud 2 of 2 has 64, the truth 100; set target_points: 64"):
        run({**keys, "coarse_loss": "cd_l1", "target_points": 100}, tmp_path / "out")


# --- precision ----------------------------------------------------------------------------------------------------


def test_bf16_runs_the_network_in_bf16_and_the_loss_in_float32(
    write_pairs, training_keys, tmp_path, monkeypatch, capsys
) -> None:
    seen = set()

    def watched(prediction: Tensor, target: Tensor) -> Tensor:
        seen.add((prediction.dtype, target.dtype))
        return cd_l1(prediction, target)

    monkeypatch.setitem(LOSSES, "watched", watched)
    keys = training_keys(write_pairs(), loss="watched")
    out = run({**keys, "precision": "bf16"}, tmp_path / "bf16")
    assert "slower than float32" in capsys.readouterr().err
    assert seen == {(torch.float32, torch.float32)}
    assert all(value.dtype == torch.float32 for value in state(out)["network"].values())
    full = run(keys, tmp_path / "float32")
    one, other = (read_log(folder / "log.csv") for folder in (out, full))
    assert one[-1]["fine"] != other[-1]["fine"]
    assert one[-1]["fine"] == pytest.approx(other[-1]["fine"], rel=0.05)


def test_fp16_needs_cuda(write_pairs, training_keys, tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="fp16 needs CUDA; take bf16"):
        run(training_keys(write_pairs(), precision="fp16"), tmp_path / "out")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_every_precision_trains_on_cuda(write_pairs, training_keys, tmp_path, precision: str) -> None:
    keys = training_keys(write_pairs(), precision=precision, steps=40, ema=0.9, learning_rate=5e-3)
    out = train(parse_config(keys), tmp_path / "whole", "cuda", progress=False)
    rows = read_log(out / "log.csv")
    assert rows[-1]["fine"] < rows[0]["fine"]
    parts = train(parse_config(keys), tmp_path / "parts", "cuda", progress=False, stop_after=20)
    train(parse_config(keys), parts, "cuda", progress=False)
    assert (state(out)["scaler"] != {}) == (precision == "fp16")
    assert read_log(parts / "log.csv")[-1]["fine"] == pytest.approx(rows[-1]["fine"], rel=0.05)


# --- data ---------------------------------------------------------------------------------------------------------


def test_objects_and_scenes_choose_pairs(write_pairs, training_keys, tmp_path) -> None:
    scene = np.repeat([100, 101, 102], 4)
    path = write_pairs(scene=scene, source=np.array('{"families": {"0": "can", "1": "box", "2": "can"}}'))
    file = read_pairs(path)
    for objects, scenes, expected in (
        (["can"], (), [0, 1, 2, 3, 8, 9, 10, 11]),
        ([1], (), [4, 5, 6, 7]),
        (["box", 0], (), [0, 1, 2, 3, 4, 5, 6, 7]),
        ((), [102], [8, 9, 10, 11]),
        (["can"], [100, 101], [0, 1, 2, 3]),
    ):
        some = chosen(file, objects, scenes)
        assert len(some) == len(expected)
        for k, pair in enumerate(expected):
            assert np.array_equal(some.partial(k), file.partial(pair))
            assert np.array_equal(some.truth(k), file.truth(pair))
    for objects, scenes, message in (
        (["cann"], (), r"no object 'cann' .*families: box, can"),
        ([7], (), "no object 7"),
        ((), [9], r"no scene 9 \(scenes: 100, 101, 102\)"),
        (["box"], [100], "no pair of objects"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen(file, objects, scenes)
    out = run(training_keys(path, objects=["box"], steps=2), tmp_path / "out")
    assert "objects box alone" in (out / "README.md").read_text()
    with pytest.raises(ConfigurationError, match="objects"):
        run(training_keys(path, objects=["can"], steps=2), out)


def test_divergence_names_the_pairs(write_pairs, training_keys, tmp_path, monkeypatch) -> None:
    path = write_pairs()
    keys = training_keys(path, loss="bad", coarse_loss="cd_l1", checkpoint_every=1)
    calls = []

    def bad(prediction: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        value = cd_l1(prediction, target)
        broken = torch.tensor([False, True, False, True]) & (len(calls) == 4)
        return value + torch.where(broken, torch.inf, 0.0)

    monkeypatch.setitem(LOSSES, "bad", bad)
    with pytest.raises(DivergenceError, match=r"step 3: fine is inf \(loss bad; pairs ") as caught:
        run(keys, tmp_path / "out")
    batch = PairDataset([read_pairs(path)], 64, 64).indices(3, 4)
    assert f"pairs {batch[1]}, {batch[3]})" in str(caught.value)
    assert state(tmp_path / "out")["step"] == 3  # untouched by the broken step


# --- logs ---------------------------------------------------------------------------------------------------------


def test_tensorboard_is_written_where_it_is_installed(write_pairs, training_keys, tmp_path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = run(training_keys(write_pairs(), tensorboard=True), tmp_path / "out")
    told = events.EventAccumulator(str(out / "tensorboard"))
    told.Reload()
    rows = read_log(out / "log.csv")
    for name in ("loss", "coverage", "spurious"):
        assert [event.step for event in told.Scalars(name)] == [2, 4, 6]
        assert [event.value for event in told.Scalars(name)] == pytest.approx([row[name] for row in rows], rel=1e-4)


def test_without_tensorboard_the_remedy_is_named(write_pairs, training_keys, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'grasp-utility\[tensorboard\]'"):
        run(training_keys(write_pairs(), tensorboard=True), tmp_path / "out")


def test_without_tqdm_progress_is_lines(write_pairs, training_keys, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    train(parse_config(training_keys(write_pairs())), tmp_path / "out", "cpu")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[1].startswith("step 4/6: loss ")
    assert all(word in lines[1] for word in ("coverage", "spurious", "left"))


def test_the_log_keeps_the_largest_gradient_since_the_row_before(write_pairs, training_keys, tmp_path) -> None:
    keys = training_keys(write_pairs(), log_every=1)
    each = [row["gradient"] for row in read_log(run(keys, tmp_path / "each") / "log.csv")]
    some = read_log(run({**keys, "log_every": 3}, tmp_path / "some") / "log.csv")
    assert [row["largest_gradient"] for row in some] == pytest.approx([max(each[:3]), max(each[3:])], rel=1e-5)


# --- configuration ------------------------------------------------------------------------------------------------


def test_a_resume_file_from_before_these_keys_still_fits(training_keys, tmp_path) -> None:
    config = parse_config(training_keys(tmp_path / "x"))
    now = {**plain(config), "pairs": [{"file": "x", "sha256": "1"}], "init": None}
    old = {key: now[key] for key in ("network", "loss", "steps", "seed", "pairs", "batch_size", "format_version")}
    old |= {key: now[key] for key in ("input_points", "target_points", "warmup_steps", "log_every", "checkpoint_every")}
    assert differences(old, now) == []
    assert differences(old, {**now, "ema": 0.9}) == ["ema"]
    assert differences(old, {**now, "pairs": [{"file": "moved", "sha256": "1"}], "log_every": 9}) == []
    assert differences(old, {**now, "pairs": [{"file": "x", "sha256": "2"}]}) == ["pairs (content)"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "bf61"}, r"precision: unknown name 'bf61' \(did you mean 'bf16'\?"),
        ({"ema": 1.0}, "ema is a decay below 1"),
        ({"schedule": "cosin"}, r"schedule: unknown name 'cosin' \(did you mean 'cosine'\?"),
        ({"schedule": {"name": "step"}}, "step needs every"),
        ({"schedule": {"name": "step", "evry": 3}}, r"unknown key 'evry' \(did you mean 'every'\?"),
        ({"schedule": {"name": "step", "every": 3, "unit": "epoch"}}, r"did you mean 'epochs'\?"),
        ({"schedule": {"name": "step", "every": 3, "gamma": 0.0}}, "gamma must be above 0"),
        ({"gradient_scale": "equl"}, r"gradient_scale: unknown name 'equl' \(did you mean 'equal'\?"),
        ({"loss": {"name": "qal", "parameters": {"epsilon": "1e-3"}}}, r"epsilon must be a number.*write 1\.0e-3"),
        ({"loss": {"name": "qal", "parameters": {"epsilon": [0.1, 0.01]}}}, r"epsilon must be a number, got \[0\.1"),
        ({"loss": {"name": "emd", "parameters": {"rounds": "50"}}}, "rounds must be a number"),
        (
            {"loss": {"name": "qal", "parameters": {"epsilon": {"schedule": "linaer", "from": 1, "to": 2}}}},
            r"loss qal: epsilon: unknown schedule 'linaer'",
        ),
        ({"loss": {"name": "cd_l1", "parameters": {"weight": 1}}}, "unknown parameter 'weight'"),
        ({"objects": [1.5]}, "objects: expected int"),
        ({"tensorboard": "yes"}, "tensorboard: expected bool"),
        ({"dataset": {"name": "mvp"}}, "dataset stands instead of pairs"),
        ({"denoising_weight": -1}, "denoising_weight must not be negative"),
        ({"normalisation": "as given"}, "normalisation: unknown name"),
    ],
)
def test_new_keys_are_checked(training_keys, tmp_path, changes, message) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_config(training_keys(tmp_path / "x", **changes))
    assert "\n" not in str(caught.value)


def test_every_option_survives_json(training_keys, tmp_path) -> None:
    changes = {
        "schedule": {"name": "step", "every": 40, "unit": "epochs"},
        "loss": {"name": "qal", "parameters": {"epsilon": {"schedule": "cosine", "from": 0.01, "to": 0.001}}},
        "objects": ["mug", 3],
        "scenes": [100],
        "ema": 0.999,
        "precision": "bf16",
        "init": "pcn-cd",
    }
    config: TrainingConfig = parse_config(training_keys(tmp_path / "x", **changes))
    assert parse_config(plain(config)) == config
    assert parse_config(training_keys(tmp_path / "x", loss="qal")) == parse_config(
        training_keys(tmp_path / "x", loss={"name": "qal"})
    )


def test_the_log_has_a_header_that_explains_its_rows(write_pairs, training_keys, tmp_path) -> None:
    out = run(training_keys(write_pairs()), tmp_path / "out")
    header, *rows = list(csv.reader((out / "log.csv").open()))
    assert header[0] == "step" and header[-1] == "seconds" and all(len(row) == len(header) for row in rows)
