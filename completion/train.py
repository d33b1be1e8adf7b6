"""Training: one flat loop that can be stopped at any step and resumed to the same weights.

Reads pair files (:mod:`completion.datasets.pairs`) or a benchmark, and a
:class:`~completion.configuration.TrainingConfig`. Writes into one folder: ``training.pt`` (:mod:`completion.resume`),
``log.csv`` and, where something was warned of, ``notes.txt`` (:mod:`completion.training_log`), and at the end a
checkpoint (:mod:`completion.checkpoint`).

A step's data and randomness depend on (seed, step) alone. On the CPU a resumed run ends with the same bits (at the same
number of threads); on CUDA, where sums have no fixed order, with the same values to rounding.

Several processes: ``torchrun --nproc-per-node 2 -m completion.train_cli FILE --out DIR``, see
:mod:`completion.distributed`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from completion import checkpoint
from completion.card import training_card
from completion.checkpoint import build_network, resolve_device
from completion.configuration import AS_GIVEN, ConfigurationError, TrainingConfig, enter_losses, load_config, plain
from completion.datasets.pairs import PairDataset, chosen, read_pairs
from completion.distributed import Ranks, join, stop_requests
from completion.losses.plugins import identity as loss_identity
from completion.metrics import NETWORK_THRESHOLD, metrics
from completion.networks import Completion, CompletionNetwork, Denoising
from completion.networks.plugins import identity
from completion.objective import gradient_factors, loss_terms, total_loss
from completion.resume import RESUME, Run, WeightAverage, clear_leftovers, restore, save
from completion.schedules import fine_weight, learning_rate, share_of_run
from completion.training_log import NOTES, TrainingLog
from completion.watch import Watch, flat_spurious

__all__ = ["RESUME", "DivergenceError", "fine_weight", "learning_rate", "load_config", "train", "training_card"]

_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# fp16 halves its loss scale at every overflow; below this it is no longer overflow but divergence.
_SMALLEST_SCALE = 2.0**-10


class DivergenceError(ValueError):
    """The loss or its gradient is no longer finite; the message names the step, the term and the pairs."""


def train(
    config: TrainingConfig,
    out: str | Path,
    device: str | torch.device = "auto",
    resume: bool = True,
    progress: bool = True,
    stop_after: int | None = None,
    trust_code: bool = False,
) -> Path:
    """Train a network; returns the checkpoint folder ``out``.

    Ctrl-C and SIGTERM let the step end, write the resume file and leave as they would have; a second Ctrl-C does not
    wait.

    Args:
        config: what to train, see :func:`load_config`.
        out: folder for resume file, log and checkpoint.
        resume: continue from ``out/training.pt`` where there is one. Without, an earlier run's resume file,
            checkpoint and evaluation are deleted before the first step, so that they cannot be taken for this run's,
            whenever it is stopped.
        progress: show a progress bar (where tqdm is installed).
        stop_after: leave after this step with the resume file written, before the run's end; no checkpoint then.
        trust_code: whether a network or loss ``module:thing`` may be imported.

    Raises:
        PairFileError, ConfigurationError: bad input, or a resume file made with another configuration.
        CheckpointError: a device that cannot be used, or no checkpoint at ``config.init``.
        DivergenceError: the loss became infinite or NaN; the resume file is from before.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ConfigurationError(f"{out}: is a file; name a folder with --out")
    with join(resolve_device(device)) as (ranks, device):
        _check_machine(config, device, ranks)
        enter_losses(config, trust_code)
        out.mkdir(parents=True, exist_ok=True)
        data = _open_data(config)
        network = _fresh_network(config, trust_code)
        description = _description(config, data, _warm_start(config, network, trust_code), trust_code)
        network = network.to(device)
        run = Run(
            network,
            torch.optim.Adam(network.parameters(), lr=config.learning_rate),
            torch.amp.GradScaler(device.type, enabled=config.precision == "fp16"),
            WeightAverage(network, config.ema) if config.ema else None,
        )
        if ranks.first:
            clear_leftovers(out)
        if not resume and ranks.first:
            # The resume file first: as long as it is there, the next run would go on with it.
            for name in (RESUME, checkpoint.CONFIG, checkpoint.WEIGHTS, checkpoint.EVALUATION, NOTES):
                (out / name).unlink(missing_ok=True)
        ranks.wait()
        restore(out, run, description, device)
        if len(set(ranks.gather(run.step))) > 1:
            raise ConfigurationError(f"{out / RESUME}: not every process reads the same; put --out on a shared disk")
        if not (out / RESUME).exists() and (out / checkpoint.CONFIG).exists():
            raise ConfigurationError(
                f"{out}: holds a checkpoint that this run did not make, or its {RESUME} is gone; name another folder, "
                "or let --fresh replace it"
            )
        if run.step >= config.steps and (out / checkpoint.CONFIG).exists():
            return out  # finished before; its card may hold an evaluation by now
        last = config.steps if stop_after is None else min(stop_after, config.steps)
        with TrainingLog(out, run.step, config.steps, progress, config.tensorboard, quiet=not ranks.first) as log:
            _loop(config, out, run, data, description, last, log, ranks)
        if last == config.steps and ranks.first:
            _save_checkpoint(config, out, run, data, description)
        ranks.wait()
    return out


