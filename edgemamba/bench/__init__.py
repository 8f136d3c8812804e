"""``make bench``: speed as ratios within one run. Nothing else in edgemamba imports it."""
