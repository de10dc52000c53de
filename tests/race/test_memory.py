"""Batch sizes by the memory of a device: a simulated one, which runs out as a real one does."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from peft import LoraConfig

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, FunctionBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.race import memory as room
from diffusion_classifier.race.batches import BatchSize
from diffusion_classifier.race.memory import (
    CudaMeter,
    Memory,
    Traffic,
    Usage,
    memory_of,
    settings_of,
)
from tests.support.pipelines import tiny_sd

CUDA = torch.device("cuda")


class Card:
    """A device on which a call takes ``base`` bytes and ``per_row`` for each row."""

    def __init__(self, total=1000, base=100, per_row=10, held=0):
        self.total, self.base, self.per_row, self.held = total, base, per_row, held
        self.asked = []

    def free(self):
        return self.total - self.held

    def start(self):
        self.most = 0

    def peak(self):
        return self.most

    def call(self, rows):
        """Compute a batch of so many rows, if they fit."""
        self.asked.append(rows)
        need = self.base + self.per_row * rows
        if need > self.free():
            raise torch.OutOfMemoryError("out of memory")
        self.most = max(getattr(self, "most", 0), need)
        return rows


def batch_on(card, usage, rows=128, **options):
    return BatchSize(rows, memory=Memory(card, usage), **options)


def test_two_short_batches_tell_how_many_rows_fit():
    card, usage = Card(total=1000), Usage(warm=True)
    batch = batch_on(card, usage)
    for _ in range(4):
        batch.attempt(card.call)
    # (0.9 x 1,000 - 100) / 10 rows
    assert card.asked == [8, 32, 80, 80] and usage.peaks == {8: 180, 32: 420}


def test_a_first_call_also_loads_weights_and_is_not_measured():
    card, usage = Card(total=1000), Usage()
    batch = batch_on(card, usage)

    def call(rows):
        card.base = 500 if not card.asked else 100
        return card.call(rows)

    for _ in range(4):
        batch.attempt(call)
    assert card.asked == [8, 8, 32, 80] and usage.peaks == {8: 180, 32: 420}


def test_short_predictions_grow_back_too():
    card, usage = Card(total=10**6), Usage({8: 180, 32: 420}, warm=True, measured=True)
    card.held = 10**6 - 1000
    batch_on(card, usage).attempt(card.call)
    usage.peaks = {8: 8, 32: 32}  # too little: the next call fails
    batch_on(card, usage).attempt(card.call)
    card.held = 0
    card.asked.clear()
    for _ in range(12):
        batch_on(card, usage).attempt(card.call)
    assert card.asked[-1] == 128


def test_a_size_that_the_user_set_and_a_chosen_one_do_not_share_failures():
    card, usage = Card(total=1000, base=0, per_row=16), Usage(warm=True, measured=True)
    batch_on(card, usage).attempt(card.call)
    assert card.asked == [128, 64, 32]
    card.total = 10**6
    card.asked.clear()
    batch_on(card, usage, padded_to_full=True).attempt(card.call)
    assert card.asked == [128]
    other = Usage(warm=True)
    card.total = 1000
    batch_on(card, other, padded_to_full=True).attempt(card.call)
    assert not other.measured


def test_rows_beyond_those_wanted_are_not_asked_for():
    card = Card(total=10**6)
    batch = batch_on(card, Usage(warm=True))
    assert [batch.attempt(card.call) for _ in range(3)] == [8, 32, 128]


def test_a_second_prediction_neither_measures_nor_fails_again():
    card, usage = Card(total=1000, base=0, per_row=16), Usage(warm=True)
    usage.peaks, usage.measured = {8: 8, 32: 32}, True  # far too little: 128 rows would not fit
    first = batch_on(card, usage)
    first.attempt(card.call)
    assert card.asked == [128, 64, 32]
    card.asked.clear()
    second = batch_on(card, usage)
    assert second.attempt(card.call) == 32 and card.asked == [32]


def test_a_second_prediction_asks_for_what_is_free_then():
    card, usage = Card(), Usage(warm=True)
    for _ in range(3):
        batch_on(card, usage).attempt(card.call)
    card.held = 500  # 35 rows: (0.9 x 500 - 100) / 10
    assert batch_on(card, usage).attempt(card.call) == 35
    assert card.asked == [8, 32, 80, 35]


def test_the_size_grows_again_when_others_leave_the_device():
    card, usage = Card(total=2000), Usage(warm=True)
    for _ in range(2):
        batch_on(card, usage).attempt(card.call)
    card.held, card.asked = 1400, []
    batch = batch_on(card, usage)
    for step in range(100):
        card.held = 1400 if step < 20 else 0
        batch.attempt(card.call)
    assert set(card.asked[:20]) == {44} and card.asked[32:] == [128] * 68


def test_a_first_measurement_that_fails_is_not_made_again():
    card, usage = Card(total=250), Usage(warm=True)  # 15 rows; the second size is 32
    batch = batch_on(card, usage)
    for _ in range(3):
        batch.attempt(card.call)
    assert card.asked[:3] == [8, 32, 16] and min(card.asked[3:]) == 8
    card.asked.clear()
    batch_on(card, usage).attempt(card.call)
    assert card.asked[0] <= 15


@pytest.mark.parametrize(
    ("peaks", "fitting"),
    [
        ({}, 128),
        ({8: 80}, 90),  # one size alone: all of it is due to the rows
        ({8: 500, 32: 420}, 68),  # the first call loaded kernels: only the larger one counts
        ({8: 0, 32: 0}, 128),
        ({1: 2000, 4: 8000}, 1),  # a single row is always tried
    ],
)
def test_odd_measurements_are_read_cautiously(peaks, fitting):
    assert Memory(Card(), Usage(peaks)).fitting(128) == fitting


def test_compiled_networks_are_measured_at_a_length_that_they_need_anyway():
    card, usage = Card(total=10**6), Usage(warm=True)
    batch = batch_on(card, usage, two_lengths=True)
    sizes = [batch.attempt(lambda rows: card.call(batch.padded(rows))) for _ in range(3)]
    assert sizes == [32, 128, 128] and usage.peaks == {32: 420}


def test_a_size_that_the_user_set_is_not_measured_but_remembered_when_it_fails():
    card, usage = Card(total=1000), Usage(warm=True)
    batch_on(card, usage, padded_to_full=True).attempt(card.call)
    assert card.asked == [128, 64]
    batch_on(card, usage, padded_to_full=True).attempt(card.call)
    assert card.asked == [128, 64, 64]


def beside(card, first, second):
    """Run a batch of ``first`` while another thread runs one of ``second``; return both sizes."""
    sizes = []

    def call(rows):
        with ThreadPoolExecutor(1) as pool:
            card.most += 1000  # what the other call takes, on the same device
            sizes.append(pool.submit(second.attempt, lambda n: n).result())
        return card.call(rows)

    return first.attempt(call), *sizes


def test_threads_that_share_a_network_do_not_disturb_each_others_measurement():
    card, usage, traffic = Card(total=1000), Usage(warm=True), Traffic()
    starts, start = [], card.start
    card.start = lambda: (starts.append(1), start())
    first, second = (BatchSize(128, memory=Memory(card, usage, traffic)) for _ in range(2))
    for step in range(3):
        assert beside(card, first, second) == (8, 8)
        # The other thread reset no peak, and a peak that holds its memory is not kept.
        assert len(starts) == step + 1 and not usage.peaks and not usage.measured
    assert [first.attempt(card.call) for _ in range(3)] == [8, 32, 80]
    assert usage.peaks == {8: 180, 32: 420}
    assert second.attempt(card.call) == 80


def test_a_device_that_is_never_left_alone_is_measured_as_it_is():
    card, usage, traffic = Card(total=1000), Usage(warm=True), Traffic()
    first, second = (BatchSize(128, memory=Memory(card, usage, traffic)) for _ in range(2))
    sizes = [beside(card, first, second)[0] for _ in range(11)]
    assert sizes[:10] == [8] * 9 + [32] and usage.measured
    assert usage.peaks == {8: 1000, 32: 1000}


def test_threads_that_start_at_once_end_with_the_same_size():
    card, usage, traffic = Card(total=1000), Usage(warm=True), Traffic()

    def work(_):
        batch = BatchSize(128, memory=Memory(card, usage, traffic))
        return [batch.attempt(lambda rows: rows) for _ in range(200)]

    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(work, range(8)))
    assert usage.measured and {one[-1] for one in sizes} == {128}


def transformer_block(unet):
    return next(part for part in unet.modules() if hasattr(part, "set_chunk_feed_forward"))


@pytest.mark.parametrize(
    "change",
    [
        lambda pipeline: pipeline.vae.enable_tiling(),
        lambda pipeline: pipeline.vae.enable_slicing(),
        lambda pipeline: setattr(pipeline.vae, "tile_sample_min_size", 64),
        lambda pipeline: pipeline.unet.set_attention_slice(1),
        lambda pipeline: pipeline.unet.set_default_attn_processor(),
        lambda pipeline: transformer_block(pipeline.unet).set_chunk_feed_forward(1, 1),
        lambda pipeline: pipeline.unet.enable_gradient_checkpointing(),
        lambda pipeline: add_hook_to_module(pipeline.unet.conv_in, ModelHook()),
        lambda pipeline: pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"])),
    ],
)
def test_what_is_switched_in_a_network_is_measured_anew(change, measured):
    backend = DiffusersBackend(tiny_sd())
    known = memory_of(backend, CUDA, "forward").usage
    assert memory_of(backend, CUDA, "forward").usage is known
    change(backend.pipeline)
    assert memory_of(backend, CUDA, "forward").usage is not known


def test_counts_of_a_networks_own_and_a_switched_adapter():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    before = settings_of(network)
    network.n_calls = 3
    assert settings_of(network) == before
    network[0]._active_adapter = ["style"]
    assert settings_of(network) != before
    assert settings_of(lambda z, t, k: z) is None


class Network(torch.nn.Module):
    """Takes the card's memory, and predicts nothing."""

    def __init__(self, card):
        super().__init__()
        self.card = card

    def forward(self, z, t, index):
        self.card.call(len(z))
        return z * index.view(-1, 1, 1, 1)


