"""Train a small generator of masked tokens on scikit-learn's digits, and classify with it.

The 1,797 handwritten digits have 8 x 8 pixels, here of 5 grey levels: 64 tokens of a vocabulary of
5. In training, m of the 64 tokens are masked, with m uniform on 1 to 64, and a transformer predicts
them from the others and the class. That is all a classifier needs. In a random order, the first 600
digits are held out:

    python examples/tokens.py

Training takes about two minutes on one core. It continues from its checkpoint if interrupted.
The network and its training were chosen on 300 of the other digits, with --validate.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from torch import nn

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.noise.process import Levels, MaskedTokens

SIDE, VOCABULARY, N_CLASSES = 8, 5, 10
N_TOKENS = SIDE**2
N_HELD_OUT, N_VALIDATION, STEPS, BATCH = 600, 300, 1500, 64


class Transformer(nn.Module):
    """Predict each of 64 places from all of them and the class.

    Parameters
    ----------
    embed : nn.Module
        Maps what a place holds to [R, 64, width].
    n_outputs : int
        Numbers that are predicted for a place.
    """

    def __init__(self, embed, n_outputs, width=64, n_layers=2):
        super().__init__()
        self.embed = embed
        self.place = nn.Parameter(0.02 * torch.randn(N_TOKENS, width))
        # A class says something else at each place. With one vector for all of them, it would take
        # the layers long to learn even how often each token occurs there.
        self.label = nn.Embedding(N_CLASSES, N_TOKENS * width)
        nn.init.normal_(self.label.weight, std=0.3)
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_outputs))

    def forward(self, z, time, class_index):
        label = self.label(class_index).view(len(z), N_TOKENS, -1)
        h = self.embed(z) + self.place + label + self.time(time[:, None])[:, None]
        return self.head(self.layers(h))


class TokenNetwork(nn.Module):
    """Logits [R, 64, 5] of tokens [R, 64], which are -1 where masked."""

    def __init__(self):
        super().__init__()
        self.body = Transformer(nn.Embedding(VOCABULARY + 1, 64), VOCABULARY)

    def forward(self, z, t, class_index):
        tokens = z.where(z >= 0, VOCABULARY)  # the last embedding is that of a mask
        return self.body(tokens, (t + 1) / N_TOKENS, class_index)


def load_tokens():
    """Return tokens [N, 64] and labels [N] for training, and those held out."""
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.target))
    tokens = np.rint(digits.data[order] / 4).astype(np.int64)  # 0 to 16 become 0 to 4
    labels = digits.target[order]
    return (tokens[N_HELD_OUT:], labels[N_HELD_OUT:]), (tokens[:N_HELD_OUT], labels[:N_HELD_OUT])


def spread(n, n_timesteps):
    """Draw timesteps [n], one from each of n equal parts, in a random order."""
    return ((torch.randperm(n) + torch.rand(n)) * n_timesteps / n).long().clamp(max=n_timesteps - 1)


def token_loss(network, x, class_index):
    """Mean error of a batch, per token: an upper bound of ``-log p(x | c) / 64``."""
    process, noise, t = MaskedTokens(), torch.randn(x.shape), spread(len(x), N_TOKENS)
    one = torch.ones(1)  # levels of noise, of which there is none: t says how many are masked
    z, target = process.corrupt(x, noise, Levels(one, one, t), torch.float32)
    return process.errors(network(z, t, class_index), target, one, "l2").mean() / N_TOKENS


def train(network, loss_of, x, labels, path, steps=STEPS):
    """Train from a checkpoint if there is one; return seconds of training, of all runs."""
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    first, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first, seconds = state["step"], state["seconds"]
    x, labels = torch.as_tensor(x), torch.as_tensor(labels)
    start = time.perf_counter()
    network.train()
    for step in range(first, steps):
        torch.manual_seed(step)  # an interrupted training continues with the same batches
        for group in optimizer.param_groups:  # warm-up, then linear decay
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * max(0.02, 1 - step / steps)
        rows = torch.randint(len(x), (BATCH,))
        loss = loss_of(network, x[rows], labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99 or step == steps - 1:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            taken = seconds + time.perf_counter() - start
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state | {"step": step + 1, "seconds": taken}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            print(f"{path.stem}: step {step + 1} of {steps}, loss {loss.item():.4f}", flush=True)
    network.eval().requires_grad_(False)
    return seconds + time.perf_counter() - start if first < steps else seconds


def make_backend(network):
    """Make a backend of the network; labels are the digits that it knows."""
    return FunctionBackend(
        network,
        schedule=NoiseSchedule.masking(N_TOKENS),
        prediction_type="tokens",
        input_kind="array",
        input_shape=(N_TOKENS,),
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--n-images", type=int, default=N_HELD_OUT, help="held-out digits to race")
    parser.add_argument("--checkpoint", type=Path, default=Path("tokens.pt"))
    parser.add_argument(
        "--validate",
        action="store_true",
        help=f"race {N_VALIDATION} of the other digits and train without them, to choose settings",
    )
    args = parser.parse_args(argv)

    (x, labels), (held_out, truth) = load_tokens()
    if args.validate:
        (x, held_out), (labels, truth) = (
            (part[:-N_VALIDATION], part[-N_VALIDATION:]) for part in (x, labels)
        )
    torch.manual_seed(0)
    network = TokenNetwork()
    seconds = train(network, token_loss, x, labels, args.checkpoint, args.steps)
    n_parameters = sum(weights.numel() for weights in network.parameters())
    print(f"{n_parameters:,} parameters, trained for {seconds:.0f} s on {len(x):,} digits")

    clf = DiffusionClassifier(make_backend(network), random_state=0).fit(None, list(range(10)))
    table = clf.errors(held_out[: args.n_images])
    right = clf.predict(table) == truth[: args.n_images]
    low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    print(
        f"accuracy {right.mean():.1%} (95 % interval {low:.1%} to {high:.1%}, n = {len(right)}), "
        f"{table.n_evaluations.mean():.0f} evaluations per digit"
    )


if __name__ == "__main__":
    main()
