"""A metric and a measurement of one's own, as an example (docs/extending.md)."""
