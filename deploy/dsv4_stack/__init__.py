"""Pins + a profile become images and a compose project that serves DeepSeek-V4-Flash W4A8, and prove what runs."""

__version__ = "0.1.0"
