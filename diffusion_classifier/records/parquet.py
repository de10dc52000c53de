"""Error tables as Parquet files, which common data tools can read.

The file has one row per image and prompt, with columns ``image``, ``label``, ``prompt``,
``active``, ``n_draws`` and ``errors``: the list of the prompt's errors on its first ``n_draws``
draws. If images had candidates, ``candidate`` says whether the row's class was one, and
``log_proposal`` its log probability by the proposer, if there was one. What all rows share
(timesteps, weights, priors, schedule, ...) is stored as JSON in the file's metadata; see
:mod:`diffusion_classifier.records.header`.

Other tools may sort or edit rows. They are read by their image and prompt, in any order, and a row
that is missing, repeated or of an unknown prompt is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedFileError, InputError, InputFileError, MissingFileError
from ..scoring.candidates import Candidates
from ..utils.display import short_repr
from ..utils.files import atomic_file
from .header import Header

Made = TypeVar("Made")

_KEY = b"diffusion_classifier"
# A table in memory may be this much larger than its file, or have this many bytes, whatever the
# file declares. Errors are hardly compressible, so ordinary tables stay far below.
_MOST_EXPANSION = 1000
_SMALL = 2**28


def write_parquet(
    path: str | os.PathLike[str],
    errors: NDArray[np.float32],
    active: NDArray[np.bool_],
    header: Header,
    candidates: Candidates | None = None,
) -> None:
    """Write the fields of an error table to a file.

    Parameters
    ----------
    path : str or path-like
    errors : ndarray of shape (N, P, J)
    active : ndarray of shape (N, P)
    header : Header
    candidates : Candidates, optional

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    InputFileError
        If the file cannot be written.
    """
    pa, pq = _import_pyarrow()
    n_images, n_prompts, _ = errors.shape
    setup = header.setup
    evaluated = ~np.isnan(errors)
    n_draws = evaluated.sum(2).ravel()
    offsets = np.concatenate([[0], n_draws.cumsum()])
    labels = setup.classes[np.tile(setup.scoring.class_of.numpy(), n_images)]
    columns = {
        "image": np.repeat(np.arange(n_images), n_prompts),
        "label": pa.array(labels.tolist()),
        "prompt": pa.array(setup.prompts * n_images, pa.string()),
        "active": active.ravel(),
        "n_draws": n_draws,
        "errors": pa.LargeListArray.from_arrays(offsets, errors[evaluated]),
    }
    if candidates is not None:
        class_of = setup.scoring.class_of.numpy()
        columns["candidate"] = candidates.mask[:, class_of].ravel()
        if candidates.log_proba is not None:
            columns["log_proposal"] = candidates.log_proba[:, class_of].ravel()
    rows = pa.table(columns).replace_schema_metadata({_KEY: header.to_json()})
    with atomic_file(path) as file:
        pq.write_table(rows, file, write_page_checksum=True)


def read_parquet(path: str | os.PathLike[str], make: Callable[..., Made]) -> Made:
    """Read an error table that :func:`write_parquet` wrote.

    Parameters
    ----------
    path : str or path-like
    make : callable
        Makes the table from its fields.

    Returns
    -------
    ErrorTable

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    MissingFileError
        If there is no such file.
    InputFileError
        If it is not a regular file.
    DamagedFileError
        If it is not the file of an error table, or rows are missing, repeated or inconsistent.
    """
    pa, pq = _import_pyarrow()
    with _naming(path, pa), _open(path) as file:
        parquet = pq.ParquetFile(file)
        metadata = parquet.schema_arrow.metadata or {}
        if _KEY not in metadata:
            raise DamagedFileError(
                f"{path} holds no ErrorTable; write one with ErrorTable.to_parquet."
            )
        header = Header.from_json(metadata[_KEY])
        _check_size(parquet.metadata, header, os.fstat(file.fileno()).st_size)
        columns = _columns(parquet.schema_arrow, pa, header)
        # Texts stay encoded: one long prompt repeated in every row would fill the memory.
        options = {"read_dictionary": ["label", "prompt"], "page_checksum_verification": True}
        rows = _Rows(pq.ParquetFile(file, **options).read(columns), header)
        shared = {"setup": header.setup, "skipped": header.skipped}
        return make(**rows.dense(), **header.per_draw, **shared)


@contextmanager
def _naming(path: str | os.PathLike[str], pa: Any) -> Iterator[None]:
    """Turn whatever a damaged file raises into an error that names the file."""
    try:
        yield
    except InputFileError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except InputError as error:
        raise DamagedFileError(f"{path}: {error}") from error
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise DamagedFileError(
            f"{path} cannot be read as an ErrorTable ({short_repr(str(error))}); write it again."
        ) from error


def _open(path: str | os.PathLike[str]) -> Any:
    """Open a regular file, or a link to one; a pipe or device would never end."""
    file = Path(path)
    if not file.exists():
        raise MissingFileError(f"{path} does not exist.")
    if not file.is_file():
        raise InputFileError(f"{path} is no file; pass one that ErrorTable.to_parquet wrote.")
    return file.open("rb")


def _check_size(metadata: Any, header: Header, file_size: int) -> None:
    """Raise if a file declares more than it can hold, before memory is taken for it."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    values = sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
    n_rows, n_draws = metadata.num_rows, header.n_draws
    n_bytes = 8 * max(values, n_rows * n_draws)
    if n_bytes > max(_SMALL, _MOST_EXPANSION * file_size):
        raise DamagedFileError(
            f"the file has {file_size:,} bytes, but declares {n_rows} rows of {n_draws} draws and "
            f"{values} values, which need {n_bytes:,} bytes of memory."
        )


