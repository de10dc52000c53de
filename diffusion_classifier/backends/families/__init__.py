"""Families of diffusers pipelines, each with a small adapter."""

from .base import ClassConditionalFamily, Family, FlowFamily, flow_time
from .parts.text import encode_text, most_tokens, warn_truncated
from .registry import FAMILIES, find_family, register_family

__all__ = [
    "FAMILIES",
    "ClassConditionalFamily",
    "Family",
    "FlowFamily",
    "encode_text",
    "find_family",
    "flow_time",
    "most_tokens",
    "register_family",
    "warn_truncated",
]