@pytest.fixture
def measured(monkeypatch):
    """A CPU whose memory is that of a card; and one for the encoder of images."""
    card = Card(total=1000)
    monkeypatch.setattr(room, "meter_of", lambda device: card)
    monkeypatch.setattr("diffusion_classifier.race.engine.meter_of", lambda device: card)
    return card


def classifier(card):
    encoded = []

    def encode(images):
        encoded.append(len(images))
        return images

    backend = FunctionBackend(
        Network(card),
        encode=encode,
        schedule=NoiseSchedule.flow(100),
        input_shape=(4, 8, 8),
        input_kind="array",
    )
    clf = DiffusionClassifier(backend, pruner=NoPruning(20), random_state=0, verbose=0)
    return clf.fit(None, [0, 1, 2]), encoded


def test_predictions_measure_the_network_and_the_encoder_once(measured):
    clf, encoded = classifier(measured)
    X = np.random.default_rng(0).normal(size=(20, 4, 8, 8)).astype(np.float32)
    expected = clf.errors(X).errors
    first, encodings = list(measured.asked), list(encoded)
    measured.asked.clear(), encoded.clear()
    np.testing.assert_allclose(clf.errors(X).errors, expected, rtol=1e-6)
    assert first[:3] == [8, 8, 32] and sum(first) == 20 * 3 * 20
    assert 70 <= max(first) <= 80 and 70 <= min(measured.asked) <= max(measured.asked) <= 80
    # The first image tells the size of all, the next call loads what it needs; then 1 and 2 are
    # measured, apart from the network.
    assert encodings == [1, 1, 1, 2, 8, 7] and encoded == [1, 8, 8, 3]


