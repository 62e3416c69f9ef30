"""Query strategies, one idea a module; each asks the learner for what it wants to know.

Those that take the samples of largest score are in `scoring`. What the others have in common is in
`rows` (asking a learner), `image_level` (predictions with positions), `blocks` (arithmetic on large
matrices) and `clustering`. `al_core` offers their names.
"""
