"""Five small pictures in the forms that tests about images share."""

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 6, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image)


def pictures():
    return [Image.fromarray(array) for array in PIXELS]


def save_pictures(folder):
    """The five pictures as PNG files."""
    names = [folder / f"{i}.png" for i in range(len(PIXELS))]
    for name, image in zip(names, pictures(), strict=True):
        image.save(name)
    return names


def objects(items):
    """A one-dimensional object array."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


class Column:
    """A lazy column of pictures, as Hugging Face datasets have; counts what it decodes."""

    def __init__(self, items):
        self.items, self.reads = items, 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.reads += 1
        return self.items[index]


class Labelled(Dataset):
    """(picture, label) items; counts what it decodes."""

    def __init__(self, items=None):
        self.items, self.reads = pictures() if items is None else items, 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.reads += 1
        return self.items[index], index