def test_what_is_known_lives_as_long_as_the_network(measured):
    clf, _ = classifier(measured)
    clf.predict(np.zeros((4, 4, 8, 8), np.float32))
    gc.collect()  # networks of other tests
    before = len(room._USAGES)
    assert before
    del clf
    gc.collect()
    assert len(room._USAGES) == before - 1


def test_networks_that_cannot_be_referred_to_weakly_are_measured_every_time(measured):
    backend = FunctionBackend(
        NoReference(), schedule=NoiseSchedule.flow(10), input_shape=(2,), input_kind="array"
    )
    usages = [memory_of(backend, CUDA, "forward").usage for _ in range(2)]
    assert usages[0] is not usages[1]


class NoReference:
    __slots__ = ()

    def __call__(self, z, t, index):
        return z


def test_the_memory_of_a_cpu_is_not_measured():
    clf, _ = classifier(Card(total=10**9))
    assert memory_of(clf.backend_, torch.device("cpu"), "forward") is None


def test_free_memory_counts_idle_blocks_and_the_share_of_the_process(monkeypatch):
    numbers = {
        "mem_get_info": (600, 1000),
        "memory_reserved": 300,
        "memory_allocated": 250,
        "get_per_process_memory_fraction": 1.0,
        "max_memory_allocated": 290,
        "reset_peak_memory_stats": None,
    }
    for name in numbers:
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name: numbers[name])
    meter = CudaMeter(CUDA)
    assert meter.free() == 600 + 50
    meter.start()
    assert meter.peak() == 40
    numbers["get_per_process_memory_fraction"] = 0.5
    assert meter.free() == 200 + 50
