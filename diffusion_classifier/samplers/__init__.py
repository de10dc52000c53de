"""Samplers: which draws (timestep, noise) to evaluate, in which rounds."""

from typing import Literal

from .base import Sampler
from .grids import EvenSampler, FixedDraws
from .importance import ImportanceSampler
from .stratified import StratifiedSampler

SamplerName = Literal["stratified", "importance", "even"]
SAMPLERS: dict[str, type[Sampler]] = {
    "stratified": StratifiedSampler,
    "importance": ImportanceSampler,
    "even": EvenSampler,
}

__all__ = [
    "SAMPLERS",
    "EvenSampler",
    "FixedDraws",
    "ImportanceSampler",
    "Sampler",
    "SamplerName",
    "StratifiedSampler",
]
