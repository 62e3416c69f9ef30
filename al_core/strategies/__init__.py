"""Query strategies, one idea a module; each asks the learner for what it wants to know.

Those that take the samples of largest score are in `scoring`; what the others have in common is in
`rows` (asking a learner), `blocks` (arithmetic on large matrices) and `clustering`.
"""

from al_core.strategies.scoring import Random, Subsampled, TopK
from al_core.strategies.typiclust import TypiClust, typiclust

__all__ = ["Random", "Subsampled", "TopK", "TypiClust", "typiclust"]
