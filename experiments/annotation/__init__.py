"""People as the oracle of a run: requests, answers, and the rules for both."""
