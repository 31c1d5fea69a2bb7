"""What the dashboard shows, computed from two looks at a running container."""
