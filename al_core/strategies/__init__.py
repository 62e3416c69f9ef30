"""Query strategies, one idea per module.

`scoring` holds those that take the samples of largest score. Shared code is in `rows` (inference
into matrices), `image_level` (predictions with positions), `blocks` (arithmetic on large matrices),
`clustering`, `coverage` and `pairs` (similarities of all pairs), and `turns` (round robin). Import
the strategies from `al_core`.
"""
