"""The engine: any mix of rows, in full batches, equal to one row at a time."""

import numpy as np
import pytest
import torch

from diffusion_classifier.backends import Backend, Conditioning
from diffusion_classifier.noise import PREDICTION_TYPES, NoiseSchedule
from diffusion_classifier.pruners import StagedPruner
from diffusion_classifier.race import DrawTape, Request, run_race
from diffusion_classifier.race.engine import Engine
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.scoring import Scoring

N_IMAGES, N_PROMPTS, SHAPE = 5, 4, (2, 3, 3)
LATENTS = torch.randn(N_IMAGES, *SHAPE, generator=torch.Generator().manual_seed(1))
WEIGHTS = torch.randn(N_PROMPTS, 18, generator=torch.Generator().manual_seed(2))


class TinyBackend(Backend):
    """output = tanh(z) * weight of the prompt + t / 100; notes the length of every batch."""

    schedule = NoiseSchedule.flow(100)

    def __init__(self, prediction_type="epsilon", memory=10**9, nan_at=None, dtype=torch.float32):
        self.prediction_type = prediction_type
        self.memory = memory
        self.nan_at = nan_at
        self.dtype = dtype
        self.batches = []
        self.encoded = []

    def encode_images(self, images):
        return images

    def encode_classes(self, labels, prompts):
        return Conditioning(weight=WEIGHTS)

    def forward(self, z, t, condition):
        assert z.dtype == self.dtype
        if len(z) > self.memory:
            raise torch.OutOfMemoryError(f"out of memory for {len(z)} rows")
        self.batches.append(len(z))
        output = torch.tanh(z) * condition["weight"].view(-1, *SHAPE) + t.view(-1, 1, 1, 1) / 100
        if self.nan_at is not None:
            output[t == self.nan_at] = torch.nan
        return output.to(self.dtype)

    def encode(self, indices):
        self.encoded.append(list(indices))
        return LATENTS[list(indices)]


def tape(n_draws=12, sampler=None):
    return DrawTape((sampler or StratifiedSampler(4)).rounds(TinyBackend.schedule, 0), n_draws)


def engine(backend, **options):
    condition = backend.encode_classes(None, None)
    return Engine(backend, condition, backend.encode, N_IMAGES, **options)


def requests(draws):
    """Images at different rounds, with different survivors."""
    return [
        Request(0, torch.arange(N_PROMPTS), [draws[0], draws[1]]),
        Request(3, torch.tensor([1, 3]), [draws[2]]),
        Request(4, torch.tensor([2]), [draws[0]]),
    ]


def one_by_one(backend, request):
    """Errors of a request from single rows and the definitions."""
    errors = []
    for prompt in request.prompts.tolist():
        row = []
        for draws in request.rounds:
            for t, eps in zip(draws.timesteps, draws.noise(SHAPE), strict=True):
                a, s = (level.item() for level in backend.schedule.at(t))
                x = LATENTS[request.image]
                z = a * x + s * eps
                output = backend.forward(z[None], t[None], Conditioning(weight=WEIGHTS[[prompt]]))[
                    0
                ]
                eps_hat = {
                    "epsilon": output,
                    "v_prediction": (a * output + s * z) / (a * a + s * s),
                    "sample": (z - a * output) / s,
                    "flow": (z + a * output) / (a + s),
                }[backend.prediction_type]
                row.append(((eps_hat - eps) ** 2).sum().item())
        errors.append(row)
    return np.array(errors)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("batch_size", [1, 5, 64, "auto"])
def test_any_mix_of_rows_equals_one_row_at_a_time(kind, batch_size):
    backend, draws = TinyBackend(kind), tape()
    wanted = requests(draws)
    for request, errors in zip(
        wanted, engine(backend, batch_size=batch_size).evaluate(wanted), strict=True
    ):
        assert errors.dtype == torch.float32
        np.testing.assert_allclose(errors, one_by_one(backend, request), rtol=2e-5)


