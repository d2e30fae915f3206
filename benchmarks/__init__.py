"""What orchdb costs beside the raw drivers and the stores people install today; see README.md."""
