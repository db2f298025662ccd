"""Background tasks of a node: committers, the projectors, housekeeping. Started and supervised by `app`."""
