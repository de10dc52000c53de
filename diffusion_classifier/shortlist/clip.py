r"""A shortlist made by CLIP, which compares pictures with texts in one forward pass each.

With unit vectors f(x) of a picture and g_c of a class, which averages those of its prompts,

    q(c | x) = softmax_c( s <f(x), g_c> ),       s the model's own scale.

The model is loaded by the rules of :mod:`diffusion_classifier.backends.loading`: weights are read
from safetensors only and must be complete, and no code from the folder runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..backends.loading.complete import complete_weights, explained_failure
from ..backends.loading.files import check_files
from ..backends.loading.load import explained_hub
from ..backends.loading.origin import HUB_ID, read_json
from ..backends.state.configs import hash_configs
from ..backends.state.weights import WeightSample
from ..errors import InputFileError, InputTypeError, InputValueError, MissingFileError
from ..images.latents import Latents
from ..images.loader import PictureLoader
from ..images.sequence import read_images
from ..utils.constraints import InstancesOf, Table
from ..utils.devices import resolve_device
from ..utils.display import short_repr
from ..utils.quiet import quiet
from .base import BaseShortlist, Model, Proposal

_BATCH = 32  # pictures or prompts
# of the pictures that CLIP was trained on, if a folder does not state its own
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_PREPROCESSOR = "preprocessor_config.json"


class ClipShortlist(BaseShortlist):
    """Race only the k classes whose texts CLIP finds closest to the picture.

    One pass of CLIP costs far less than one race. It needs no labelled images.

    Parameters
    ----------
    path_or_id : str or path-like
        Folder or Hub id of a CLIP model of transformers, such as
        ``"openai/clip-vit-large-patch14"``, with safetensors weights.
    k : int, default=10
        Number of candidates per image.
    prompts : template, list of templates or dict, default="a photo of a {}"
        How labels become texts; see ``prompts`` of ``DiffusionClassifier``. The embeddings of a
        class's texts are averaged.
    prior_strength : float or "learned", default=0.0
        How much of CLIP's log probabilities is added to the log priors of the race; "learned"
        finds it in ``fit(X, y)``.
    revision : str, optional
        Branch, tag or commit on the Hub; a commit pins the weights.
    device : str or torch.device, default="auto"
        "auto" is CUDA, else MPS, else the CPU.

    Attributes
    ----------
    text_features_ : Tensor of shape (n_classes, D), dtype float32
        Unit vectors of the classes.
    scale_ : float
        The model's scale of similarities.
    identity_ : dict
        Hashes of the model's configuration and weights. A model with others is refused.
    prior_strength_ : float
        The prior strength in use.

    Raises
    ------
    InputFileError, InputValueError
        In ``fit``, if the model cannot be loaded safely; when it predicts, if X holds latents or
        error tables, or the model has changed.

    References
    ----------
    A. Radford et al., "Learning transferable visual models from natural language supervision",
    ICML 2021, arXiv 2103.00020.

    Examples
    --------
    A shortlist of 10 for the classes of ImageNet::

        clf = DiffusionClassifier(
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            shortlist=ClipShortlist("openai/clip-vit-large-patch14", k=10),
        )

    >>> from diffusion_classifier.shortlist import ClipShortlist
    >>> ClipShortlist("owner/model", k=5)
    ClipShortlist(k=5, path_or_id='owner/model')
    """

    text_features_: Tensor
    scale_: float
    identity_: dict[str, Any]
    _constraints: ClassVar[Table] = {
        **BaseShortlist._constraints,
        "path_or_id": InstancesOf(str) | InstancesOf(os.PathLike),
        "revision": InstancesOf(str) | None,
    }

    def __init__(
        self,
        path_or_id: str | os.PathLike[str],
        k: int = 10,
        *,
        prompts: Any = "a photo of a {}",
        prior_strength: float | Literal["learned"] = 0.0,
        revision: str | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.path_or_id = path_or_id
        self.k = k
        self.prompts = prompts
        self.prior_strength = prior_strength
        self.revision = revision
        self.device = device

    def fit(self, X: Any, y: Any, model: Model) -> Self:
        clip = self._load()
        made = model.prompts_of(model.classes.tolist(), self.prompts, "a photo of a {}")
        features = clip.texts([prompt for of_class in made for prompt in of_class])
        parts = features.split([len(of_class) for of_class in made])
        self.text_features_ = F.normalize(torch.stack([part.mean(0) for part in parts]), dim=1)
        self.scale_ = clip.scale
        self.identity_ = clip.identity
        self.prior_strength_ = 0.0
        return self

    def propose(self, X: Any, model: Model, on_error: str = "raise") -> Proposal:
        if isinstance(X, Latents):
            raise InputTypeError(
                "ClipShortlist reads pictures, but X holds latents of another network; pass the "
                "pictures, or candidates= from clf.propose(pictures)."
            )
        clip = self._load()
        if clip.identity != self.identity_:
            raise InputValueError(
                f"{short_repr(str(self.path_or_id))} is not the CLIP model of fit: its "
                "configuration or weights have changed; restore it, or fit again."
            )
        images = read_images(X, check=on_error == "raise")
        rows = []
        with PictureLoader(images, clip.size, "crop", skip=on_error == "skip") as load:
            for start in range(0, len(images), _BATCH):
                batch = load(range(start, min(start + _BATCH, len(images))))
                rows.append(clip.pictures(batch) @ self.text_features_.T)
            skipped = dict(load.skipped)
        logits = self.scale_ * torch.cat(rows).double()
        log_proba = logits.log_softmax(1).numpy()
        log_proba[list(skipped)] = np.nan
        return Proposal(log_proba, sorted(skipped.items()))

    def _load(self) -> _Clip:
        """Load the model, once per process as long as its files do not change."""
        device = resolve_device(self.device)
        folder = _find(self.path_or_id, self.revision)
        files = (path for path in sorted(folder.iterdir()) if path.is_file())
        stamp = tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files)
        return _load(folder, device, stamp)


class _Clip(NamedTuple):
    """A loaded CLIP model."""

    network: Any
    tokenizer: Any
    mean: Tensor
    std: Tensor
    device: torch.device
    identity: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        side = int(self.network.config.vision_config.image_size)
        return side, side

    @property
    def scale(self) -> float:
        return float(self.network.logit_scale.exp())

    @torch.inference_mode()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Return unit vectors [P, D] of texts."""
        rows = []
        for start in range(0, len(prompts), _BATCH):
            batch = list(prompts[start : start + _BATCH])
            most = self.network.config.text_config.max_position_embeddings
            tokens = self.tokenizer(
                batch, padding=True, truncation=True, max_length=most, return_tensors="pt"
            ).to(self.device)
            rows.append(_unit(self.network.get_text_features(**tokens)))
        return torch.cat(rows).clone()

    @torch.inference_mode()
    def pictures(self, images: Tensor) -> Tensor:
        """Return unit vectors [B, D] of pictures [B, 3, H, W] in [-1, 1]."""
        pixels = ((images + 1) / 2 - self.mean) / self.std
        return _unit(self.network.get_image_features(pixel_values=pixels.to(self.device)))


