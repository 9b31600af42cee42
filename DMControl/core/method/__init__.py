"""The paper: mask, augment, encode, decode, project, compare, and the targets that follow."""
