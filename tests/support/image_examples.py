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


def save_odd_pictures(folder):
    """Files of many modes and sizes, and what each should look like as RGB."""
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.linspace(0, 65535, 42).reshape(7, 6).astype(np.uint16)
    palette = pictures()[2].quantize(8)
    large = np.random.default_rng(1).integers(0, 256, (30, 44, 3), np.uint8)
    odd = {
        "grey": (Image.fromarray(GREY[0]), np.stack([GREY[0]] * 3, -1)),
        "grey16": (Image.fromarray(deep), np.stack([np.rint(deep / 257).astype(np.uint8)] * 3, -1)),
        "turned": (pictures()[3], np.rot90(PIXELS[3], -1)),
        "rgba": (pictures()[1].convert("RGBA"), PIXELS[1]),
        "palette": (palette, np.asarray(palette.convert("RGB"))),
        "large": (Image.fromarray(large), large),
    }
    for name, (image, _) in odd.items():
        image.save(folder / f"{name}.png", **({"exif": exif} if name == "turned" else {}))
    return [folder / f"{name}.png" for name in odd], [expected for _, expected in odd.values()]


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
