"""SAC + MLR on the DeepMind Control Suite."""
