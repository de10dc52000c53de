"""Train the embedded model: a small Stable Diffusion on scenes of handwritten digits.

As in Stable Diffusion, there are three parts, all trained from random weights:

1. an autoencoder (32 x 32 x 3 pixels to 8 x 8 x 4 latents),
2. a CLIP-style tokenizer and one-layer text encoder,
3. a UNet that predicts the noise in a latent, given the encoded caption.

The result is a ``StableDiffusionPipeline`` folder, which ``DiffusionClassifier(folder)`` loads.
Training takes about 45 minutes on 2 CPU cores. Interrupted runs resume from their checkpoint:

    python examples/train_embedded.py --output my_scenes
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from diffusion_classifier import datasets
from diffusion_classifier.datasets import CAPTION_WORDS, COLOR_NAMES, DIGIT_NAMES, PALETTE

N_SCENES = 60_000
FREE_COLOR_SHARE = 0.3  # share of random colours, so that shape is learned separately from colour
MAX_TOKENS = 16
AUTOENCODER_STEPS = 1000
BATCH = 96


def make_scenes(rng):
    """Make augmented training scenes: (images uint8, digit, color or -1, background)."""
    glyphs, digits, train, _ = datasets.handwriting()
    palette = np.array(list(PALETTE.values())) / 255.0
    n = N_SCENES
    index = rng.choice(train, size=n)
    color = rng.randint(len(palette), size=n)
    while (bad := datasets.is_unseen_pair(digits[index], color)).any():
        color[bad] = rng.randint(len(palette), size=bad.sum())
    background = (color + rng.randint(1, len(palette), size=n)) % len(palette)
    foreground = palette[color] + 0.04 * rng.standard_normal((n, 1))
    # A free colour must not be closest to a palette colour that is held out for this digit.
    free = rng.uniform(size=n) < FREE_COLOR_SHARE
    paint = rng.uniform(size=(n, 3))
    nearest = np.linalg.norm(paint[:, None] - palette, axis=2).argmin(1)
    far = np.linalg.norm(paint - palette[background], axis=1) > 0.4
    free &= ~datasets.is_unseen_pair(digits[index], nearest) & far
    foreground[free] = paint[free]
    images = []
    for rows in np.array_split(np.arange(n), n // 1000):
        images.append(
            datasets.render_scenes(
                glyphs[index[rows]],
                foreground[rows],
                palette[background[rows]] + 0.04 * rng.standard_normal((len(rows), 1)),
                rng.uniform(-1, 1, size=(len(rows), 2)),
                0.01 * rng.standard_normal((len(rows), 32, 32, 3)),
                angle=rng.normal(scale=0.1, size=len(rows)),
                zoom=rng.uniform(0.9, 1.1, size=len(rows)),
            )
        )
    return np.concatenate(images), digits[index], np.where(free, -1, color), background


def caption(digit, color, background, rng):
    """Draw one of many true, mostly incomplete, descriptions of a scene."""
    any_digit = "digit" if rng.uniform() < 0.8 else "number"
    digit, where = DIGIT_NAMES[digit], f" on a {COLOR_NAMES[background]} background"
    paint = COLOR_NAMES[color] + " " if color >= 0 else ""
    forms, odds = zip(
        (f"{paint}{digit}{where}", 0.42),
        (digit, 0.22),
        (f"{paint}{digit}", 0.10),
        (f"{paint}{any_digit}", 0.08),
        (f"{any_digit}{where}", 0.07),
        (f"{digit}{where}", 0.03),
        (None, 0.08),  # empty prompt, for the unconditional model
        strict=True,
    )
    text = forms[rng.choice(len(forms), p=odds)]
    if text is None:
        return ""
    if rng.uniform() < 0.15:
        text = "handwritten " + text
    return ("a photo of a " if rng.uniform() < 0.25 else "a ") + text


def make_tokenizer():
    """Make a CLIP tokenizer with one token per caption word, and one per letter."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789,.'-")
    bpe.train_from_iterator(
        [" ".join(CAPTION_WORDS)] * 2,
        trainers.BpeTrainer(
            vocab_size=2000,
            end_of_word_suffix="</w>",
            min_frequency=1,
            initial_alphabet=letters,
            show_progress=False,
        ),
    )
    merges = json.loads(bpe.to_str())["model"]["merges"]
    vocab = {}
    for token in [*letters, *(c + "</w>" for c in letters), *("".join(pair) for pair in merges)]:
        vocab.setdefault(token, len(vocab))
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocab[token] = len(vocab)
    tokenizer = CLIPTokenizer(
        vocab=vocab, merges=[tuple(m) for m in merges], model_max_length=MAX_TOKENS
    )
    return tokenizer


