"""Compare a generator of masked tokens with a diffusion model, on the same digits.

Two transformers of the same size, 64 places of width 64 and 2 layers, are trained on the same
digits of scikit-learn with the same number of steps. One predicts masked tokens
(examples/tokens.py), the other the velocity of a rectified flow of the same pixels. Then all
held-out digits are recorded with every class. Writes docs/benchmarks/tokens.md, in about ten
minutes on one core:

    python benchmarks/tokens.py

Networks and records are kept in the folder; an interrupted run continues.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

import numpy as np
import torch
from report import as_table, interval, write_page
from scipy.stats import binomtest
from torch import nn

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, RacingPruner

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "tokens.py"))
T = 1000
DRAWS = (2, 4, 8, 16, 32, 64)
MODELS = {"tokens": "masked tokens", "flow": "diffusion (flow)"}


class FlowNetwork(nn.Module):
    """Velocity [R, 64] of noised pixels [R, 64]."""

    def __init__(self):
        super().__init__()
        self.body = EXAMPLE["Transformer"](nn.Linear(1, 64), 1)

    def forward(self, z, t, class_index):
        return self.body(z[..., None], (t + 0.5) / T, class_index)[..., 0]


def flow_loss(network, x, class_index):
    """Mean squared error of the velocity, per pixel."""
    eps, t = torch.randn(x.shape), EXAMPLE["spread"](len(x), T)
    alpha, sigma = (level.float()[:, None] for level in NoiseSchedule.flow(T).at(t))
    output = network(alpha * x + sigma * eps, t, class_index)
    return (output - (eps - x)).square().mean()


def as_pixels(tokens):
    """Map tokens 0 to 4 to pixels in [-1, 1]."""
    return (tokens / (EXAMPLE["VOCABULARY"] - 1) * 2 - 1).astype(np.float32)


def train(name, folder, steps):
    """Train or read a network; return its backend, the seconds of training and its size."""
    torch.manual_seed(0)
    (x, labels), _ = EXAMPLE["load_tokens"]()
    path = folder / f"digits-{name}.pt"
    if name == "tokens":
        network = EXAMPLE["TokenNetwork"]()
        seconds = EXAMPLE["train"](network, EXAMPLE["token_loss"], x, labels, path, steps)
        backend = EXAMPLE["make_backend"](network)
    else:
        network = FlowNetwork()
        seconds = EXAMPLE["train"](network, flow_loss, as_pixels(x), labels, path, steps)
        backend = FunctionBackend(
            network,
            schedule=NoiseSchedule.flow(T),
            prediction_type="flow",
            input_kind="array",
            input_shape=(EXAMPLE["N_TOKENS"],),
        )
    return backend, seconds, sum(weights.numel() for weights in network.parameters())


def record(backend, X, path, n_draws):
    """Record every class on every draw, or read what was recorded before."""
    if path.exists():
        return ErrorTable.from_parquet(path)
    clf = DiffusionClassifier(backend, pruner=NoPruning(n_draws), random_state=0)
    table = clf.fit(None, list(range(EXAMPLE["N_CLASSES"]))).errors(X)
    table.to_parquet(path)
    return table


def figures(table, truth):
    """Compute accuracy, with its Wilson interval, log-loss and rows per digit."""
    log_proba = table.log_posterior().numpy()
    right = log_proba.argmax(1) == truth
    ends = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return {
        "right": right,
        "accuracy": [right.mean(), ends.low, ends.high],
        "log_loss": interval(np.mean, -log_proba[np.arange(len(truth)), truth]),
        "rows": float(np.mean(table.n_evaluations)),
    }


def compare(tables, truth, draws):
    """Compute the figures of each model at equal rows, and raced with the default pruner."""
    rows = {}
    for name, table in tables.items():
        for n in draws:
            replayed = table.replay(pruner=NoPruning(n))
            rows[MODELS[name], f"{n} draws"] = figures(replayed, truth)
        rows[MODELS[name], "race"] = figures(table.replay(pruner=RacingPruner()), truth)
    return rows


def page(rows, networks, draws, n_images, steps):
    """Write the page's text."""
    most = f"{draws[-1]} draws"
    ours, other = (rows[name, most]["right"].astype(float) for name in MODELS.values())
    change = 100 * np.array(interval(np.mean, ours - other))
    columns = {
        "rows per digit": ("rows", "{:.0f}"),
        "accuracy": ("accuracy", "{:.1%}"),
        "log-loss": ("log_loss", "{:.3f}"),
    }
    sizes = [
        f"{MODELS[name]}: {n_parameters:,} parameters, {seconds:.0f} s of training on one core"
        for name, (_, seconds, n_parameters) in networks.items()
    ]
    lines = [
        "# A generator of masked tokens beside a diffusion model",
        "",
        "Two transformers of the same architecture are trained on the same 1,197 digits of "
        f"scikit-learn (8 x 8 pixels of 5 grey levels), {steps:,} steps of 64 digits, one seed. "
        f"{sizes[0][0].upper() + sizes[0][1:]}; {sizes[1]}. All {n_images} digits that were held "
        "out are classified, with ten classes, uniform weights, natural temperatures and one seed "
        "of the draws. The network and its training were chosen for masked tokens, on 300 of the "
        "training digits (`examples/tokens.py --validate`). Nothing was chosen for diffusion, and "
        "nothing on the digits that were held out.",
        "",
        "A row is one call of the network for one digit, class and draw, and costs both networks "
        "about the same. *Race* is the default pruner, which stops at the record's "
        f"{draws[-1]} draws. Intervals are 95 %: Wilson's for accuracy, bootstrapped over digits "
        "for log-loss.",
        "",
        *as_table(("model", "draws"), columns, rows),
        "",
        f"With {most}, masked tokens answer {change[0]:+.1f} points ({change[1]:+.1f} to "
        f"{change[2]:+.1f}) of the digits more than diffusion, paired. The figures are of two "
        "small networks on one set of small pictures, and say nothing of large models.",
        "",
    ]
    return "\n".join(lines)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=EXAMPLE["STEPS"])
    parser.add_argument("--n-images", type=int, default=EXAMPLE["N_HELD_OUT"])
    parser.add_argument("--draws", type=int, nargs="+", default=DRAWS)
    parser.add_argument("--only", choices=list(MODELS), help="train and record one model, no page")
    parser.add_argument("--folder", type=Path, default=Path("build/tokens"))
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/tokens.md"))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    _, (held_out, truth) = EXAMPLE["load_tokens"]()
    held_out, truth = held_out[: options.n_images], truth[: options.n_images]
    networks, tables = {}, {}
    for name in [options.only] if options.only else MODELS:
        networks[name] = train(name, options.folder, options.steps)
        X = held_out if name == "tokens" else as_pixels(held_out)
        path = options.folder / f"digits-{name}.parquet"
        tables[name] = record(networks[name][0], X, path, options.draws[-1])
    if not options.only:
        rows = compare(tables, truth, options.draws)
        text = page(rows, networks, options.draws, len(truth), options.steps)
        write_page(options.output, text, argv)


if __name__ == "__main__":
    main()
