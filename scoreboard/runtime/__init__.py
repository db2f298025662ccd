"""What a long-running process needs: supervision, a circuit breaker, threads for heavy work, limits of the system."""
