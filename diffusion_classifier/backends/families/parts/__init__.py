"""What several families need: autoencoders, text encoders, names of classes, checks."""

__all__: list[str] = []
