"""The three tasks, one module each; `base` is what they have in common for whoever calls them."""
