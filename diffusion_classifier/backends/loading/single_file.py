"""Whole models in one safetensors file, as Civitai and ComfyUI share them.

The file holds tensors under the names of the original code, and nothing else. A *config folder*
says the rest: ``model_index.json``, configurations, tokenizers and the scheduler, as in any
diffusers folder. diffusers' ``from_single_file`` translates the names. It leaves out, without a
word, tensors that the file lacks, so every network is compared with its configuration first. A
network that the file does not hold at all is read from the config folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ...errors import InputFileError, InputValueError
from ...utils.quiet import quiet
from .beside import check_whole
from .cache import LOADING
from .complete import LONGEST, check_loaded, complete_weights
from .files import check_files, check_ordinary, tensor_names
from .origin import Origin

AUTOENCODER = ("first_stage_model.", "vae.")  # how names of an autoencoder's tensors begin
FITS = "give the file and the config folder of the same model (config=), both whole"


def load_single_file(
    origin: Origin,
    folder: Path,
    classes: Mapping[str, type],
    needed: Sequence[str],
    left_out: Sequence[str],
    pipeline_class: Any,
) -> Any:
    """Load a pipeline whose networks are in a single file.

    Parameters
    ----------
    origin : Origin
    folder : Path
        Config folder.
    classes : mapping of str to type
        Of each component, checked to be expected.
    needed, left_out : sequence of str
        Components to load, and those to leave out.
    pipeline_class : type

    Returns
    -------
    diffusers.DiffusionPipeline

    Raises
    ------
    InputFileError, InputValueError
        If the file is damaged, lacks tensors, or is of another architecture than the folder.
    ImportError
        If accelerate is missing, without which diffusers hides missing tensors.
    """
    path = Path(origin.name)
    if find_spec("accelerate") is None:
        raise ImportError("single files need accelerate; install it: pip install accelerate.")
    if not hasattr(pipeline_class, "from_single_file"):
        raise InputValueError(
            f"{pipeline_class.__name__} cannot be read from a single file ({path}); give the "
            "folder that pipeline.save_pretrained(...) wrote."
        )
    check_ordinary(path)
    names = tensor_names(path)
    check_whole(path, names)
    given: dict[str, Any] = dict.fromkeys(left_out)
    inside = [name for name in needed if _holds(names, name, classes[name])]
    for name in needed:
        kind = classes[name]
        if name not in inside and issubclass(kind, torch.nn.Module) and not _weights(folder / name):
            raise InputFileError(
                f"{path} does not hold the {name}, and {folder / name} has no weights either "
                "(*.safetensors); give a config folder that holds them, or a file of the whole "
                "model."
            )
        check_files(folder, name, kind, None, weights=name not in inside)
    with quiet(progress_bars=False), complete_weights(folder, str(folder)):
        for name in set(needed) - set(inside):
            component: Any = classes[name]
            is_network = issubclass(component, torch.nn.Module)
            options = {"dtype": origin.dtype, "use_safetensors": True} if is_network else {}
            given[name] = component.from_pretrained(folder / name, **options)
    kind_name = pipeline_class.__name__
    with (
        quiet(progress_bars=False),
        _complete(path),
        _fitting(f"{path} cannot be read as the {kind_name} of {folder}"),
    ):
        pipeline = pipeline_class.from_single_file(
            str(path), config=str(folder), dtype=origin.dtype, local_files_only=True, **given
        )
    pipeline.register_to_config(_name_or_path=origin.name)
    return pipeline


def _holds(names: set[str], component: str, kind: type) -> bool:
    """Whether a file of these tensors holds a component."""
    from diffusers.loaders import single_file_utils

    if not issubclass(kind, torch.nn.Module):
        return False
    if component == "vae":
        return any(name.startswith(AUTOENCODER) for name in names)
    if not component.startswith("text_encoder"):
        return True
    if kind.__name__.startswith("T5"):
        return single_file_utils.is_t5_in_single_file(names)
    return single_file_utils.is_clip_model_in_single_file(kind, names)


def _weights(part: Path) -> bool:
    """Whether a component's folder holds weights that may be read."""
    return any(part.glob("*.safetensors"))


@contextmanager
def _fitting(what: str) -> Iterator[None]:
    """Turn whatever diffusers raises over a file of another model into an InputFileError."""
    try:
        yield
    except (ImportError, MemoryError, torch.OutOfMemoryError, InputFileError, InputValueError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:LONGEST]
        raise InputFileError(f"{what} ({type(error).__name__}: {reason}); {FITS}.") from error


@contextmanager
def _complete(path: Path) -> Iterator[None]:
    """Compare every network with the tensors that were translated for it, before they are set."""
    from diffusers.loaders import single_file_model, single_file_utils

    with LOADING, ExitStack() as restore:
        modules: tuple[Any, ...] = (single_file_model, single_file_utils)
        for module in modules:
            original: Any = module.load_model_dict_into_meta
            restore.callback(setattr, module, "load_model_dict_into_meta", original)
            module.load_model_dict_into_meta = _checked(original, path)
        yield


def _checked(fill: Any, path: Path) -> Any:
    """Wrap the function that fills a network with tensors, so that it compares them first."""

    def checked(network: Any, tensors: dict[str, Any], *args: Any, **options: Any) -> Any:
        expected = network.state_dict()
        tied = getattr(network, "_tied_weights_keys", None) or ()
        found = {
            "missing_keys": [key for key in expected if key not in tensors and key not in tied],
            "mismatched_keys": [
                (key,)
                for key, tensor in expected.items()
                if key in tensors and tuple(tensors[key].shape) != tuple(tensor.shape)
            ],
            "unexpected_keys": [key for key in tensors if key not in expected],
        }
        check_loaded(network, found, type(network).__name__, str(path), FITS)
        return fill(network, tensors, *args, **options)

    return checked
