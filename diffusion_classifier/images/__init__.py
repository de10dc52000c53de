"""Reading of images in any form, resizing, and conversion to a model's input tensors."""

from .latents import Latents
from .loader import PictureLoader
from .resize import resize_image, to_tensor_batch
from .sequence import ImageSequence, as_images, read_images

__all__ = [
    "ImageSequence",
    "Latents",
    "PictureLoader",
    "as_images",
    "read_images",
    "resize_image",
    "to_tensor_batch",
]
