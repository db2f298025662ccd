"""What Redis holds: the projection of a board, and the windows and cooldowns of rate limits."""
