"""The commands of the shell, one file each."""

from .compare import compare
from .cost import cost
from .demo import demo
from .evaluate import evaluate
from .explain import explain
from .info import info
from .predict import predict

COMMANDS = (predict, evaluate, compare, cost, info, explain, demo)

__all__ = ["COMMANDS"]
