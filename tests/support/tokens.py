"""A joint distribution of a few tokens, and the exact any-order generator of it."""

import itertools

import numpy as np
import torch

N_TOKENS, N_CLASSES = 4, 3
STATES = torch.tensor(list(itertools.product(range(2), repeat=N_TOKENS)))  # all 16 images


class Joint(torch.nn.Module):
    """Three classes of four binary tokens, each a table of probabilities.

    It returns the log of p(x_i | tokens that are not masked, c), by summing its table.
    """

    def __init__(self, seed=0, sharpness=0.7):
        super().__init__()
        tables = np.random.default_rng(seed).dirichlet([sharpness] * len(STATES), size=N_CLASSES)
        # Mixed with uniform: no probability is 0.
        table = torch.tensor(0.95 * tables + 0.05 / len(STATES))
        self.table = torch.nn.Parameter(table, requires_grad=False)

    def forward(self, z, t, class_index):
        shape, z = z.shape, z.flatten(1)
        fits = ((z[:, None] == STATES) | (z[:, None] < 0)).all(2)  # [R, 16]
        weights = fits * self.table[class_index]
        one_hot = torch.nn.functional.one_hot(STATES, 2).double()  # [16, L, 2]
        together = torch.einsum("rs,slv->rlv", weights, one_hot)
        return (together / weights.sum(1)[:, None, None]).log().view(*shape, 2)

    def posterior(self):
        """p(c | x) of every image [16, K], for classes of equal probability."""
        return (self.table / self.table.sum(0)).T


def by_order(joint, z, class_index):
    """Logits of each token given those before it in its row's order, z [R, 2, L]."""
    tokens, place = z[:, 0], z[:, 1]
    logits = torch.empty(*tokens.shape, 2, dtype=torch.float64)
    for i in range(N_TOKENS):
        before = tokens.where(place < place[:, i : i + 1], -1)
        logits[:, i] = joint(before, None, class_index)[:, i]
    return logits
