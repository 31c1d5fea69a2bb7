"""A patch series: parsed, applied without fuzz, and proved to be in effect."""
