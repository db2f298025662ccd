"""What runs for ever beside the requests: committers, the projector, housekeeping. Started and supervised by `app`."""
