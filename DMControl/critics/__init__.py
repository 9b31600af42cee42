"""What a method makes of the critic's loss: one file each, wired in ../methods.py."""
