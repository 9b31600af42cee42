"""SAC + MLR on the DeepMind Control Suite."""

import os

# Read when torch is loaded: threads that wait spin for a moment and then sleep. With a second process on the machine, spinning
# on makes an update many times slower; alone, this costs nothing that could be measured. A value of the user's stays.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