def _loop(
    config: TrainingConfig,
    out: Path,
    run: Run,
    data: Any,
    description: dict[str, Any],
    last: int,
    log: TrainingLog,
    ranks: Ranks,
) -> None:
    """Steps ``run.step`` to ``last``."""
    network: CompletionNetwork = run.network.train()  # type: ignore[assignment]
    device = next(network.parameters()).device
    forward = ranks.share(network, device)
    mine, watch = ranks.slice(config.batch_size), Watch(config, out)
    if config.precision == "bf16" and device.type == "cpu":
        log.tell("precision bf16 on a CPU: it works, and on most is slower than float32")
    with stop_requests() as request:
        for step in range(run.step, last):
            partial, truth = (cloud[mine].to(device) for cloud in data.batch(step, config.batch_size))
            rate, weight = learning_rate(config, step, len(data)), fine_weight(config, step)
            for group in run.optimiser.param_groups:
                group["lr"] = rate

            mixed = torch.autocast(device.type, _DTYPES[config.precision], enabled=config.precision != "float32")
            with _randomness(config.seed, step, ranks.rank, device), mixed:
                prediction = forward(partial, truth) if network.uses_truth else forward(partial)
            prediction = _in_float32(prediction)
            share = share_of_run(config, step)
            if config.gradient_scale == "equal" and not run.factors:
                run.factors = gradient_factors(config, prediction, truth, share, ranks.mean)
                log.tell("gradient_scale equal: " + ", ".join(f"{k} x {v:.4g}" for k, v in run.factors.items()))
            terms = loss_terms(config, prediction, truth, share)
            means = {name: values.mean() for name, values in terms.items()}
            loss = total_loss(config, means, weight, run.factors)

            run.optimiser.zero_grad(set_to_none=True)
            run.scaler.scale(loss).backward()
            run.scaler.unscale_(run.optimiser)
            gradient = nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm).detach()
            # One transfer a step, also between processes: terms, gradient, and whether somebody asks to stop.
            asked = gradient.new_tensor(float(request.signal))
            report = torch.stack([loss.detach(), *(value.detach() for value in means.values()), gradient, asked])
            values = dict(zip(("loss", *means, "gradient", "asked"), ranks.mean(report).tolist(), strict=True))
            _stop_if_diverged(config, step, values, terms, data, run, ranks)
            run.scaler.step(run.optimiser)
            run.scaler.update()
            if run.average is not None:
                run.average.update(network)
            run.step = step + 1
            if math.isfinite(values["gradient"]):
                run.largest_gradient = max(run.largest_gradient, values["gradient"])

            stopping = values.pop("asked") > 0
            if run.step % config.log_every == 0 or run.step == last:
                now = metrics(prediction.fine.detach(), truth, NETWORK_THRESHOLD)
                names = ("coverage", "spurious", "cd_l1")
                averaged = ranks.mean(torch.stack([getattr(now, name).mean() for name in names])).tolist()
                row = {"step": run.step, "coarse": 0.0, **values, **dict(zip(names, averaged, strict=True))}
                row |= {"fine_weight": weight, "rate": rate, "largest_gradient": run.largest_gradient}
                if watch.watches and ranks.first:
                    row["flat_spurious"] = flat_spurious(prediction.fine.detach(), truth)
                log.row(row)
                for finding in watch.look(log.rows, run.step == config.steps):
                    if finding.name not in [name for _, name, _ in run.notes]:
                        run.notes.append([run.step, *finding])
                        log.tell(f"step {run.step}: {finding.name}: {finding.text}")
                        log.write_notes(run.notes)
                if run.step % config.log_every == 0:
                    run.largest_gradient = 0.0
            log.advance()
            due = run.step % config.checkpoint_every == 0 or run.step == last or stopping
            if due and ranks.first:
                save(out, run, description)
            if stopping and run.step < last:
                log.tell(
                    f"stopped after step {run.step} of {config.steps}, which {out / RESUME} holds; the same command "
                    "goes on from there"
                )
                ranks.wait()
                request.leave()


