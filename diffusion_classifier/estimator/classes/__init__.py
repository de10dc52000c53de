"""The classes that are asked about: labels, their prompts, and which of them an image races."""

__all__: list[str] = []