def make_networks(tokenizer):
    """Make autoencoder, text encoder and UNet with random weights: 2.9 million parameters."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    vae = AutoencoderKL(
        block_out_channels=(16, 32, 48),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        mid_block_add_attention=False,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=64,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(48, 96),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    return vae, text_encoder, unet.to(memory_format=torch.channels_last)


def to_unit(images):
    """Convert uint8 [n, 32, 32, 3] to float [n, 3, 32, 32] in [-1, 1]."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(vae, images):
    """Train on pixel reconstruction; scale latents to unit variance, as in Stable Diffusion."""
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=AUTOENCODER_STEPS)
    for step in range(AUTOENCODER_STEPS):
        x = to_unit(images[torch.randint(0, len(images), (64,)).numpy()])
        posterior = vae.encode(x).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        loss = F.mse_loss(decoded, x) + 0.2 * F.l1_loss(decoded, x)
        loss = loss + 1e-4 * posterior.kl().mean() / 256
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"autoencoder step {step} loss {loss.item():.4f}", flush=True)
    vae.eval()
    latents = encode(vae, images[:5000])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))


@torch.inference_mode()
def encode(vae, images):
    return torch.cat([vae.encode(to_unit(part)).latent_dist.mode() for part in _chunks(images)])


def _chunks(images, size=250):
    return (images[i : i + size] for i in range(0, len(images), size))


def learning_rate(step, steps):
    """Relative learning rate: 200 steps of warm-up, then cosine decay to one twentieth."""
    return min(1, (step + 1) / 200) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def train_denoiser(nets, scheduler, latents, token_table, steps, checkpoint):
    """Train text encoder and UNet to predict the noise; return them with averaged weights.

    ``token_table(rows)`` draws new captions for these rows. High timesteps are drawn more often
    (t = 1000 u^0.8), because digits and colours differ most there.
    """
    parameters = list(nets.parameters())
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: learning_rate(i, steps))
    average = torch.optim.swa_utils.AveragedModel(
        nets, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    parts = {"nets": nets, "average": average, "optimizer": optimizer, "schedule": schedule}
    done = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        done = state["step"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
        print(f"continuing from step {done}", flush=True)
    start = time.perf_counter()
    for step in range(done, steps):
        rows = torch.randint(0, len(latents), (BATCH,))
        z = latents[rows]
        t = (1000 * torch.rand(BATCH) ** 0.8).long().clamp(max=999)
        noise = torch.randn_like(z)
        noisy = scheduler.add_noise(z, noise, t).to(memory_format=torch.channels_last)
        hidden = nets["text_encoder"](token_table(rows.tolist()))[0]
        loss = F.mse_loss(nets["unet"](noisy, t, encoder_hidden_states=hidden).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(nets)
        if step % 100 == 0:
            print(
                f"step {step} loss {loss.item():.4f} {time.perf_counter() - start:.0f} s",
                flush=True,
            )
        if step % 500 == 499:
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save({"step": step + 1, **state}, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    return average.module.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the pipeline")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.RandomState(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)

    tokenizer = make_tokenizer()
    vae, text_encoder, unet = make_networks(tokenizer)
    images, *labels = make_scenes(rng)
    vae_folder = args.output / "vae"
    if (vae_folder / "config.json").exists():
        vae = type(vae).from_pretrained(vae_folder).eval()
    else:
        train_autoencoder(vae, images)
        vae.save_pretrained(vae_folder)
    latents = encode(vae, images) * vae.config.scaling_factor
    del images

    def token_table(rows):
        texts = [caption(*(column[i] for column in labels), rng) for i in rows]
        return tokenizer(
            texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    nets = torch.nn.ModuleDict({"text_encoder": text_encoder, "unet": unet})
    checkpoint = args.output / "checkpoint.pt"
    trained = train_denoiser(nets, scheduler, latents, token_table, args.steps, checkpoint)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=trained["text_encoder"],
        tokenizer=tokenizer,
        unet=trained["unet"],
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(args.output)
    checkpoint.unlink()
    print(f"saved {args.output}")


if __name__ == "__main__":
    main()
