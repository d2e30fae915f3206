"""orchdb beside other tools: each module needs an extra of its own."""
