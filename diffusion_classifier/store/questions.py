"""Questions to all files of a store: which networks, prompts, draws and images there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import InputValueError
from ..images.latents import Latents
from ..images.resize import resize_image
from ..images.sequence import read_images
from ..utils.display import short_repr
from .database import Database
from .folder import StoreFolder
from .keys import Content, TapeRecord, array_key, picture_key

_IMAGES_PER_PAGE = 10_000
_ID_DIGITS = 12


def contents_of_kind(kind: str) -> Callable[[Database], list[Content]]:
    """Return the question for all contents of a kind."""
    return lambda database: list(database.contents(kind).values())


def find_networks(folder: StoreFolder) -> dict[bytes, Content]:
    """Return all networks by their keys."""
    found = folder.ask(contents_of_kind("network"))
    return {content.key: content for part in found for content in part}


def count_errors(folder: StoreFolder) -> dict[tuple[bytes, bytes], int]:
    """Return the number of errors by the keys of network and tape."""

    def count(database: Database) -> list[tuple[bytes, bytes, int]]:
        networks, tapes = database.contents("network"), database.contents("tape")
        return [
            (networks[network].key, tapes[tape].key, n)
            for network, tape, n, _ in database.totals()
            if network in networks and tape in tapes
        ]

    counts: dict[tuple[bytes, bytes], int] = {}
    for part in folder.ask(count):
        for network, tape, n in part:
            counts[network, tape] = counts.get((network, tape), 0) + n
    return counts


def draws_of(database: Database) -> set[int]:
    """Return the keys of the draws that have errors in one file."""
    tapes = database.contents("tape")
    return {
        key
        for _, tape, _, n_used in database.totals()
        if tape in tapes
        for key in TapeRecord.from_text(tapes[tape].text).keys[:n_used].tolist()
    }


def prompts_of(database: Database, network: bytes) -> list[Content]:
    """Return the prompts that have errors of a network in one file."""
    prompts = database.contents("prompt")
    numbers = database.find_ids([network])
    return [prompts[p] for n in numbers for p in database.prompts_of(n) if p in prompts]


def image_keys(folder: StoreFolder, network: bytes | None = None) -> Iterator[bytes]:
    """Yield the keys of all images once, sorted, page by page."""
    after = b""
    while True:

        def next_page(database: Database, after: bytes = after) -> list[bytes]:
            number = None if network is None else next(iter(database.find_ids([network])), -1)
            return database.image_keys(after, _IMAGES_PER_PAGE, number)

        pages = list(folder.ask(next_page))
        ends = [page[-1] for page in pages if len(page) == _IMAGES_PER_PAGE]
        keys = {key for page in pages for key in page}
        yield from sorted(key for key in keys if not ends or key <= min(ends))
        if not ends:
            return
        after = min(ends)


def find_network(folder: StoreFolder, model: str | None) -> Content:
    """Return the network with this name or start of an id; by default the only one.

    Raises
    ------
    InputValueError
        If there is none, or several.
    """
    networks = find_networks(folder)
    found = [
        content
        for key, content in networks.items()
        if model is None
        or (model and id_of(key).startswith(model))
        or made_by_of(content).get("name") == model
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{id_of(key)} ({made_by_of(c).get('name')})" for key, c in networks.items())
    problem = "several models" if found else "no model" if model is None else "no such model"
    raise InputValueError(
        f"model={short_repr(model)}: the store has {problem}; give the id of one of "
        f"{len(networks)} models: {known[:300] or 'none'}."
    )


def find_tape(folder: StoreFolder, network: bytes, seed: int | None) -> TapeRecord:
    """Return the draws with the most errors of a network; among those, the longest list.

    Raises
    ------
    InputValueError
        If there are none with this seed.
    """
    texts = {c.key: c.text for part in folder.ask(contents_of_kind("tape")) for c in part}
    counts = count_errors(folder)
    tapes = [(TapeRecord.from_text(texts[tape]), n) for (key, tape), n in counts.items()
             if key == network and tape in texts]  # fmt: skip
    tapes = [(tape, n) for tape, n in tapes if seed is None or tape.seed == seed]
    if not tapes:
        raise InputValueError(
            f"the store has no errors of this model with seed={seed!r}; leave it out, or pass the "
            "seed_ of a fitted classifier."
        )
    n_alike: dict[int, int] = {}  # by the first draw: budgets differ in the number of draws only
    for tape, n in tapes:
        first = int(tape.keys[0])
        n_alike[first] = n_alike.get(first, 0) + n
    return max((t for t, _ in tapes), key=lambda t: (n_alike[int(t.keys[0])], len(t.keys)))


def keys_of(X: Any, network: Content) -> list[bytes]:
    """Return the keys of images, as the race of this network makes them."""
    if isinstance(X, Latents):
        return [array_key(latent, "latent") for latent in X.values]
    described = made_by_of(network)
    if json.loads(network.text.partition("\n")[0])["input_kind"] == "array":
        return [array_key(row, "row") for row in np.asarray(X)]
    size, images = described["image_size"], read_images(X)
    return [
        picture_key(resize_image(image, size and tuple(size), described["resize"]))
        for image in images
    ]


def id_of(key: bytes) -> str:
    """Return what users call a network by."""
    return key.hex()[:_ID_DIGITS]


def made_by_of(network: Content) -> dict[str, Any]:
    """Return the identity of a network, as error tables state it."""
    try:
        described = json.loads(network.text.partition("\n")[2])
    except ValueError:  # it is no part of the key, so it is not verified
        described = None
    return described if isinstance(described, dict) else {}