def _check_machine(config: TrainingConfig, device: torch.device, ranks: Ranks) -> None:
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigurationError("precision fp16 needs CUDA; take bf16 or float32 on this device")
    if config.batch_size % ranks.count:
        raise ConfigurationError(
            f"batch_size {config.batch_size} cannot be shared by {ranks.count} processes; choose a multiple"
        )


def _open_data(config: TrainingConfig) -> Any:
    """What is trained on: ``batch(step, size)``, ``len``, ``frame``, ``normalisation``, ``describe()``."""
    if config.dataset is not None:
        from completion.datasets import open_data

        return open_data(
            config.dataset,
            config.input_points,
            config.target_points,
            config.augmentation,
            config.seed,
            config.normalisation,
        )
    files = [chosen(read_pairs(path), config.objects, config.scenes) for path in config.pairs]
    return PairDataset(
        files, config.input_points, config.target_points, config.normalisation, config.augmentation, config.seed
    )


def _fresh_network(config: TrainingConfig, trust_code: bool) -> CompletionNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_network(config.network, "training configuration", trust_code)


def _warm_start(config: TrainingConfig, network: nn.Module, trust_code: bool) -> dict[str, str] | None:
    """Load the weights of ``config.init`` into ``network``; returns what the fingerprint says of them."""
    if config.init is None:
        return None
    before = checkpoint.load(config.init, "cpu", trust_code=trust_code)
    weights, expected = before.network.state_dict(), network.state_dict()
    differing = [
        f"{key} {tuple(weights[key].shape) if key in weights else 'missing'} for "
        f"{tuple(expected[key].shape) if key in expected else 'nothing'}"
        for key in sorted(weights.keys() | expected.keys())
        if key not in weights or key not in expected or weights[key].shape != expected[key].shape
    ]
    if differing:
        raise ConfigurationError(
            f"init: {before.path} holds a {before.config['network']['name']} that does not fit the network to be "
            f"trained ({', '.join(differing[:3])}{', …' if len(differing) > 3 else ''}); copy network from its "
            f"{checkpoint.CONFIG}"
        )
    network.load_state_dict(weights)
    content = (before.path / checkpoint.WEIGHTS).read_bytes()
    return {"name": before.path.name, "sha256": hashlib.sha256(content).hexdigest()}


