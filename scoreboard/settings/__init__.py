"""Every setting and key: its type, its bounds, where it may be given."""
