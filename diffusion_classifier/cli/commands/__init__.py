"""The commands of the shell, one file each."""

from .compare import compare
from .convert import convert
from .cost import cost
from .demo import demo
from .evaluate import evaluate
from .explain import explain
from .info import info
from .predict import predict

COMMANDS = (predict, evaluate, compare, cost, info, explain, convert, demo)

__all__ = ["COMMANDS"]
