"""How many rows go through a network at once, also when memory runs out."""

import gc
import weakref

import numpy as np
import pytest
import torch

from diffusion_classifier.errors import NetworkError
from diffusion_classifier.race.batches import BatchSize, encode_from, is_out_of_memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_automatic_batches_shrink_with_the_latent():
    stable_diffusion, scenes = 4 * 64 * 64, 4 * 8 * 8
    assert BatchSize.of_network("auto", CPU, scenes).rows == 128
    assert BatchSize.of_network("auto", CPU, stable_diffusion).rows == 2
    assert BatchSize.of_network("auto", CUDA, stable_diffusion).rows == 64
    assert BatchSize.of_network("auto", CUDA, 10**9).rows == 1


def lengths(batch, n_rows):
    """Lengths of the batches that so many rows are cut into, and of their padding."""
    found = []
    while n_rows:
        length = batch.next_batch(n_rows, batch.rows)
        found.append((length, batch.padded(length) - length))
        n_rows -= length
    return found


def test_automatic_batches_are_equally_long_and_have_no_padding():
    automatic = BatchSize.of_network("auto", CPU, 256)
    assert lengths(automatic, 3) == [(3, 0)]
    assert lengths(automatic, 128) == [(128, 0)]
    assert lengths(automatic, 260) == [(87, 0), (87, 0), (86, 0)]
    assert [BatchSize.of_encoder().padded(n) for n in (1, 3, 8)] == [1, 3, 8]


def test_networks_that_are_compiled_see_two_lengths():
    compiled = BatchSize.of_network("auto", CPU, 256, compiled=True)
    assert lengths(compiled, 260) == [(128, 0), (128, 0), (4, 28)]
    assert [compiled.padded(n) for n in (1, 3, 32, 33, 128)] == [32, 32, 32, 128, 128]


def test_a_batch_size_that_the_user_set_is_always_filled():
    assert lengths(BatchSize.of_network(20, CPU, 256), 45) == [(20, 0), (20, 0), (5, 15)]
    assert [BatchSize.of_encoder(20).padded(n) for n in (1, 8)] == [8, 8]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "big", True, None])
def test_impossible_batch_sizes_are_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        BatchSize.of_network(batch_size, CPU, 256)


def test_out_of_memory_is_recognised():
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def fits(most, asked):
    """A call that takes ``most`` rows at most, and notes what it is asked."""

    def call(rows):
        asked.append(rows)
        if rows > most:
            raise torch.OutOfMemoryError("out of memory")
        return rows

    return call


def test_a_call_that_runs_out_of_memory_is_made_again_with_half_the_rows():
    batch, asked = BatchSize(16), []
    assert batch.attempt(fits(5, asked)) == 4
    assert asked == [16, 8, 4]


def test_a_single_row_that_does_not_fit_is_an_error_of_the_network():
    with pytest.raises(NetworkError, match="out of memory with a single row"):
        BatchSize(4).attempt(fits(0, []))


@pytest.mark.parametrize("full", [1, 2, 64])
def test_runs_finish_near_the_full_size_when_memory_runs_out_at_random(full):
    for seed in range(20):
        random, batch, sizes = np.random.default_rng(seed), BatchSize(full), []

        def call(rows, random=random):
            if random.random() < 0.05:
                raise torch.OutOfMemoryError("out of memory")
            return rows

        sizes = [batch.attempt(call) for _ in range(2000)]
        assert np.mean(sizes) > 0.95 * full and sizes.count(full) > 1800


@pytest.mark.parametrize(("limit", "settled"), [(5, 4), (1, 1), (63, 32)])
def test_a_lasting_limit_is_retried_ever_more_rarely(limit, settled):
    batch, asked = BatchSize(64), []
    sizes = [batch.attempt(fits(limit, asked)) for _ in range(4000)]
    assert set(sizes) == {settled}
    failures = np.flatnonzero(np.array(asked) > limit)
    assert len(failures) < 20
    assert len(failures[failures > 1000]) <= 3


def test_the_full_size_returns_once_memory_does():
    batch, sizes, limit = BatchSize(16), [], 16
    for step in range(200):
        limit = 3 if 50 <= step < 70 else 16  # somebody else uses the device for a while
        sizes.append(batch.attempt(fits(limit, [])))
    assert set(sizes[:50]) == {16} and max(sizes[50:70]) == 2
    assert set(sizes[120:]) == {16}


def test_a_size_that_worked_is_tried_once_more():
    batch, asked = BatchSize(16), []
    batch.attempt(fits(16, asked))
    batch.attempt(fits(9, asked))
    assert asked == [16, 16, 16, 8]


def test_the_tensors_of_a_failed_call_are_free_before_the_next():
    tensors = []

    def call(rows):
        assert not any(tensor() is not None for tensor in tensors)
        held = torch.ones(rows)
        tensors.append(weakref.ref(held))
        if len(tensors) < 3:
            raise torch.OutOfMemoryError("out of memory")
        return rows

    assert BatchSize(16).attempt(call) == 4


def test_a_single_row_may_fail_now_and_then():
    batch, asked = BatchSize(1), []

    def call(rows):
        asked.append(rows)
        if len(asked) % 4:
            raise torch.OutOfMemoryError("out of memory")
        return rows

    assert [batch.attempt(call) for _ in range(3)] == [1, 1, 1] and len(asked) == 12


def test_other_errors_are_not_tried_again():
    def call(rows):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        BatchSize(4).attempt(call)


def test_images_are_encoded_in_smaller_batches_once_memory_runs_out():
    def encode(indices):
        if len(indices) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return torch.tensor(indices, dtype=torch.float32)[:, None]

    batch, found = BatchSize(8, padded_to_full=True), []
    while len(found) < 5:
        found += encode_from(encode, len(found), 5, batch)[:, 0].tolist()
    assert found == [0, 1, 2, 3, 4]


def test_tensors_of_a_failed_call_are_free_before_the_retry():
    alive_at_retry = []
    tensors = []

    def call(rows):
        alive_at_retry.append(sum(tensor() is not None for tensor in tensors))
        activations = torch.zeros(rows)
        tensors.append(weakref.ref(activations))
        try:
            if rows > 2:
                raise torch.OutOfMemoryError("out of memory")
        except torch.OutOfMemoryError as error:
            kept = error  # refers to this frame, which refers to it
            raise kept from None
        return rows

    gc.disable()
    try:
        assert BatchSize(8).attempt(call) == 2
    finally:
        gc.enable()
    assert alive_at_retry == [0, 0, 0]
