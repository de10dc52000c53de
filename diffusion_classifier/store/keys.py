"""What an error is kept by: the content of its image, prompt, draw and network.

Labels, pruners, weights and priors are no part of a key, so other label sets, budgets and
strategies find the same errors. Neither are the device and the batch size, on which an error
depends only up to rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..backends.base import Backend, Conditioning
from ..errors import InputValueError
from ..noise.draws import Draws
from ..noise.process import Process, process_of
from ..race.tape import DrawTape
from ..utils.display import short_repr

KINDS = ("network", "prompt", "tape")
KEY_BYTES, DRAW_BYTES = 16, 8
PLACE = ("name", "revision", "subfolder")  # where a network was loaded from


def digest(*parts: bytes | str, size: int = KEY_BYTES) -> bytes:
    """Return a hash of several parts; their borders count."""
    content = hashlib.blake2b(digest_size=size)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        content.update(len(data).to_bytes(8, "little"))
        content.update(data)
    return content.digest()


class Content(NamedTuple):
    """What a store keeps once and refers to: a network, a prompt or the draws of a race.

    Attributes
    ----------
    kind : {"network", "prompt", "tape"}
    text : str
        For networks, a second line says more than the key depends on.
    """

    kind: str
    text: str

    @property
    def key(self) -> bytes:
        """Hash by which the content is found and verified."""
        text = self.text.partition("\n")[0] if self.kind == "network" else self.text
        return digest(self.kind, text)


# ------------------------------------------------------------------ images


def picture_key(picture: Image.Image) -> bytes:
    """Return the key of a decoded and resized picture: a hash of its pixels."""
    return _sha256(f"picture {picture.mode} {picture.size}", picture.tobytes())


def array_key(values: Any, kind: str) -> bytes:
    """Return the key of one numeric input, a row or a latent; ``kind`` says which."""
    array = values.detach().cpu() if isinstance(values, Tensor) else torch.as_tensor(values)
    # as float64, because rows of integers and of floats with the same values are the same
    content = array.to(torch.float64).contiguous().numpy()
    return _sha256(f"{kind} {content.shape}", content.tobytes())


def _sha256(header: str, data: bytes) -> bytes:
    content = hashlib.sha256(header.encode())
    content.update(data)
    return content.digest()


# ------------------------------------------------------------------ prompts and networks


def prompt_contents(
    backend: Backend, condition: Conditioning, prompts: Sequence[str]
) -> list[Content]:
    """Return what identifies each prompt: its text or, for other networks, its condition.

    Parameters
    ----------
    backend : Backend
    condition : Conditioning of length P
    prompts : sequence of str of length P
    """
    if backend.text_conditional:
        return [Content("prompt", prompt) for prompt in prompts]
    tensors = {name: tensor.detach().cpu() for name, tensor in condition.tensors.items()}
    if set(tensors) == {"class_index"} and tensors["class_index"].ndim == 1:
        return [Content("prompt", f"class {index}") for index in tensors["class_index"].tolist()]
    return [
        Content("prompt", "condition " + _hash_tensors({n: t[p] for n, t in tensors.items()}).hex())
        for p in range(len(prompts))
    ]


def _hash_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    parts: list[bytes | str] = []
    for name, tensor in sorted(tensors.items()):
        array = tensor.to(torch.float64 if tensor.is_floating_point() else torch.int64)
        parts += [name, str(tuple(array.shape)), array.contiguous().numpy().tobytes()]
    return digest(*parts)


def network_content(backend: Backend, made_by: Mapping[str, Any]) -> Content:
    """Return what identifies the network, its dtype and schedule, the image format and the loss.

    Parameters
    ----------
    backend : Backend
    made_by : mapping
        Identity of the network, image format and loss.

    Raises
    ------
    InputValueError
        If the backend cannot say which network it is.
    """
    fingerprint = backend.fingerprint()
    if fingerprint is None:
        raise InputValueError(
            f"memory keeps errors by the network that made them, but {short_repr(backend)} cannot "
            "say which network it is. Give a FunctionBackend a name, name=..., and another Backend "
            "a method fingerprint(), or set memory=None."
        )
    process = type(process_of(backend.prediction_type))
    if process.__module__ != Process.__module__:
        raise InputValueError(
            f"memory cannot tell the process {process.__name__} from others that are registered as "
            f"{backend.prediction_type!r}; set memory=None."
        )
    described = {
        "made_by": {name: value for name, value in made_by.items() if name not in PLACE},
        "fingerprint": fingerprint,
        "dtype": str(backend.dtype),
        "input_kind": backend.input_kind,
        "prediction_type": backend.prediction_type,
        "alpha": backend.schedule.alpha.tolist(),
        "sigma": backend.schedule.sigma.tolist(),
    }
    texts = [json.dumps(value, sort_keys=True, default=str) for value in (described, dict(made_by))]
    return Content("network", "\n".join(texts))


# ------------------------------------------------------------------ draws


def draw_keys(draws: Draws) -> NDArray[np.uint64]:
    """Return the key of each draw: its timestep and its noise."""
    keys = []
    for j, t in enumerate(draws.timesteps.tolist()):
        if draws.fixed_noise is None:
            noise: tuple[bytes | str, ...] = (f"{draws.seed} {draws.noise_keys[j]}",)
        else:
            values = draws.fixed_noise[j].float().contiguous().numpy()
            noise = (f"fixed {values.shape}", values.tobytes())
        keys.append(digest(f"{t} {draws.signs[j]}", *noise, size=DRAW_BYTES))
    return np.frombuffer(b"".join(keys), np.dtype("<u8")).astype(np.uint64)


class TapeRecord(NamedTuple):
    """The draws of a race, as a store keeps them.

    Attributes
    ----------
    keys : ndarray of shape (J,), dtype uint64
    seed : int
    timesteps, density, round_of, antithetic : ndarray of shape (J,)
        See :class:`~diffusion_classifier.ErrorTable`.
    """

    keys: NDArray[np.uint64]
    seed: int
    timesteps: NDArray[np.int64]
    density: NDArray[np.float64]
    round_of: NDArray[np.int64]
    antithetic: NDArray[np.bool_]

    @classmethod
    def of(cls, tape: DrawTape, seed: int) -> Self:
        """Record all draws of a tape, which its budget limits."""
        rounds = list(tape)
        antithetic = [draws.antithetic for draws in rounds for _ in range(len(draws))]
        return cls(
            np.concatenate([draw_keys(draws) for draws in rounds]),
            seed,
            tape.timesteps.numpy(),
            tape.density.numpy(),
            tape.round_of.numpy(),
            np.array(antithetic),
        )

    def content(self) -> Content:
        """Return the record as a text."""
        values = {
            "keys": self.keys.astype("<u8").tobytes().hex(),
            "seed": self.seed,
            "timesteps": self.timesteps.tolist(),
            "density": self.density.tolist(),
            "round_of": self.round_of.tolist(),
            "antithetic": self.antithetic.astype(int).tolist(),
        }
        return Content("tape", json.dumps(values, separators=(",", ":")))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what :meth:`content` wrote."""
        values = json.loads(text)
        return cls(
            np.frombuffer(bytes.fromhex(values["keys"]), np.dtype("<u8")).astype(np.uint64),
            values["seed"],
            np.array(values["timesteps"], np.int64),
            np.array(values["density"], np.float64),
            np.array(values["round_of"], np.int64),
            np.array(values["antithetic"], bool),
        )
