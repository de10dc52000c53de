"""The published algorithm in plain loops, one row at a time.

A restatement of Li et al. (arXiv 2303.16203), algorithm 1 and section 3.3, on the pipeline's own
components, sharing no code with the package beyond the noise of a draw.
"""

import torch

from diffusion_classifier.noise.draws import keyed_noise


def row_error(pipeline, latent, noise, t, embedding, loss):
    """Error of one (image, draw, prompt) row, in noise space, summed over dimensions."""
    alphas = pipeline.scheduler.alphas_cumprod.double()
    a, s = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
    z = (a * latent.double() + s * noise.double()).float()
    output = pipeline.unet(
        z[None], torch.tensor([t]), encoder_hidden_states=embedding[None], return_dict=False
    )[0][0].double()
    if pipeline.scheduler.config.prediction_type == "v_prediction":
        output = a * output + s * z.double()
    difference = noise.double() - output
    return {"l2": difference.square(), "l1": difference.abs()}[loss].sum().item()


def encode(pipeline, picture, prompts):
    """Latent of a uint8 picture [H, W, 3], and the embeddings of the prompts."""
    pixels = torch.as_tensor(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    latent = pipeline.vae.encode(pixels).latent_dist.mode()[0] * pipeline.vae.config.scaling_factor
    embeddings = [
        pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)[0][0]
        for prompt in prompts
    ]
    return latent, embeddings


@torch.inference_mode()
def classify(pipeline, picture, prompts, stages, keep, seed, loss="l2"):
    """The published staged search: errors {(prompt, t): error} and the index of the winner."""
    latent, embeddings = encode(pipeline, picture, prompts)
    grid_step = 1000 // stages[-1]
    grid = list(range(grid_step // 2, 1000, grid_step))[: stages[-1]]
    errors = {p: {} for p in range(len(prompts))}
    remaining, evaluated = list(errors), []
    for n, n_keep in zip(stages, keep, strict=True):
        stride = len(grid) // n
        for t in [t for t in grid[stride // 2 :: stride][:n] if t not in evaluated]:
            noise = keyed_noise(seed, len(evaluated), latent.shape)
            for p in remaining:
                errors[p][t] = row_error(pipeline, latent, noise, t, embeddings[p], loss)
            evaluated.append(t)
        means = {p: sum(errors[p].values()) / len(errors[p]) for p in remaining}
        remaining = sorted(remaining, key=means.get)[:n_keep]
    return errors, remaining[0]


@torch.inference_mode()
def full_errors(pipeline, picture, prompts, draws, loss="l2"):
    """Errors [prompt][draw] for a list of (timestep, noise)."""
    latent, embeddings = encode(pipeline, picture, prompts)
    return [
        [row_error(pipeline, latent, noise, t, embedding, loss) for t, noise in draws]
        for embedding in embeddings
    ]