def test_batches_have_one_size_and_the_last_is_padded():
    backend, draws = TinyBackend(), tape()
    n_rows = sum(r.n_rows for r in requests(draws))
    engine(backend, batch_size=16).evaluate(requests(draws))
    assert backend.batches == [16] * -(-n_rows // 16)
    backend = TinyBackend()
    automatic = engine(backend)
    automatic.evaluate(requests(draws))
    assert backend.batches == [n_rows]
    assert automatic.rows_wanted >= 8 * 44


def test_device_and_dtype_are_looked_up_once():
    """A pipeline finds them by a walk through all its modules."""
    looked = []

    class Walking(TinyBackend):
        @property
        def device(self):
            looked.append("device")
            return torch.device("cpu")

        @property
        def dtype(self):
            looked.append("dtype")
            return torch.float32

        @dtype.setter
        def dtype(self, dtype):
            pass

    backend, draws = Walking(), tape()
    source = engine(backend)
    for _ in range(3):
        source.evaluate(requests(draws))
    assert looked.count("device") == 1
    # this network looks at its dtype itself, once per batch and once in its output
    assert looked.count("dtype") == 1 + 2 * 3


def test_results_are_equal_to_the_bit_in_other_company():
    draws = tape()
    together = engine(TinyBackend(), batch_size=8).evaluate(requests(draws))
    for request, errors in zip(requests(draws), together, strict=True):
        alone = engine(TinyBackend(), batch_size=8).evaluate([request])[0]
        assert torch.equal(alone, errors)


def test_evaluations_are_counted_without_padding():
    counts, draws = [], tape()
    engine(TinyBackend(), batch_size=16, on_evaluations=counts.append).evaluate(requests(draws))
    assert counts == [4 * 8 + 2 * 4 + 4]


def test_memory_running_out_halves_the_batch_and_loses_nothing():
    draws = tape()
    roomy = engine(TinyBackend(), batch_size=32).evaluate(requests(draws))
    backend = TinyBackend(memory=10)
    tight_engine = engine(backend, batch_size=32)
    tight = tight_engine.evaluate(requests(draws))
    assert set(backend.batches) == {8}
    for a, b in zip(roomy, tight, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    tight_engine.evaluate(requests(draws))
    assert set(backend.batches) == {8}  # it does not try 32 again


def test_memory_running_out_at_random_loses_neither_errors_nor_speed():
    draws = tape()
    expected = engine(TinyBackend(), batch_size=8).evaluate(requests(draws))
    random = np.random.default_rng(0)
    backend = TinyBackend()
    forward = backend.forward

    def unreliable(z, t, condition):
        if random.random() < 0.05:
            raise torch.OutOfMemoryError("out of memory")
        return forward(z, t, condition)

    backend.forward = unreliable
    restless = engine(backend, batch_size=8)
    for _ in range(40):
        for a, b in zip(expected, restless.evaluate(requests(draws)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    assert np.mean(backend.batches) > 0.95 * 8


def test_memory_too_small_for_one_row_is_an_error_with_advice():
    with pytest.raises(RuntimeError, match="single row; use a smaller image_size"):
        engine(TinyBackend(memory=0), batch_size=4).evaluate(requests(tape()))


def test_nan_names_timestep_dtype_image_and_prompt():
    draws = tape()
    t = int(draws[2].timesteps[1])
    backend = TinyBackend(nan_at=t, dtype=torch.float16)
    with pytest.raises(
        FloatingPointError, match=rf"timestep {t} in torch.float16 \(image 3, prompt 1, 2"
    ):
        engine(backend).evaluate(requests(draws)[1:])


def test_half_precision_outputs_give_float32_errors():
    draws = tape()
    exact = engine(TinyBackend()).evaluate(requests(draws))
    half = engine(TinyBackend(dtype=torch.bfloat16)).evaluate(requests(draws))
    for a, b in zip(exact, half, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0)


def test_images_are_encoded_once_ahead_and_forgotten_when_released():
    backend = TinyBackend()
    source = engine(backend)
    for image in range(N_IMAGES):
        assert torch.equal(source.latent(image), LATENTS[image])
    assert [sorted(set(chunk)) for chunk in backend.encoded] == [list(range(N_IMAGES))]
    source.release(0)
    source.latent(0)
    assert len(backend.encoded) == 2


def test_images_held_do_not_grow_with_their_number():
    held = {}

    def encode(indices):
        encoded.update(indices)
        return LATENTS[torch.tensor(indices) % N_IMAGES]

    class Watched(Engine):
        def release(self, image):
            released.add(image)
            super().release(image)

    for n_images in (40, 160):
        encoded, released = set(), set()
        source = Watched(
            TinyBackend(),
            Conditioning(weight=WEIGHTS),
            encode,
            n_images,
            batch_size=4,
        )
        pruner = StagedPruner((4,), (2,), max_draws=12)
        scores = Scoring(torch.ones(100).double(), torch.zeros(4).double(), torch.arange(4))
        most = 0
        for _ in run_race(source, tape(), pruner, scores, range(n_images)):
            most = max(most, len(encoded - released))
        held[n_images] = most
    assert held[40] == held[160] <= 16
