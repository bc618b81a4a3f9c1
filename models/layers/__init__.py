"""Building blocks that several papers' networks share; each file names its origin."""
