"""API keys at the edge: who may ask, and how often."""
