"""Pictures are decoded ahead of the network, once each, a bounded number at a time."""

import os
import signal
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.images import read_images, resize_image, to_tensor_batch
from diffusion_classifier.images.loader import DECODE_AHEAD, PictureLoader
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.race.batches import IMAGES_PER_ENCODING
from tests.support.image_examples import pictures, save_pictures

PATIENCE = 20  # seconds that a test waits for another thread before it fails


@pytest.fixture
def paths(tmp_path):
    return save_pictures(tmp_path)


def load(images, indices, size=None, mode="crop", **options):
    with PictureLoader(read_images(images), size, mode, **options) as loader:
        return loader(indices)


def decode_threads():
    return [t for t in threading.enumerate() if t.name.startswith("decode")]


class Decoder:
    """A column of pictures that notes which were decoded, and lets others wait for one."""

    def __init__(self, n_images, broken=()):
        self.n_images, self.broken = n_images, broken
        self.reads = []
        self.changed = threading.Condition()

    def __len__(self):
        return self.n_images

    def __getitem__(self, index):
        with self.changed:
            self.reads.append(index)
            self.changed.notify_all()
        if index in self.broken:
            raise OSError("half a file")
        return np.full((4, 4, 3), index, np.uint8)

    def wait_for(self, index):
        """Whether the picture is decoded before patience ends."""
        with self.changed:
            return self.changed.wait_for(lambda: index in self.reads, PATIENCE)


def classifier(network, **options):
    backend = FunctionBackend(
        lambda z, t, c: network(z),
        schedule=NoiseSchedule.flow(10),
        classes=["a", "b"],
        image_size=(4, 4),
    )
    options = {"pruner": NoPruning(2), "batch_size": 4, "random_state": 0, **options}
    return DiffusionClassifier(backend, **options).fit(None, ["a", "b"])


# ------------------------------------------------------------------ ahead


def test_pictures_are_decoded_while_the_network_computes():
    images, waited = Decoder(100), []

    def network(z):  # computes until a picture is there that nobody has asked for yet
        if not waited:
            waited.append(images.wait_for(IMAGES_PER_ENCODING + DECODE_AHEAD - 1))
        return z

    classifier(network).predict(images)
    assert waited == [True] and DECODE_AHEAD >= IMAGES_PER_ENCODING
    assert sorted(images.reads) == list(range(100))  # and none twice


def test_no_more_are_decoded_ahead_than_the_bound():
    images, seen = Decoder(100), []

    def network(z):
        seen.append(max(images.reads))
        return z

    with PictureLoader(read_images(images), (4, 4), "crop", ahead=5) as loader:
        for first in range(0, 100, 4):
            loader(range(first, first + 4))
            assert images.wait_for(min(first + 3 + 5, 99))
            assert max(images.reads) == min(first + 3 + 5, 99)
    assert sorted(images.reads) == list(range(100))
    # Through the estimator: four rows are one image, and eight images are encoded at a time.
    images.reads.clear()
    classifier(network).predict(images)
    assert all(
        read < IMAGES_PER_ENCODING * (step // IMAGES_PER_ENCODING + 1) + DECODE_AHEAD
        for step, read in enumerate(seen)
    )


def test_encoding_decodes_ahead_too(monkeypatch):
    images, waited = Decoder(60), []
    clf = classifier(lambda z: z)
    encode = FunctionBackend.encode_images

    def slow(self, batch):
        if not waited:
            waited.append(images.wait_for(IMAGES_PER_ENCODING + DECODE_AHEAD - 1))
        return encode(self, batch)

    monkeypatch.setattr(FunctionBackend, "encode_images", slow)
    latents = clf.encode(images)
    assert waited == [True] and sorted(images.reads) == list(range(60))
    assert latents.values[:, 0, 0, 0].mul(127.5).add(127.5).round().tolist() == list(range(60))


def test_smaller_batches_after_running_out_of_memory_decode_nothing_twice(monkeypatch):
    images = Decoder(50)
    encode = FunctionBackend.encode_images

    def small(self, batch):
        if len(batch) > 2:
            raise RuntimeError("out of memory")
        return encode(self, batch)

    monkeypatch.setattr(FunctionBackend, "encode_images", small)
    clf = classifier(lambda z: z, batch_size="auto")
    clf.predict(images)
    assert sorted(images.reads) == list(range(50))


# ------------------------------------------------------------------ errors and endings


@pytest.mark.parametrize("ask", ["predict", "encode", "errors"])
def test_a_picture_that_cannot_be_read_is_named_when_its_turn_comes(ask):
    images, n_rows = Decoder(60, broken=[30]), []
    clf = classifier(lambda z: n_rows.append(len(z)) or z)
    with pytest.raises(ValueError, match=r"image 30 cannot be read \(OSError\('half a file'\)\)"):
        getattr(clf, ask)(images)
    assert max(images.reads) > 30
    if ask != "encode":
        assert sum(n_rows) >= 4 * 20  # what came before it was computed
    assert not decode_threads()


def test_no_thread_is_left_when_the_network_fails_or_the_race_is_left_early():
    def fail(z):
        raise RuntimeError("no network today")

    with pytest.raises(RuntimeError, match="no network today"):
        classifier(fail).predict(Decoder(90))
    assert not decode_threads()
    images = Decoder(90)

    def stop(z):
        assert decode_threads()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classifier(stop).predict(images)
    assert not decode_threads()
    assert len(images.reads) <= 2 * IMAGES_PER_ENCODING + DECODE_AHEAD  # the rest was not begun


def test_a_broken_picture_beyond_those_asked_for_disturbs_nobody():
    assert load(Decoder(9, broken=[5]), [0, 1], ahead=7).shape == (2, 3, 4, 4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_process_forked_while_pictures_are_decoded_can_decode():
    inside, leave = threading.Event(), threading.Event()

    class Slow(Decoder):
        def __getitem__(self, index):
            inside.set()
            assert leave.wait(PATIENCE)
            return super().__getitem__(index)

    thread = threading.Thread(target=load, args=(Slow(3), [0]))
    thread.start()
    assert inside.wait(PATIENCE)
    threading.Timer(0.1, leave.set).start()  # forking waits for the picture under way
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        status = 1
        try:
            status = int(load(pictures(), [1]).shape != (1, 3, 7, 6))
        finally:  # never back into the tests
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()


# ------------------------------------------------------------------ batches


def test_a_batch_is_read_resized_and_stacked_in_order(paths):
    mixed = [*paths[:3], *pictures()[3:]]
    batch = load(mixed, [4, 0, 2, 0], (8, 8), "squash")
    expected = to_tensor_batch(
        [resize_image(pictures()[i], (8, 8), "squash") for i in (4, 0, 2, 0)]
    )
    assert torch.equal(batch, expected)


def test_a_batch_keeps_the_size_when_none_is_given(paths):
    assert torch.equal(load(paths, [1]), to_tensor_batch([pictures()[1]]))


def test_one_open_file_repeated_is_read_safely(paths):
    exif = Image.Exif()
    exif[0x0112] = 6
    big = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8))
    big.save(paths[0], exif=exif)
    batch = load([Image.open(paths[0])] * 16, range(16))
    assert batch.shape == (16, 3, 200, 300)
    assert (batch == batch[:1]).all()


def test_the_error_of_a_bad_file_is_passed_on(paths):
    paths[2].write_text("not a picture")
    with pytest.raises(ValueError, match=r"image 2: .* cannot be read"):
        load(paths, range(5))
