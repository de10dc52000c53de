"""LoRAs with random weights for the tiny pipelines, as files that diffusers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from tests.support.pipelines import tiny_sd

TARGETS = {"unet": ["to_q", "to_k", "to_v"], "text_encoder": ["q_proj", "v_proj"]}


def save_lora(folder: Path, *components: str, seed: int = 0, strength: float = 1.0) -> str:
    """Save a LoRA of rank 2 for components of ``tiny_sd``, and return its folder."""
    pipeline, layers = tiny_sd(), {}
    torch.manual_seed(seed)
    for name in components:
        network = getattr(pipeline, name)
        config = LoraConfig(r=2, lora_alpha=2, target_modules=TARGETS[name])
        network.add_adapter(config, "default")
        state: dict[str, Any] = get_peft_model_state_dict(network, adapter_name="default")
        state = {key: strength * torch.randn_like(value) for key, value in state.items()}
        layers[f"{name}_lora_layers"] = convert_state_dict_to_diffusers(state)
    type(pipeline).save_lora_weights(str(folder), safe_serialization=True, **layers)
    return str(folder)