def _unit(features: Any) -> Tensor:
    """Return unit vectors, on the CPU; later versions of transformers wrap them."""
    vectors = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(vectors.float().cpu(), dim=1)


def _find(path_or_id: str | os.PathLike[str], revision: str | None) -> Path:
    """Return the model's folder; a Hub id is downloaded, without anything that could be code."""
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return path.resolve()
    if not isinstance(path_or_id, str) or not HUB_ID.fullmatch(path_or_id):
        raise MissingFileError(
            f"no folder {str(path)!r}; give a folder that CLIPModel.save_pretrained wrote, or a "
            "Hub id 'owner/model'."
        )
    import huggingface_hub

    with explained_hub(path_or_id):
        return Path(
            huggingface_hub.snapshot_download(
                path_or_id,
                revision=revision,
                allow_patterns=["*.json", "*.txt", "model*.safetensors"],
            )
        )


@lru_cache(maxsize=2)
def _load(folder: Path, device: torch.device, stamp: Any) -> _Clip:
    """Check and load a CLIP model; ``stamp`` is the state of its files."""
    with quiet():
        from transformers import CLIPModel, CLIPTokenizer

    config = read_json(folder / "config.json", str(folder))
    if config.get("model_type") != "clip" or "auto_map" in config:
        raise InputValueError(
            f"config.json of {folder} is not that of a CLIP model of transformers (its model_type "
            f"is {short_repr(config.get('model_type'))}); give a folder or Hub id of one."
        )
    for kind in (CLIPModel, CLIPTokenizer):
        check_files(folder.parent, folder.name, kind, None)
    with (
        quiet(),
        torch.inference_mode(False),
        complete_weights(folder.parent, str(folder)),
        explained_failure(f"{folder} cannot be loaded as a CLIP model"),
    ):
        options: dict[str, Any] = {"local_files_only": True}
        network: Any = CLIPModel.from_pretrained(folder, use_safetensors=True, **options)
        tokenizer = CLIPTokenizer.from_pretrained(folder, **options)
    network.eval().requires_grad_(False)
    mean, std = _levels(folder)
    identity = {
        "config_sha256": hash_configs({"clip": network}),
        "weights": WeightSample.of(network.named_parameters()).digest(),
    }
    return _Clip(network.to(device), tokenizer, mean, std, device, identity)


def _levels(folder: Path) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each colour, [3, 1, 1]."""
    path = folder / _PREPROCESSOR
    stated = read_json(path, str(folder)) if path.is_file() else {}
    levels = []
    for name, default in (("image_mean", _MEAN), ("image_std", _STD)):
        values = stated.get(name, default)
        good = isinstance(values, list | tuple) and len(values) == 3
        if not good or not all(type(v) in (int, float) and abs(v) < 10 for v in values):
            raise InputFileError(f"{path} has {name}={short_repr(values)}, but needs 3 numbers.")
        levels.append(torch.tensor(values).view(3, 1, 1))
    if bool((levels[1] <= 0).any()):
        raise InputFileError(f"{path} has an image_std that is not positive.")
    return levels[0], levels[1]
