"""What both trees share: the method (mask, augment, encode, decode, compare) and what any run needs.

Knows no environment and no RL algorithm. The copy in the other tree is the same, byte for byte
(scripts/sync_core.sh copies, a test compares).
"""