def _columns(schema: Any, pa: Any, header: Header) -> list[str]:
    """Return the names of the columns; raise unless they have the types that are written."""
    text = (pa.types.is_string, pa.types.is_large_string)
    kinds: dict[str, Sequence[Any]] = {
        "image": (pa.types.is_integer,),
        "label": (*text, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean),
        "prompt": text,
        "active": (pa.types.is_boolean,),
        "n_draws": (pa.types.is_integer,),
        "errors": (pa.types.is_list, pa.types.is_large_list),
    }
    if header.prior_strength is not None:
        kinds["candidate"] = (pa.types.is_boolean,)
        if "log_proposal" in schema.names:
            kinds["log_proposal"] = (pa.types.is_float64,)
    for name, known in kinds.items():
        fields = schema.get_all_field_indices(name)
        if len(fields) != 1:
            raise DamagedFileError(f"there are {len(fields)} columns {name!r} instead of one.")
        found = schema.field(name).type
        if name in ("label", "prompt") and pa.types.is_dictionary(found):
            found = found.value_type
        good = any(is_kind(found) for is_kind in known)
        if good and name == "errors":
            good = found.value_type in (pa.float32(), pa.float64())
        if not good:
            raise DamagedFileError(f"column {name!r} has type {short_repr(str(found))}.")
    return list(kinds)


