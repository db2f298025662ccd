"""The composition root: builds a node's parts and runs them. Read `node` first."""
