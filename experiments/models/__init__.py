"""Networks of the tasks, their weights, and checks of them."""