class _Rows:
    """The rows of a file, in the order of images and prompts.

    Parameters
    ----------
    table : pyarrow.Table
    header : Header
    """

    def __init__(self, table: Any, header: Header) -> None:
        self.header = header
        for name in table.column_names:
            if table[name].null_count:
                row = table[name].is_null().to_numpy().argmax()
                raise DamagedFileError(f"row {row} has no value in column {name!r}.")
        places = self._places(table)
        self.numbers = np.argsort(places, kind="stable")  # rows of the file, in order
        if (np.diff(places) < 0).any():
            table = table.take(self.numbers)
        self.table = table
        self._check_labels()

    def _places(self, table: Any) -> NDArray[np.int64]:
        """Return each row's place among images and prompts; raise unless each is taken once."""
        prompts = self.header.setup.prompts
        text, code = _encoded(table["prompt"])
        image = table["image"].to_numpy().astype(np.int64)

        def name_of(row: int) -> str:
            return f"row {row} (image {image[row]}, prompt {short_repr(text[code[row]])})"

        slots: dict[str, list[int]] = {}
        for p, prompt in enumerate(prompts):
            slots.setdefault(prompt, []).append(p)
        known = np.array([t in slots for t in text], bool)[code]
        _refuse(~known, lambda row: f"{name_of(row)} has a prompt that the header does not list.")
        most = np.inf if self.header.n_images is None else self.header.n_images
        outside = (image < 0) | (image >= most)
        _refuse(outside, lambda row: f"{name_of(row)} is of an image that the table does not have.")
        nth = _nth_of_its_kind(image, code)
        # A class may list a prompt twice. Its rows then take both places, in their order.
        of_text = np.full((len(text), max(map(len, slots.values())) + 1), -1)
        for i, numbers in enumerate(map(slots.__getitem__, text)):
            of_text[i, : len(numbers)] = numbers
        column = of_text[code, nth.clip(max=of_text.shape[1] - 1)]
        _refuse(column < 0, lambda row: f"{name_of(row)} repeats an earlier row.")
        n_images = -(-len(image) // len(prompts))
        places = image.clip(max=n_images) * len(prompts) + column
        taken = np.zeros((n_images + 1) * len(prompts), bool)
        taken[places] = True
        n_needed = n_images * len(prompts)
        if self.header.n_images is not None and self.header.n_images > n_images:
            n_needed += 1  # an image of which there is no row
        _refuse(
            ~taken[:n_needed],
            lambda place: (
                f"the row of image {place // len(prompts)}, prompt "
                f"{short_repr(prompts[place % len(prompts)])} is missing."
            ),
        )
        return places

    def _check_labels(self) -> None:
        """Raise unless each row has the label of its prompt's class."""
        setup = self.header.setup
        known = setup.classes.tolist()
        labels, code = _encoded(self.table["label"])
        number = {label: k for k, label in enumerate(known)}
        found = np.array([number.get(label, -1) for label in labels], int)[code]
        asked = np.resize(setup.scoring.class_of.numpy(), len(found))
        _refuse(
            found != asked,
            lambda at: (
                f"row {self.numbers[at]} has label {short_repr(labels[code[at]])}, but its "
                f"prompt is of {short_repr(known[asked[at]])}."
            ),
        )

    def dense(self) -> dict[str, Any]:
        """Return errors [N, P, J], NaN after each row's last draw, and active prompts [N, P]."""
        n_draws = self.header.n_draws
        lists = self.table["errors"].combine_chunks()
        lengths = lists.value_lengths().to_numpy()
        stated = self.table["n_draws"].to_numpy()
        _refuse(
            (lengths != stated) | (lengths > n_draws),
            lambda at: (
                f"row {self.numbers[at]} has {lengths[at]} errors, but n_draws is "
                f"{stated[at]} and the table has {n_draws} draws."
            ),
        )
        flat = lists.flatten().to_numpy(zero_copy_only=False)
        ends = lengths.cumsum()
        _refuse(
            ~np.isfinite(flat),
            lambda i: (
                f"row {self.numbers[np.searchsorted(ends, i, side='right')]} has the error "
                f"{flat[i]}, but errors must be finite."
            ),
        )
        errors = np.full((len(lengths), n_draws), np.nan, flat.dtype)
        errors[np.arange(n_draws) < lengths[:, None]] = flat
        shape = (-1, len(self.header.setup.prompts))
        active = self.table["active"].to_numpy()
        return {
            "errors": errors.reshape(*shape, n_draws),
            "active": active.reshape(shape),
            "candidates": self._candidates(shape),
        }

    def _candidates(self, shape: tuple[int, int]) -> Candidates | None:
        """Return the candidates, which each of a class's prompts states alike."""
        strength, class_of = self.header.prior_strength, self.header.setup.scoring.class_of
        if strength is None:
            return None
        first = np.searchsorted(class_of.numpy(), np.arange(len(self.header.setup.classes)))
        found = {}
        for name in {"candidate", "log_proposal"} & set(self.table.column_names):
            of_prompts = self.table[name].to_numpy().reshape(shape)
            found[name] = of_prompts[:, first]
            differ = of_prompts != found[name][:, class_of]
            message = f"differs in {name!r} from another row of its class."
            _refuse(differ.ravel(), lambda at, end=message: f"row {self.numbers[at]} {end}")  # type: ignore[misc]
        proposal = found.get("log_proposal"), float(strength), self.header.proposal_has_prior
        return Candidates(found["candidate"], *proposal)


def _refuse(bad: NDArray[np.bool_], message: Callable[[int], str]) -> None:
    """Raise with a message about the first bad entry, if there is one."""
    if bad.any():
        raise DamagedFileError(message(int(bad.argmax())))


def _nth_of_its_kind(*keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many earlier entries have the same keys as each entry."""
    order = np.lexsort(keys)
    sorted_keys = np.stack(keys)[:, order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (sorted_keys[:, 1:] != sorted_keys[:, :-1]).any(0)
    starts = np.flatnonzero(is_first)
    nth = np.empty(len(order), np.int64)
    nth[order] = np.arange(len(order)) - starts[is_first.cumsum() - 1]
    return nth


def _encoded(column: Any) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the distinct values of a column, and the index among them of each row's value."""
    array = column.combine_chunks()
    if not hasattr(array, "dictionary"):
        array = array.dictionary_encode()
    values = array.dictionary.to_pylist()
    # An edited file may hold equal values with different codes.
    number: dict[Any, int] = {}
    renumbered = np.array([number.setdefault(value, len(number)) for value in values], np.int64)
    return list(number), renumbered[array.indices.to_numpy(zero_copy_only=False).astype(np.int64)]


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow: pip install 'diffusion-classifier[parquet]'."
        ) from error
    return pyarrow, pyarrow.parquet