def _description(config: TrainingConfig, data: Any, init: dict[str, str] | None, trust_code: bool) -> dict[str, Any]:
    """What the weights depend on, for the resume file and the checkpoint; no paths of this machine."""
    description = {**plain(config), "pairs": data.describe(), "init": init}
    if config.dataset is not None:  # where it lies changes nothing; describe() says what it is
        description["dataset"]["parameters"].pop("root", None)
    description["compare_with"] = Path(config.compare_with).name if config.compare_with else None
    code = {
        "network_code": identity(config.network.name, trust_code),
        "loss_code": loss_identity(config.loss.name, trust_code),
        "coarse_loss_code": {} if config.coarse_loss == "same" else loss_identity(config.coarse_loss, trust_code),
    }
    return {**description, **{key: value for key, value in code.items() if value}}


@contextmanager
def _randomness(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators for one forward pass (dropout, noise), by (seed, step, rank); restored afterwards."""
    state = int(np.random.SeedSequence([seed, 4, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(state)
        yield


def _in_float32(prediction: Completion) -> Completion:
    aside = prediction.denoising
    return Completion(
        tuple(cloud.float() for cloud in prediction.stages),
        None if aside is None else Denoising(aside.centres.float(), aside.clouds.float()),
    )


def _stop_if_diverged(
    config: TrainingConfig,
    step: int,
    values: dict[str, float],
    terms: dict[str, Tensor],
    data: Any,
    run: Run,
    ranks: Ranks,
) -> None:
    """Raise in every process alike: ``values`` are averages over all of them."""
    overflow = config.precision == "fp16" and run.scaler.get_scale() > _SMALLEST_SCALE  # skips the step by itself
    watched = [name for name in (*terms, "gradient") if not (name == "gradient" and overflow)]
    broken = next((name for name in watched if not math.isfinite(values[name])), None)
    if broken is None:
        return
    where = "no single pair shows it: the backward pass does"
    if broken in terms:
        start = ranks.slice(config.batch_size).start
        here = [start + int(row) for row in torch.nonzero(~torch.isfinite(terms[broken].detach())).flatten()]
        rows = [row for found in ranks.gather(here) for row in found]
        of_pairs = hasattr(data, "indices")
        shown = [data.indices(step, config.batch_size)[row] for row in rows] if of_pairs else rows
        kind = "pairs" if of_pairs else "rows of the batch"
        where = f"{kind} {', '.join(map(str, shown[:8]))}{', …' if len(shown) > 8 else ''}" if rows else "the sum"
    name = config.loss.name if broken in ("fine", "gradient") or config.coarse_loss == "same" else config.coarse_loss
    raise DivergenceError(
        f"training diverged at step {step}: {broken} is {values[broken]} (loss {name}; {where}); lower learning_rate "
        "or clip_norm, or look for values that are not finite in the pairs. A resume file, where there is one, is from "
        "before."
    )


def _save_checkpoint(config: TrainingConfig, out: Path, run: Run, data: Any, description: dict[str, Any]) -> None:
    network: CompletionNetwork = run.network.eval()  # type: ignore[assignment]
    if run.average is not None:
        network.load_state_dict(run.average.values)
    training = {**description, "pairs_source": [_json_or_text(file.source) for file in getattr(data, "files", [])]}
    if run.factors:
        training["gradient_factors"] = run.factors
    if run.notes:
        training["notes"] = run.notes
    inference: dict[str, Any] = {
        "network": description["network"],
        "input_points": config.input_points,
        "output_points": network.output_points,
        "unit": "m",
        "normalisation": data.normalisation,
        "frame": data.frame,
        "merge": config.merge,
        "loss": description["loss"],
        "training": training,
    }
    if data.normalisation == AS_GIVEN:  # by the true cloud, which inference has not
        radius = "-radius" if config.dataset is not None and config.dataset.name == "shapenet55" else ""
        inference |= {"normalisation": f"partial{radius}", "trained_normalisation": f"oracle{radius}"}
    checkpoint.save(out, network, inference, training_card(out.name, inference))


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
