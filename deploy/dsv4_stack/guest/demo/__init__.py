"""The demo: two tiny seeded repositories, and a Hub that serves them."""
