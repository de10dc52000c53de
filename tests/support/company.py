"""What a prompt's condition must not depend on: the prompts that are encoded beside it."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.pipelines import epsilon_errors

LONG = "a very long prompt, of more words than any other prompt that is beside it here"


def dependence_on_company(backend: Any, images: torch.Tensor, prompt: str = "a cat") -> float:
    """Largest relative change of a prompt's errors when a longer one is encoded with it.

    A text encoder that pads to the longest prompt, before a network that attends to the padding,
    gives other errors without any warning.
    """
    groups = ([prompt], [prompt, LONG], [LONG, prompt])
    alone, first, last = (
        epsilon_errors(backend, images, group, [300, 700])[:, group.index(prompt)]
        for group in groups
    )
    return max(((other - alone) / alone).abs().max().item() for other in (first, last))
