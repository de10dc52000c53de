"""Models of the Hub, without a Hub: what is asked of it, and what its errors become."""

from pathlib import Path

import diffusers
import huggingface_hub
import pytest
import torch
from huggingface_hub import errors as hub_errors

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.resolve import load_backend
from tests.support.pipelines import edit_index, sample_output, saved, tiny_sd


class Hub:
    """Answers for the Hub with one saved pipeline, and notes what it was asked."""

    def __init__(self, folder):
        self.folder = folder
        self.index_requests, self.snapshots, self.downloads = [], [], []
        self.error = None

    def hf_hub_download(self, name, filename, **options):
        if self.error is not None:
            raise self.error
        self.index_requests.append((name, filename, options))
        return str(self.folder / filename)

    def snapshot_download(self, name, **options):
        self.snapshots.append((name, options))
        return str(self.folder.parent)

    def download(self, name, **options):
        self.downloads.append((name, options))
        return str(self.folder)


@pytest.fixture
def hub(tmp_path, monkeypatch, empty_model_cache):
    hub = Hub(Path(saved(tiny_sd(), tmp_path / "model")))
    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(hub, name))
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", hub.download)
    return hub


@pytest.fixture
def loads(monkeypatch):
    """Calls of diffusers' from_pretrained: (name, options)."""
    calls = []

    def from_pretrained(cls, name, **options):
        calls.append((name, options))
        return tiny_sd()

    pipeline_class = diffusers.StableDiffusionPipeline
    monkeypatch.setattr(pipeline_class, "from_pretrained", classmethod(from_pretrained))
    return calls


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", r"someone/model is no folder.*spelling.*hf auth login"),
        (
            "GatedRepoError",
            r"gated.*accept its licence at https://huggingface\.co/someone/model.*hf auth login",
        ),
        ("RevisionNotFoundError", r"no such revision"),
        ("LocalEntryNotFoundError", r"no folder here, not in the cache.*connection"),
        ("OfflineModeIsEnabled", r"no folder here, not in the cache.*HF_HUB_OFFLINE"),
        ("RemoteEntryNotFoundError", r"no model_index\.json on the Hub.*from_single_file"),
    ],
)
def test_errors_of_the_hub_say_what_to_do(hub, kind, message):
    error = getattr(hub_errors, kind)
    hub.error = error.__new__(error, "told by the Hub")  # some want a server's response to be made
    with pytest.raises(OSError, match=message) as caught:
        load_backend("someone/model")
    assert caught.value.__cause__ is hub.error


def test_an_unreachable_hub_is_reported(tmp_path):
    with pytest.raises(OSError, match="someone/model is no folder here, not in the cache"):
        DiffusersBackend.from_pretrained("someone/model", cache_dir=tmp_path, local_files_only=True)


def test_the_index_is_asked_for_first_and_diffusers_downloads_the_rest(hub, loads):
    backend = DiffusersBackend.from_pretrained(
        "someone/model", revision="main", token="t", cache_dir="cache"
    )
    options = {"subfolder": None, "revision": "main", "token": "t", "cache_dir": "cache"}
    assert hub.index_requests == [("someone/model", "model_index.json", options)]
    ((name, asked),) = hub.downloads
    assert name == "someone/model"
    ((folder, passed),) = loads
    assert folder == str(hub.folder)
    for options in (asked, passed):
        assert (options["revision"], options["variant"], options["token"]) == ("main", None, "t")
        assert options["use_safetensors"] is True and options["safety_checker"] is None
        assert options["cache_dir"] == "cache"
    assert passed["dtype"] == torch.float32
    assert backend.pipeline.config["_name_or_path"] == "someone/model"
    assert repr(backend) == "DiffusersBackend(StableDiffusionPipeline, 'someone/model')"


def test_an_untrusted_index_is_refused_before_weights_are_asked_for(hub, loads):
    edit_index(hub.folder, unet=["my_module", "Evil"])
    with pytest.raises(ValueError, match="someone/model takes unet from 'my_module'"):
        load_backend("someone/model")
    assert loads == hub.downloads == []


def test_a_model_without_safetensors_is_refused(hub, monkeypatch):
    def download(name, **options):
        assert options["use_safetensors"] is True
        raise OSError("Could not find the necessary `safetensors` weights in {...}")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    with pytest.raises(
        ValueError, match=r"someone/model has no safetensors weights.*diffusion-classifier convert"
    ):
        load_backend("someone/model")


def test_a_subfolder_is_downloaded_alone(hub):
    backend = DiffusersBackend.from_pretrained("someone/model", subfolder="model", revision="r")
    ((name, options),) = hub.snapshots
    assert name == "someone/model" and options["revision"] == "r"
    assert options["allow_patterns"][:2] == ["model/model_index.json", "model/vae/*"]
    assert "*.bin" in options["ignore_patterns"]
    expected = sample_output(load_backend(hub.folder))
    torch.testing.assert_close(sample_output(backend), expected)
    assert backend.identity()["subfolder"] == "model"
