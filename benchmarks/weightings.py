"""Measure accuracy under each weighting, on small networks trained on real pictures.

Four class-conditional UNets, of MNIST and Fashion-MNIST pictures, predict the velocity of a
variance-preserving process ("v_prediction") or of a rectified flow ("flow"). They answer two
questions: whether "native" weights, those of the training loss, should be the default of such
networks, and what "likelihood" weights are worth when a network is inexact at small t. Writes
docs/benchmarks/weightings.md:

    python benchmarks/weightings.py --images mnist.npz fashion.npz

Each file holds ``images`` [n, 28, 28] (uint8) and ``labels`` [n]. In a random order, the first
2,000 are held out. Networks are kept in the folder; an interrupted training continues.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel
from report import as_table, interval, write_page

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.noise import PREDICTION_TYPES, NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.scoring.likelihood_check import LikelihoodCheck

T, STEPS, BATCH, N_HELD_OUT = 1000, 2000, 32, 2000
N_IMAGES, DRAWS = 200, 100
KINDS = ("v_prediction", "flow")
WEIGHTINGS = ("uniform", "native", "likelihood", "exponential")


def make_network():
    """Make a UNet of 28 x 28 grey pictures, conditioned on ten classes."""
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 48, 64),
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        num_class_embeds=10,
    )


def make_schedule(kind):
    """Make the noise schedule of training: a flow, or the linear one of DDPM."""
    if kind == "flow":
        return NoiseSchedule.flow(T)
    betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    return NoiseSchedule.from_alphas_cumprod((1 - betas).cumprod(0))


def train(kind, pictures, labels, path):
    """Train from a checkpoint if there is one, and return the averaged network."""
    torch.manual_seed(0)
    network = make_network()
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    first, target, schedule = 0, PREDICTION_TYPES[kind].target, make_schedule(kind)
    if path.exists():
        state = torch.load(path, weights_only=True)
        network.load_state_dict(state["net"])
        average.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["opt"])
        first = state["step"]
    for step in range(first, STEPS):
        for group in optimizer.param_groups:  # warm-up, then linear decay
            group["lr"] = 1e-3 * min(1, (step + 1) / 100) * max(0.02, 1 - step / STEPS)
        rows, t = torch.randint(len(pictures), (BATCH,)), torch.randint(T, (BATCH,))
        x, eps = pictures[rows], torch.randn(BATCH, 1, 28, 28)
        alpha, sigma = (level.float().view(-1, 1, 1, 1) for level in schedule.at(t))
        output = network(alpha * x + sigma * eps, t, class_labels=labels[rows]).sample
        loss = (output - target(x, eps, alpha, sigma)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, 1 - min(0.998, step / (step + 10)))
        if step % 100 == 99:
            state = {"net": network.state_dict(), "ema": average.state_dict()}
            state |= {"opt": optimizer.state_dict(), "step": step + 1}
            torch.save(state, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            print(f"{path.stem}: step {step + 1}, loss {loss.item():.4f}", flush=True)
    return average.requires_grad_(False)


def record(network, kind, images, path):
    """Record every class on every draw, or read what was recorded before."""
    if path.exists():
        return ErrorTable.from_parquet(path)
    backend = FunctionBackend(
        lambda z, t, k: network(z, t, class_labels=k).sample,
        schedule=make_schedule(kind),
        prediction_type=kind,
        input_shape=(1, 28, 28),
    )
    clf = DiffusionClassifier(backend, pruner=NoPruning(DRAWS), random_state=0, batch_size=100)
    table = clf.fit(None, list(range(10))).errors(images)
    table.to_parquet(path)
    return table


def is_right(table, labels, weighting):
    """Return which images are answered right under these weights, without pruning."""
    posterior = table.replay(weighting=weighting).log_posterior().numpy()
    return posterior.argmax(1) == labels


def noise_of(table):
    """Compute the check of likelihood weights: its share, and the variance in bins of log-SNR."""
    table = table.replay(weighting="likelihood")
    check = LikelihoodCheck(table.schedule, table.scoring).add_all(table.rows())
    return check.noisy_share(), check.variance_ratio().tolist()


def measure(path, kind, folder):
    """Train or read one network, and compare the weightings on its held-out images."""
    data = np.load(path)
    order = np.random.RandomState(0).permutation(len(data["images"]))
    images, labels = data["images"][order], data["labels"][order].astype(np.int64)
    scaled = torch.as_tensor(images[N_HELD_OUT:]).float()[:, None] / 127.5 - 1
    name = f"{path.stem}-{kind}"
    network = train(kind, scaled, torch.as_tensor(labels[N_HELD_OUT:]), folder / f"{name}.pt")
    chosen = slice(N_HELD_OUT - N_IMAGES, N_HELD_OUT)
    table = record(network, kind, images[chosen], folder / f"{name}.parquet")
    right = {w: is_right(table, labels[chosen], w) for w in WEIGHTINGS}
    noisy, ratios = noise_of(table)
    rows = {}
    for weighting, answers in right.items():
        change = answers.astype(float) - right["uniform"]
        rows[f"{path.stem}, {kind}", weighting] = {
            "accuracy": interval(np.mean, answers),
            "change": interval(np.mean, change),
        }
    return rows, noisy, ratios


def conclusion(rows):
    """Say how the weightings compare with uniform weights, over all networks."""
    parts = []
    for weighting in WEIGHTINGS[1:]:
        changes = [100 * row["change"][0] for (_, name), row in rows.items() if name == weighting]
        worse = sum(row["change"][2] < 0 for (_, name), row in rows.items() if name == weighting)
        parts.append(
            f'"{weighting}" by {min(changes):+.1f} to {max(changes):+.1f} points (below it with '
            f"95 % confidence on {worse} of {len(changes)} networks)"
        )
    return f"Accuracy changes against uniform weights: {', '.join(parts)}."


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="+", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("build/weightings"))
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/weightings.md"))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    rows, profiles = {}, {}
    for path in options.images:
        for kind in KINDS:
            of_network, noisy, ratios = measure(path, kind, options.folder)
            rows |= of_network
            profiles[f"{path.stem}, {kind}"] = {"noisy": noisy, "ratios": ratios}
    n_bins = max(len(profile["ratios"]) for profile in profiles.values())
    for profile in profiles.values():
        cells = [*profile.pop("ratios"), *[float("nan")] * n_bins][:n_bins]
        profile |= {f"bin {number}": ratio for number, ratio in enumerate(cells)}
    columns = {"share": ("noisy", "{:.0%}")}
    columns |= {f"{i}": (f"bin {i}", "{:.1f}") for i in range(n_bins)}
    lines = [
        "# Weightings on networks that predict a velocity",
        "",
        f"Four small UNets, {STEPS:,} steps of {BATCH} pictures each. Accuracy on {N_IMAGES} "
        f"held-out pictures, {DRAWS} stratified draws, ten classes, no pruning, one seed of the "
        "draws. Intervals are 95 %, bootstrapped over pictures; changes are paired with uniform "
        "weights.",
        "",
        *as_table(
            ("network", "weights"),
            {"accuracy": ("accuracy", "{:.1%}"), "change": ("change", "{:+.1%}")},
            rows,
        ),
        "",
        conclusion(rows),
        "",
        "## Where the networks are inexact",
        "",
        "d is the error of the second-best class less that of the best. A perfect network's d has "
        "a variance of at most four times its mean, beside the variation between images. The "
        "columns are bins of log-SNR, each two wide, from the noisiest timesteps (0) to the "
        "cleanest; the cells are Var d / (4 E d), nan where there are no draws. *Share*: the part "
        "of the likelihood-weighted differences' mean square that lies in bins where the ratio is "
        "above 3 for a reason other than images that differ; above 50 %, "
        '`weighting="likelihood"` warns.',
        "",
        *as_table(("network",), columns, profiles),
        "",
    ]
    write_page(options.output, "\n".join(lines), argv)


if __name__ == "__main__":
    main()
