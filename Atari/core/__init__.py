"""What both trees share: the method (mask, augment, encode, decode, compare) and what any run needs.

It depends on no environment and no RL algorithm. The other tree holds an identical copy: scripts/sync_core.sh makes it, a test
compares the two.
"""
