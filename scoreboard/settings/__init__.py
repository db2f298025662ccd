"""Every setting and key: its type, its bounds, and the places where it can be set."""
