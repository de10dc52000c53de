"""Processors of texts and images, of which classification needs the half for texts.

Some language models of pipelines also read images and films. Their processor prepares both. Its
class cannot be made, and sometimes not even imported, without torchvision. Prompts need only its
tokenizer and its template of chats, which lie in the same folder.
"""

from __future__ import annotations

from typing import Any

from transformers import ProcessorMixin

from ....errors import InputValueError


class TextHalf(ProcessorMixin):
    """The half for texts of a processor.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    chat_template : str or None, default=None
    """

    def __init__(self, tokenizer: Any = None, chat_template: str | None = None) -> None:
        super().__init__(tokenizer, chat_template=chat_template)

    def __call__(self, images: Any = None, text: Any = None, **options: Any) -> Any:
        """Tokenize texts. One text alone is a list of one, as for all processors of images."""
        if images is not None:
            raise InputValueError(
                f"images were given to the {type(self).__name__} of a model that was loaded to "
                "classify, which reads texts only; load the pipeline with diffusers instead."
            )
        return super().__call__(text=[text] if isinstance(text, str) else text, **options)


def half_like(name: str) -> type[TextHalf]:
    """Return the half for texts of the class of transformers of this name, as a class.

    It keeps the name: transformers goes by it when it reads some tokenizers, and folders of
    pipelines hold it.
    """
    return type(name, (TextHalf,), {"__module__": "transformers.processing_utils"})
