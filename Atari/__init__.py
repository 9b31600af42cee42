"""Rainbow + MLR on Atari-100k."""
